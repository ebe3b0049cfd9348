"""LeRobot's reward classifier: written from bundles, read as bundles, and its training configurations."""
