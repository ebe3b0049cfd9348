"""A camera on the bus: `camera/<name>`, one process per camera."""
