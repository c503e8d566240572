"""Loss and metrics as a user's operator computes them, for ranks and for partitions."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from zoo.errors import InputError
from zoo.orca.learn.pytorch.batches import Batch
from zoo.orca.learn.pytorch.losses import loss_weight
from zoo.orca.learn.pytorch.operator.host import host_of, replaces, to_tuple
from zoo.orca.learn.pytorch.operator.several import Models
from zoo.orca.learn.pytorch.recipe import Built
from zoo.orca.learn.pytorch.scorer import AnyMetric, Scorer

__all__ = ["ForwardScorer", "ValidateScorer", "make_scorer", "score_batches"]


def make_scorer(built: Built, metrics: Mapping[str, AnyMetric]) -> Scorer:
    """The scorer that honours what the operator replaces."""
    host = built.operator
    if host is None:
        return Scorer(built, metrics)
    if replaces(host.kind, "validate"):
        return ValidateScorer(built, metrics)
    if replaces(host.kind, "forward_batch") or isinstance(built.model, Models):
        return ForwardScorer(built, metrics)
    return Scorer(built, metrics)


def score_batches(scorer: Scorer, batches: Iterable[Batch]) -> None:
    """Score batches, which are on the model's device, in evaluation mode."""
    if isinstance(scorer, ValidateScorer):
        scorer.run(batches)
        return
    for batch in batches:
        scorer.add(batch)


class ForwardScorer(Scorer):
    """Scores with the operator's `forward_batch`.

    Args:
        built: With an operator.
        metrics: Computed from the outputs and targets that `forward_batch` returns.
    """

    def __init__(self, built: Built, metrics: Mapping[str, AnyMetric]) -> None:
        # What the base calls the model gives back the output that it is called with.
        super().__init__(replace(built, model=nn.Identity(), loss=None), metrics)
        self._host, self._loss = host_of(built), built.loss

    def add(self, batch: Batch) -> None:
        """Score one batch."""
        host = self._host
        output, target, loss = host.operator.forward_batch(to_tuple(batch), dict(host.info))
        targets = tuple(target) if isinstance(target, tuple | list) else (target,)
        super().add(Batch((output,), targets, batch.rows))
        weight, value = float(batch.rows), float(loss)
        if getattr(self._loss, "reduction", "mean") == "sum":
            value /= batch.rows
        elif self._loss is not None:
            weight = loss_weight(self._loss, batch)
        if weight:
            self._sums[1:] += (weight, weight * value)

    def result(self, parts: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """Loss and metrics of all parts together."""
        weight, loss = (sum(part[0][k] for part in parts) for k in (1, 2))
        return {**super().result(parts), "val_loss": loss / weight if weight else float("nan")}


class ValidateScorer(Scorer):
    """Scores with the operator's `validate`: each part by itself, then the mean over the rows.

    Args:
        built: With an operator.
        metrics: Handed to `validate`.
    """

    def __init__(self, built: Built, metrics: Mapping[str, AnyMetric]) -> None:
        super().__init__(built, metrics)
        self._host, self._rows = host_of(built), 0
        self._told: dict[str, float] = {}
        self._weight = 0.0

    def run(self, batches: Iterable[Batch]) -> None:
        """Score all batches of this part."""
        stream = iter(batches)
        first = next(stream, None)
        if first is None:
            return
        counted = (self._counted(batch) for batch in itertools.chain([first], stream))
        told = self._host.operator.validate(counted, dict(self._host.info), dict(self._metrics))
        if not isinstance(told, Mapping):
            raise InputError(
                "a dict of numbers from validate", type(told).__name__,
                "Return {'val_loss': ..., 'num_samples': ...}.",
            )  # fmt: skip
        self._told = {name: float(value) for name, value in told.items()}
        self._weight = self._told.pop("num_samples", float(self._rows))

    def _counted(self, batch: Batch) -> tuple[Any, ...]:
        self._rows += batch.rows
        return to_tuple(batch)

    def sums(self) -> Any:
        """What to add up with the other parts of the data."""
        return [[self._rows, self._weight], self._told]

    def result(self, parts: Sequence[Any]) -> dict[str, float]:
        """The numbers of all parts together."""
        weights: dict[str, float] = {}
        totals: dict[str, float] = {}
        for (_, weight), told in parts:
            for name, value in told.items():
                weights[name] = weights.get(name, 0.0) + weight
                totals[name] = totals.get(name, 0.0) + weight * value
        return {n: totals[n] / w if w else float("nan") for n, w in weights.items()}
