"""Colours of the report's picture: those of the page's light style."""

INK, SOFT, RULE = "#1c2128", "#59636e", "#d8dee4"
TRUTH, CHANCE, DECIDED, WRONG, VOID = "#2a9d5f", "#2f6fde", "#7b4fc9", "#cf3a2b", "#8b949e"
