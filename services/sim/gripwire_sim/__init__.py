"""The virtual bench: a simulated SO-101 arm and camera that the product meets as devices, not as code."""

__version__ = "0.1.0"
