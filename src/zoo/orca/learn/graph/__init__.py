"""Train graphs of TensorFlow 1 on Spark data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.errors import load_extra

if TYPE_CHECKING:
    from zoo.orca.learn.graph.estimator import GraphEstimator, from_graph

__all__ = ["GraphEstimator", "from_graph"]

# Every module beside this one needs it, and Python comes by here first.
load_extra("tensorflow", "tensorflow")


def __getattr__(name: str) -> object:
    # Lazily: ranks import the modules beside this one, and need nothing of the driver's side.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from zoo.orca.learn.graph import estimator

    return getattr(estimator, name)
