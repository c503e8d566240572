"""Loss and metrics of batches, as sums that add over ranks and partitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from zoo.errors import InputError
from zoo.orca.learn.metrics import Metric
from zoo.orca.learn.pytorch.batches import Batch
from zoo.orca.learn.pytorch.losses import compute_loss, loss_weight, side_by_side
from zoo.orca.learn.pytorch.pytorch_metrics import AdditiveMetric
from zoo.orca.learn.pytorch.recipe import Built

__all__ = ["OutputMetric", "Scorer", "running_metrics"]


class OutputMetric:
    """A metric on one of several outputs and its target.

    Args:
        metric: Computes it.
        output: Number of the output, from 0.
    """

    def __init__(self, metric: AdditiveMetric, output: int) -> None:
        self._metric, self.output = metric, output

    def __call__(self, preds: torch.Tensor, targets: torch.Tensor) -> None:
        """Take in one batch of this output."""
        self._metric(preds, targets)

    def compute(self) -> torch.Tensor:
        """See `AdditiveMetric`."""
        return self._metric.compute()

    def state(self) -> torch.Tensor:
        """See `AdditiveMetric`."""
        return self._metric.state()

    def load_state(self, vector: torch.Tensor) -> None:
        """See `AdditiveMetric`."""
        self._metric.load_state(vector)

    def reset(self) -> None:
        """See `AdditiveMetric`."""
        self._metric.reset()


def running_metrics(metrics: Any) -> dict[str, AdditiveMetric]:
    """Fresh running metrics by name.

    Args:
        metrics: None, one, or a list. A list of lists has metrics for each output in turn; a name
            that several outputs have gets the number of the output in front.

    Raises:
        InputError: Something is no metric.
    """
    several = isinstance(metrics, list | tuple) and any(
        isinstance(part, list | tuple) for part in metrics
    )
    if not several:
        return Metric.convert_metrics_dict(metrics, "pytorch")
    parts = [
        Metric.convert_metrics_dict(list(p) if isinstance(p, list | tuple) else p, "pytorch")
        for p in metrics
    ]
    names = Counter(name for part in parts for name in part)
    return {
        name if names[name] == 1 else f"output_{k}_{name}": OutputMetric(metric, k)
        for k, part in enumerate(parts)
        for name, metric in part.items()
    }


class Scorer:
    """Evaluates batches: loss and metrics as sums that add over ranks and partitions."""

    def __init__(self, built: Built, metrics: Mapping[str, AdditiveMetric]) -> None:
        self._built, self._metrics = built, dict(metrics)
        self._sums = np.zeros(3)  # rows, weight, weighted loss
        for metric in self._metrics.values():
            metric.reset()

    def add(self, batch: Batch) -> None:
        """Score one batch."""
        self._require_outputs(batch)
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
            if isinstance(metric, OutputMetric):
                outputs = output if isinstance(output, tuple | list) else (output,)
                metric(outputs[metric.output], batch.targets[metric.output])
            else:
                metric(first, target)

    def _require_outputs(self, batch: Batch) -> None:
        asked = [m.output for m in self._metrics.values() if isinstance(m, OutputMetric)]
        if asked and max(asked) >= len(batch.targets):
            raise InputError(
                f"{max(asked) + 1} columns of targets, one for each list of metrics",
                f"{len(batch.targets)}", "Give as many label_cols as the model has outputs.",
            )  # fmt: skip

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
