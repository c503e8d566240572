"""Where work runs: starting and stopping Spark, and running a function on many ranks."""
