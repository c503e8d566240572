"""Data for TensorFlow, made on the workers from shards."""
