"""Train PyTorch models on Spark data."""

from zoo.orca.learn.pytorch.estimator import Estimator

__all__ = ["Estimator"]
