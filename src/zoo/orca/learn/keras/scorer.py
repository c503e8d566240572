"""Loss and metrics of batches, as sums that add over ranks and partitions."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from zoo.orca.learn.keras.backends import Backend, Found, backend_for
from zoo.orca.learn.keras.built import Built
from zoo.orca.learn.keras.losses import adds_up
from zoo.orca.learn.keras.metrics import KerasMetrics, running_metrics
from zoo.orca.learn.keras.preparing import prepare, try_metrics
from zoo.orca.learn.rank.array_batches import Batch

__all__ = ["Scorer", "weight_of"]

_log = logging.getLogger(__name__)


def weight_of(found: Found, batch: Batch) -> float | None:
    """What a batch weighs in the mean of its loss; None where its losses disagree."""
    mean = batch.weight / batch.rows
    shares = {batch.weight if w is None else w * mean for w in found.weights}
    return shares.pop() if len(shares) == 1 else None if shares else batch.weight


class Scorer:
    """Scores batches of a model.

    Args:
        built: The model; it has losses of its own where no others were put in their place.
        given: Metrics by name, besides those that it was compiled with.
    """

    def __init__(self, built: Built, given: Mapping[str, Any]) -> None:
        self._built = built
        self._metrics: KerasMetrics = running_metrics(given, built.model)
        self._sums = np.zeros(3)  # rows, weight, weighted loss
        self._backend: Backend | None = None
        self._adds_up = adds_up(built.model)
        self._told = False

    def begin(self) -> None:
        """Forget what was seen."""
        self._sums[:] = 0.0
        self._metrics.reset()
        self._metrics.load([])

    def run(self, batches: Iterable[Batch | None]) -> None:
        """Score batches that have rows."""
        with self._built.weigh():
            for batch in batches:
                if batch is not None:
                    self._add(batch)

    def _add(self, batch: Batch) -> None:
        if self._backend is None:
            prepare(self._built, self._metrics, batch)
            self._backend = backend_for(self._built, self._metrics)
        try_metrics(self._built, self._metrics, self._backend, batch)
        found = self._backend.score(batch)
        if self._metrics.gathers:
            self._show(batch)
        self._metrics.move()
        weight = weight_of(found, batch)
        if weight is None:
            weight = batch.weight
            self._say_unknown_weight()
        self._sums[0] += batch.rows
        if self._adds_up:
            self._sums[1:] += (batch.rows, found.loss)
        elif weight:
            self._sums[1:] += (weight, weight * found.loss)

    def _show(self, batch: Batch) -> None:
        """Give outputs to metrics that compute outside of the backend."""
        assert self._backend is not None
        y_pred = self._backend.forward(batch.features)
        self._metrics.gather(self._built.wanted(batch.targets, y_pred), y_pred)

    def _say_unknown_weight(self) -> None:
        if not self._told:
            _log.warning(
                "masks leave the outputs unequal numbers of entries: in the sum of their losses "
                "batches count by their rows"
            )
        self._told = True

    def sums(self) -> list[Any]:
        """What to put together with the other parts of the data."""
        return [self._sums.tolist(), self._metrics.sums()]

    def result(self, parts: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """Loss and metrics of all parts together."""
        sums, states = zip(*parts, strict=True)
        _, weight, loss = np.sum(sums, axis=0)
        named = dict(self._metrics.result([state for state in states if state]))
        named["val_loss"] = float(loss / weight) if weight else float("nan")
        return named
