"""Start Spark, ask it, end it."""
