"""The last minutes of the bus, kept in a ring on the disk, and saved when something went wrong."""
