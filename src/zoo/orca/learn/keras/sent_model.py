"""A Keras model on its way to tasks that are no ranks, and opened there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zoo.cluster.ranks.carried import pickled, unpickled
from zoo.errors import InputError
from zoo.orca.data.tensors.plan import TensorPlan
from zoo.orca.learn.keras.backends import Backend, backend_for, start_backend
from zoo.orca.learn.keras.built import Built, Layout
from zoo.orca.learn.keras.process import Sent
from zoo.orca.learn.keras.readings import Reading
from zoo.orca.learn.keras.recipe import Recipe, make_model
from zoo.orca.learn.keras.scorer import Scorer
from zoo.orca.learn.rank.array_batches import Batch
from zoo.orca.learn.score.predict import Outputs, Predictor

__all__ = ["KerasEvaluator", "SentKeras", "evaluator", "local_predictor", "predictor", "sent"]


@dataclass(frozen=True)
class SentKeras(Sent):
    """A model as it is now.

    Attributes:
        recipe: How it is made.
        layout: Of its arguments, see `Built`.
        weights: Of the model.
        metrics: Besides those that it was compiled with.
        reading: What is made of its output.
    """

    recipe: Recipe
    layout: Layout | None
    weights: list[np.ndarray]
    metrics: Mapping[str, Any]
    reading: Reading | None = None

    def open(self) -> Built:
        """The model, in this process."""
        start_backend(1)
        self.recipe.setup.take()
        built = Built(make_model(self.recipe), self.recipe)
        built.ready(self.layout)
        for variable, value in zip(built.model.weights, self.weights, strict=True):
            variable.assign(value)
        return built


def sent(
    built: Built, metrics: Mapping[str, Any] | None = None, reading: Reading | None = None
) -> bytes:
    """A model as it is now, for `predictor` and `evaluator`.

    Args:
        built: The model.
        metrics: Besides those that it was compiled with.
        reading: What is made of its output.

    Raises:
        InputError: It cannot be sent.
    """
    weights = [w.numpy() for w in built.model.weights]
    whole = SentKeras(built.recipe, built.layout, weights, dict(metrics or {}), reading)
    return pickled(whole, "a model, its losses and metrics")


def predictor(blob: bytes) -> Predictor:
    """A model that was sent, in a process of its own.

    Args:
        blob: From `sent`.
    """
    opened: SentKeras = unpickled(blob)
    return _reading(backend_for(opened.open()), opened.reading)


def local_predictor(built: Built, reading: Reading | None = None) -> Predictor:
    """The model of the driver.

    Args:
        built: May not have its weights yet, which the first rows make then.
        reading: What is made of its output.
    """
    made: list[Predictor] = []

    def predict(arrays: Sequence[np.ndarray]) -> Outputs:
        if not made:
            built.ready([(a.dtype.name, list(a.shape[1:])) for a in arrays])
            made.append(_reading(backend_for(built), reading))
        return made[0](arrays)

    return predict


def _reading(backend: Backend, reading: Reading | None) -> Predictor:
    def predict(arrays: Sequence[np.ndarray]) -> Outputs:
        outputs = backend.forward(tuple(arrays))
        if reading is None:
            return outputs
        if not isinstance(outputs, np.ndarray):
            raise InputError(
                "a model with one output, to read it as classes or probabilities",
                f"{len(outputs)} outputs", "Take the outputs as they are: output='raw'.",
            )  # fmt: skip
        return reading(outputs)

    return predict


def evaluator(blob: bytes, plan: TensorPlan) -> KerasEvaluator:
    """Model, losses and metrics that were sent, in a process of their own.

    Args:
        blob: From `sent`.
        plan: What the arrays of a batch are.
    """
    opened: SentKeras = unpickled(blob)
    return KerasEvaluator(Scorer(opened.open(), opened.metrics), plan)


class KerasEvaluator:
    """Scores batches of arrays.

    Args:
        scorer: Of the model.
        plan: What the arrays of a batch are.
    """

    def __init__(self, scorer: Scorer, plan: TensorPlan) -> None:
        self._scorer, self._plan = scorer, plan

    def run(self, batches: Iterable[Sequence[np.ndarray]]) -> None:
        """Score batches: an array for each tensor of the plan."""
        self._scorer.run(Batch.of(self._plan, arrays, len(arrays[0])) for arrays in batches)

    def sums(self) -> Any:
        """What to add up with other parts of the data."""
        return self._scorer.sums()
