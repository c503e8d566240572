"""Compiled Keras models and TensorFlow graphs, on Spark data."""
