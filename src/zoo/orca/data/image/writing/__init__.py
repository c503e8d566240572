"""How datasets are written: by Spark tasks, whole or not at all, and again after a stop."""
