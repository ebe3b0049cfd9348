"""The raw bus in a file, and back: what `gripwire record` and `gripwire replay` do."""
