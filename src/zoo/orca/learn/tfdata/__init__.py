"""Datasets of tf.data, made by a function of the user's in each rank, for any framework."""

from __future__ import annotations

from zoo.errors import load_extra

__all__ = list[str]()

# Every module beside this one needs it, and Python comes by here first.
load_extra("tensorflow", "tensorflow")
