"""Reward datasets and demonstrations: labelled episodes of any source, in LeRobot's v3.0 layout."""
