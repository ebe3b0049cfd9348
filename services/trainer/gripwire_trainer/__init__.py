"""The trainer: label files and datasets in, a verified bundle out."""
