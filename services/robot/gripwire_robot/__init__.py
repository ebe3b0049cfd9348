"""An SO-101 arm on the bus: `robot/state`, `robot/action` and commands."""
