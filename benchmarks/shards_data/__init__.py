"""CSV files read, transformed and trained on: the work, and everyone who is measured on it."""
