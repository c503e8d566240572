"""Loss and metrics of batches, as sums that add over ranks and partitions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from zoo.errors import InputError
from zoo.orca.learn.graph.batches import feeds_of, weighed
from zoo.orca.learn.graph.built import Built
from zoo.orca.learn.graph.measures import Measure, OutputMeasure, TensorMeasure
from zoo.orca.learn.rank.array_batches import Batch

__all__ = ["Scorer"]


class Scorer:
    """Scores batches; see `zoo.orca.learn.framework.Scorer`.

    Args:
        built: The graph.
        metrics: By name; they forget what they have seen.

    Raises:
        InputError: A metric asks for an output or labels that there are none of.
    """

    def __init__(self, built: Built, metrics: Mapping[str, Measure]) -> None:
        recipe = built.recipe
        self._built, self._metrics = built, dict(metrics)
        self._sums = np.zeros(3)  # rows, weight, weighted loss
        for metric in self._metrics.values():
            metric.reset()
        self._tensors = [m for m in self._metrics.values() if isinstance(m, TensorMeasure)]
        self._others = [m for m in self._metrics.values() if isinstance(m, OutputMeasure)]
        if self._others and not (recipe.outputs and recipe.labels):
            raise InputError(
                "outputs and labels, to compare with metrics of zoo.orca.learn.metrics",
                "an estimator without them", "Pass both to Estimator.from_graph.",
            )  # fmt: skip
        compared = [recipe.outputs[0].name] if self._others else []
        loss = [] if recipe.loss is None else [recipe.loss.name]
        self._fetches = [*loss, *(m.tensor for m in self._tensors), *compared]

    def run(self, batches: Iterable[Batch | None]) -> None:
        """Score batches."""
        recipe, program = self._built.recipe, self._built.program
        what = ["outputs"] if self._others else []
        what += [] if recipe.loss is None else ["loss"]
        tensors = [n for n, m in self._metrics.items() if isinstance(m, TensorMeasure)]
        fixed = program.fixed([*what, *(f"metric {n!r}" for n in tensors)], training=False)
        for batch in batches:
            if batch is None:
                continue
            found = program.run(self._fetches, {**feeds_of(batch, recipe), **fixed})
            self._sums[0] += batch.rows
            if recipe.loss is not None:
                self._sums[1:] += self._weigh(batch, found.pop(0))
            for measure in self._tensors:
                measure.take(found.pop(0), batch.rows)
            for other in self._others:
                assert isinstance(batch.targets, tuple), "see InOrder"
                other.take(found[0], batch.targets[0])

    def _weigh(self, batch: Batch, loss: np.ndarray) -> tuple[float, float]:
        rows = float(batch.rows)
        if self._built.adds_up == "rows":
            return weighed(batch, loss)
        return rows, float(loss) if self._built.adds_up == "sum" else rows * float(loss)

    def sums(self) -> list[Any]:
        """What to put together with the other parts of the data."""
        return [self._sums.tolist(), *(m.state() for m in self._metrics.values())]

    def result(self, parts: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """Loss and metrics of all parts together."""
        sums, *states = zip(*parts, strict=True)
        _, weight, loss = np.sum(sums, axis=0)
        named: dict[str, Any] = {}
        for (name, measure), seen in zip(self._metrics.items(), states, strict=True):
            named |= measure.told(name, seen)
        if self._built.recipe.loss is not None:
            named["val_loss"] = float(loss / weight) if weight else float("nan")
        return named
