"""The reward service, and the one preprocessing, scorer and decision that training and serving share."""
