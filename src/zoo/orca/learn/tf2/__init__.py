"""Keras models that functions make, on Spark data."""

from zoo.orca.learn.tf2.estimator import Estimator

__all__ = ["Estimator"]
