"""Loss and metrics of batches, as sums that add over ranks and partitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

from zoo.errors import InputError
from zoo.orca.learn.metrics import GatheredMetric, Metric, RunningMetric
from zoo.orca.learn.pytorch.batches import Batch
from zoo.orca.learn.pytorch.losses import require_rows_aligned, side_by_side, weigh_loss
from zoo.orca.learn.pytorch.recipe import Built
from zoo.orca.learn.score.packing import packed, unpacked

__all__ = ["AnyMetric", "OutputMetric", "Scorer", "running_metrics"]


class OutputMetric:
    """A metric on one of several outputs and its target.

    Args:
        metric: Computes it.
        output: Number of the output, from 0.
    """

    def __init__(self, metric: RunningMetric, output: int) -> None:
        self.metric, self.output = metric, output

    def __call__(self, preds: torch.Tensor, targets: torch.Tensor) -> None:
        """Take in one batch of this output."""
        self.metric(preds, targets)

    def compute(self) -> Any:
        """Return the value over everything seen."""
        return self.metric.compute()


AnyMetric: TypeAlias = RunningMetric | OutputMetric


def running_metrics(metrics: Any) -> dict[str, AnyMetric]:
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
        return {**Metric.convert_metrics_dict(metrics, "pytorch")}
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


def _inner(metric: AnyMetric) -> RunningMetric:
    return metric.metric if isinstance(metric, OutputMetric) else metric


def _measure(metric: RunningMetric, output: Any, target: Any) -> None:
    """Let a metric see a batch. Those of the library compare shapes themselves."""
    if type(metric).__module__.startswith("zoo."):
        metric(output, target)
    else:
        require_rows_aligned(metric, output, target)


def _load(metric: RunningMetric, states: Sequence[np.ndarray]) -> None:
    """Put what all parts have seen into a metric."""
    if isinstance(metric, GatheredMetric):
        metric.load_states([torch.from_numpy(state) for state in states])
    else:
        metric.load_state(torch.from_numpy(np.sum(states, axis=0)))


def _told(name: str, value: Any) -> dict[str, Any]:
    """A metric's value as results have it: numbers, and lists of them for matrices."""
    if isinstance(value, Mapping):
        told = [_told(f"{name}_{key}", each) for key, each in value.items()]
        return {key: each for part in told for key, each in part.items()}
    if isinstance(value, torch.Tensor):
        value = value.tolist()
    return {name: value if isinstance(value, list) else float(value)}


class Scorer:
    """Evaluates batches: loss and metrics as sums that add over ranks and partitions."""

    def __init__(self, built: Built, metrics: Mapping[str, AnyMetric]) -> None:
        self._built, self._metrics = built, dict(metrics)
        self._sums = np.zeros(3)  # rows, weight, weighted loss
        for metric in self._metrics.values():
            _inner(metric).reset()

    def add(self, batch: Batch) -> None:
        """Score one batch."""
        self._require_outputs(batch)
        output = self._built.model(*batch.features)
        self._sums[0] += batch.rows
        if self._built.loss is not None:
            found = weigh_loss(self._built, output, batch.targets, batch.rows, batch.weights)
            loss, weight = found.loss.item(), found.weight
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
                _measure(metric.metric, outputs[metric.output], batch.targets[metric.output])
            else:
                _measure(metric, first, target)

    def _require_outputs(self, batch: Batch) -> None:
        asked = [m.output for m in self._metrics.values() if isinstance(m, OutputMetric)]
        if asked and max(asked) >= len(batch.targets):
            raise InputError(
                f"{max(asked) + 1} columns of targets, one for each list of metrics",
                f"{len(batch.targets)}", "Give as many label_cols as the model has outputs.",
            )  # fmt: skip

    def sums(self) -> list[Any]:
        """What to put together with the other parts of the data."""
        states = [_inner(metric).state().cpu().numpy() for metric in self._metrics.values()]
        return [self._sums.tolist(), *map(packed, states)]

    def result(self, parts: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """Loss and metrics of all parts together."""
        sums, *states = zip(*parts, strict=True)
        _, weight, loss = np.sum(sums, axis=0)
        named: dict[str, Any] = {}
        for (name, metric), texts in zip(self._metrics.items(), states, strict=True):
            _load(_inner(metric), [unpacked(text) for text in texts])
            named |= _told(name, metric.compute())
        if self._built.loss is not None:
            named["val_loss"] = float(loss / weight) if weight else float("nan")
        return named
