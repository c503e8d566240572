"""Batches as tensors, from shards."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from zoo.errors import InputError
from zoo.orca.data.tensors.plan import TensorPlan
from zoo.orca.learn.rank.feed import TensorFeed

__all__ = ["Batch", "TensorBatches", "on_device"]


@dataclass(frozen=True)
class Batch:
    """What the model is called with and what the loss compares with.

    Attributes:
        features: Arguments of the model.
        targets: Targets of the loss; empty when the model's output is the loss.
        rows: Rows of the batch.
        weights: What each row weighs in the loss, shape (rows,); None for 1.
    """

    features: tuple[Any, ...]
    targets: tuple[Any, ...]
    rows: int
    weights: torch.Tensor | None = None

    @classmethod
    def of(cls, plan: TensorPlan, tensors: Sequence[torch.Tensor], rows: int) -> Batch:
        """The batch that these tensors of a plan are."""
        features, targets, factors = plan.split(tensors)
        return cls(features, targets, rows, None if factors is None else factors.prod(1))

    def parts(self, count: int) -> list[Batch]:
        """At most so many parts of about equal size, in order, none of them empty."""
        count = min(count, self.rows)
        if count <= 1:
            return [self]
        ends = [k * self.rows // count for k in range(count + 1)]
        return [self.cut(low, high) for low, high in itertools.pairwise(ends)]

    def cut(self, low: int, high: int) -> Batch:
        """Rows of the batch, from `low` to below `high`."""
        return Batch(
            tuple(_cut(f, low, high) for f in self.features),
            tuple(_cut(t, low, high) for t in self.targets),
            high - low,
            None if self.weights is None else self.weights[low:high],
        )

    def to(self, device: torch.device) -> Batch:
        """The batch on a device; the same one where it is there already."""
        if device.type == "cpu":
            return self
        return Batch(
            tuple(_moved(f, device) for f in self.features),
            tuple(_moved(t, device) for t in self.targets),
            self.rows,
            _moved(self.weights, device),
        )


def _cut(value: Any, low: int, high: int) -> Any:
    if isinstance(value, Mapping):
        return {name: _cut(part, low, high) for name, part in value.items()}
    if isinstance(value, torch.Tensor | np.ndarray | list):
        return value[low:high]
    raise InputError(
        "tensors in the batches, to cut them for ranks or gradient_accumulation",
        type(value).__name__,
        "Let the loader return tensors, or use a data creator and gradient_accumulation=1.",
    )


def on_device(batches: Iterable[Batch | None], device: torch.device) -> Iterator[Batch]:
    """The batches that have rows, on a device."""
    return (batch.to(device) for batch in batches if batch is not None)


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Mapping):
        return {name: _moved(part, device) for name, part in value.items()}
    return value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value


class TensorBatches:
    """Batches that are views of a stretch gathered from shards.

    Args:
        feed: The rows of this rank.
        plan: Of its tensors.
    """

    def __init__(self, feed: TensorFeed, plan: TensorPlan) -> None:
        self._feed, self._plan = feed, plan
        self.steps: int | None = feed.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch | None]:
        """Batches from step `start` on; None for a step without rows for this rank."""
        for starts, arrays in self._feed.epoch(epoch, start):
            sizes = np.diff(starts).tolist()
            views = zip(*(torch.from_numpy(a).split(sizes) for a in arrays), strict=True)
            for rows, tensors in zip(sizes, views, strict=True):
                yield Batch.of(self._plan, tensors, rows) if rows else None
