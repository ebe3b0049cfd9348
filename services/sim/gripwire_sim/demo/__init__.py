"""`gripwire demo`: the whole line on the virtual bench, from nothing to a judged live reward."""
