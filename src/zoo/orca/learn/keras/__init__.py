"""Train Keras models on Spark data, on each backend of Keras 3."""
