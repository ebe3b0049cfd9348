"""`gripwire reward preview`: the live picture, what the model sees of it, and what it says."""
