"""The loop of one rank: batches in, gradients out, agreement, update. No framework in here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from zoo.cluster.meeting import Member
from zoo.errors import InputError
from zoo.orca.learn.collective import Collective

__all__ = ["EpochStats", "Feed", "Learner", "StepSums", "run_epochs"]


@dataclass
class StepSums:
    """What every step adds up over the ranks besides the gradients.

    Attributes:
        array: Ranks that still have batches, rows, weight of the rows in the loss, and weight
            times loss.
    """

    array: np.ndarray = field(default_factory=lambda: np.zeros(4))

    def set(self, rows: int, weight: float, loss: float) -> None:
        """This rank's part."""
        self.array[:] = (1.0, rows, weight, loss)

    def clear(self) -> None:
        """This rank has no batch any more."""
        self.array[:] = 0.0

    @property
    def active(self) -> bool:
        """Whether any rank had a batch."""
        return bool(self.array[0])

    @property
    def rows(self) -> int:
        """Rows of the step."""
        return int(self.array[1])

    @property
    def weight(self) -> float:
        """What the gradients are divided by."""
        return float(self.array[2])

    @property
    def loss(self) -> float:
        """Mean loss of the step."""
        return float(self.array[3] / self.array[2]) if self.array[2] else float("nan")


@dataclass
class EpochStats:
    """What one epoch was, on one rank.

    Attributes:
        epoch: Counted from 1.
        steps: Steps taken.
        rows: Rows over all ranks.
        loss: Mean loss over the rows.
        last_loss: Loss of the last step.
        own_rows: Rows of this rank.
        own_loss: Mean loss over them.
        data_s: Waiting for batches.
        compute_s: Forward, backward, update.
        sync_s: Agreeing with other ranks, waiting for them included.
        seconds: The whole epoch, validation not included.
        validation: Results of validation, by name.
    """

    epoch: int
    steps: int = 0
    rows: int = 0
    loss: float = 0.0
    last_loss: float = float("nan")
    own_rows: int = 0
    own_loss: float = 0.0
    data_s: float = 0.0
    compute_s: float = 0.0
    sync_s: float = 0.0
    seconds: float = 0.0
    validation: dict[str, float] = field(default_factory=dict)


class Feed(Protocol):
    """The batches of one rank.

    Attributes:
        steps: Steps of an epoch, the same on every rank; None when ranks may have unequal numbers.
    """

    steps: int | None

    def epoch(self, epoch: int) -> Iterator[Any]:
        """Batches in order; None for a step in which this rank has no rows."""


class Learner(Protocol):
    """A model in training, in whatever framework."""

    def buffers(self) -> list[np.ndarray]:
        """1-D arrays that `backward` fills with sums over this rank's rows."""

    def begin_epoch(self, epoch: int) -> None:
        """Prepare for an epoch."""

    def backward(self, batch: Any, sums: StepSums) -> None:
        """Compute gradients of a batch into the buffers; without one, clear them."""

    def update(self, sums: StepSums) -> None:
        """Take the optimizer's step, from buffers summed over the ranks."""

    def end_epoch(self, stats: EpochStats) -> None:
        """Settle what is not gradients, validate, snapshot."""


def run_epochs(
    member: Member,
    learner: Learner,
    feed: Feed,
    *,
    epochs: range,
    on_step: Callable[[EpochStats], None] = lambda _: None,
) -> list[EpochStats]:
    """Train for some epochs.

    Args:
        member: This rank.
        learner: The model.
        feed: Its batches.
        epochs: Numbers of the epochs, counted from 0.
        on_step: Called after every step; must be quick.
    """
    sums = StepSums()
    collective = Collective(member, [sums.array, *learner.buffers()])
    try:
        return [_epoch(learner, feed, collective, sums, epoch, on_step) for epoch in epochs]
    finally:
        collective.close()


def _epoch(
    learner: Learner,
    feed: Feed,
    collective: Collective,
    sums: StepSums,
    epoch: int,
    on_step: Callable[[EpochStats], None],
) -> EpochStats:
    stats, clock = EpochStats(epoch + 1), time.perf_counter
    learner.begin_epoch(epoch)
    batches, ended = feed.epoch(epoch), object()
    start = now = clock()
    while True:
        batch = next(batches, ended)
        fetched = clock()
        stats.data_s += fetched - now
        if batch is ended:
            if feed.steps is not None:
                break
            learner.backward(None, sums)
            # After it: no batch any more is not the same as none in this step.
            sums.clear()
        else:
            learner.backward(batch, sums)
            stats.own_rows += int(sums.array[1])
            stats.own_loss += sums.loss * sums.array[1] if sums.array[2] else 0.0
        computed = clock()
        collective.all_reduce()
        agreed = clock()
        if not sums.active:
            break
        if sums.rows:
            learner.update(sums)
            stats.steps += 1
            stats.rows += sums.rows
            stats.last_loss = sums.loss
            stats.loss += stats.last_loss * sums.rows
        now = clock()
        stats.sync_s += agreed - computed
        stats.compute_s += computed - fetched + now - agreed
        on_step(stats)
    if not stats.steps:
        raise InputError(
            "batches to train on",
            f"none in epoch {epoch + 1}",
            "Let the data creator return a loader that can be gone through once an epoch.",
        )
    stats.loss /= max(1, stats.rows)
    stats.own_loss /= max(1, stats.own_rows)
    stats.seconds = clock() - start
    learner.end_epoch(stats)
    return stats
