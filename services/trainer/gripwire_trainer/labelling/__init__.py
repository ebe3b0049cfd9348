"""What `gripwire labels` does with label files: check, import, show."""
