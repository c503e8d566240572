"""One tabular training job, and everyone who is measured on it."""
