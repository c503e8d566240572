"""Train PyTorch models on Spark data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.errors import load_extra

if TYPE_CHECKING:
    from zoo.orca.learn.pytorch.estimator import Estimator
    from zoo.orca.learn.pytorch.training_operator import TrainingOperator

__all__ = ["Estimator", "TrainingOperator"]

# Every module beside this one needs it, and Python comes by here first.
load_extra("torch", "torch")


def __getattr__(name: str) -> object:
    # Lazily: ranks import the modules beside this one, and need nothing of the driver's side.
    if name == "Estimator":
        from zoo.orca.learn.pytorch.estimator import Estimator

        return Estimator
    if name == "TrainingOperator":
        from zoo.orca.learn.pytorch.training_operator import TrainingOperator

        return TrainingOperator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
