"""The backends of Keras: what of a training differs between them, behind one protocol."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import keras
import numpy as np

from zoo.orca.learn.keras.built import Built
from zoo.orca.learn.rank.array_batches import Arrays, Batch
from zoo.orca.learn.score.predict import Outputs
from zoo.orca.learn.steps import GradientLimits

__all__ = ["Backend", "Found", "StepMetrics", "backend_for", "start_backend"]


@dataclass
class Found:
    """What a batch gave.

    Attributes:
        loss: Of the batch, one number.
        weights: What each loss says that it weighs: None for the rows, as `WeighedLoss` has it.
        gradients: Of the loss, as the optimizer scales it, by each of the model's trainable
            weights: tensors of the backend, None where one took no part.
    """

    loss: float
    weights: list[float | None]
    gradients: list[Any] = field(default_factory=list)


class StepMetrics(Protocol):
    """Metrics that see each batch."""

    def update(self, y: Any, y_pred: Any, weights: Any) -> None:
        """Take in a batch: tensors of the backend, in whatever it compiles."""


class Backend(Protocol):
    """The steps of one model in one process.

    Made as `Steps(built, metrics, limits)` from a module of this folder, for a model that is built
    and whose losses say what they weigh (`Built.weigh`). The first rows went through model, loss
    and metrics already, so that nothing makes variables any more. Another Keras backend is another
    module. All of it is called from one thread.
    """

    def backward(self, batch: Batch, seeds: np.ndarray) -> Found:
        """Forward pass in training mode, gradients of the loss, metrics of the batch.

        States of random numbers are set to `seeds` first; other variables that are not trained
        change as the layers change them; trained ones and those of the optimizer stay. Compiled
        for any number of rows, unless the model was compiled to run eagerly.

        Args:
            batch: With rows.
            seeds: A state for each of `Built.seeds`, shape (number, 2).
        """

    def update(self, gradients: Sequence[Any]) -> None:
        """A step of the optimizer, with gradients within the limits.

        Args:
            gradients: Those of `Found`, or arrays of the same shapes; None where there is none.
        """

    def score(self, batch: Batch) -> Found:
        """Loss and metrics of a batch in inference mode, without gradients."""

    def forward(self, features: Arrays) -> Outputs:
        """Outputs of rows in inference mode."""

    def numbers(self, gradient: Any) -> np.ndarray:
        """A gradient as a dense array, which is read at once."""


def backend_for(
    built: Built, metrics: StepMetrics | None = None, limits: GradientLimits | None = None
) -> Backend:
    """The steps of a model, on the backend of this process.

    Args:
        built: The model.
        metrics: See each batch; None for none.
        limits: For gradients, or None.
    """
    made: Backend = _module().Steps(built, metrics, limits)
    return made


def start_backend(threads: int) -> None:
    """Give this process so many threads for tensors, as far as that can still be chosen."""
    _module().start(threads)


def _module() -> Any:
    return importlib.import_module(f"{__name__}.{keras.backend.backend()}")
