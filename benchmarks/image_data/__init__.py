"""Image datasets written, read and looked up: the work, and everyone who is measured on it."""
