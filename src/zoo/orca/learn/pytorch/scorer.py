"""Loss and metrics of batches, as sums that add over ranks and partitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from zoo.orca.learn.pytorch.batches import Batch
from zoo.orca.learn.pytorch.losses import compute_loss, loss_weight, side_by_side
from zoo.orca.learn.pytorch.pytorch_metrics import AdditiveMetric
from zoo.orca.learn.pytorch.recipe import Built

__all__ = ["Scorer"]


class Scorer:
    """Evaluates batches: loss and metrics as sums that add over ranks and partitions."""

    def __init__(self, built: Built, metrics: Mapping[str, AdditiveMetric]) -> None:
        self._built, self._metrics = built, dict(metrics)
        self._sums = np.zeros(3)  # rows, weight, weighted loss
        for metric in self._metrics.values():
            metric.reset()

    def add(self, batch: Batch) -> None:
        """Score one batch."""
        output = self._built.model(*batch.features)
        self._sums[0] += batch.rows
        if self._built.loss is not None:
            loss = compute_loss(self._built, output, batch.targets).item()
            weight = loss_weight(self._built.loss, batch)
            if getattr(self._built.loss, "reduction", "mean") == "sum":
                weight, loss = float(batch.rows), loss / batch.rows
            if weight:
                self._sums[1:] += (weight, weight * loss)
        if not self._metrics:
            return
        first = output[0] if isinstance(output, tuple | list) else output
        together = len(batch.targets) > 1 and not isinstance(output, tuple | list)
        target = side_by_side(batch.targets) if together else batch.targets[0]
        for metric in self._metrics.values():
            metric(first, target)

    def sums(self) -> list[list[float]]:
        """What to add up with the other parts of the data."""
        return [self._sums.tolist(), *(m.state().tolist() for m in self._metrics.values())]

    def result(self, parts: Sequence[Sequence[Sequence[float]]]) -> dict[str, float]:
        """Loss and metrics of all parts together."""
        (_, weight, loss), *states = (np.sum(column, axis=0) for column in zip(*parts, strict=True))
        named: dict[str, float] = {}
        for (name, metric), state in zip(self._metrics.items(), states, strict=True):
            metric.load_state(torch.from_numpy(state))
            named[name] = float(metric.compute())
        if self._built.loss is not None:
            named["val_loss"] = float(loss / weight) if weight else float("nan")
        return named
