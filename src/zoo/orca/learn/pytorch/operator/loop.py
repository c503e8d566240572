"""The loop of a rank whose operator takes its own steps.

The operator's `train_epoch` asks for batches, and that moves the loop on: a step is over when the
next batch is wanted. Ranks agree on gradients inside the step, when an optimizer is about to
(`StepsLearner`), and at its end on the numbers that the operator told.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from zoo.cluster.ranks.member import Member
from zoo.cluster.ranks.messages import Stopped
from zoo.errors import InputError
from zoo.orca.learn.agree.collective import Collective, collective_for
from zoo.orca.learn.framework import Feed
from zoo.orca.learn.pytorch.batches import Batch
from zoo.orca.learn.pytorch.operator.learner import StepsLearner
from zoo.orca.learn.rank.loop import Loop, Observer
from zoo.orca.learn.steps import EpochStats, Position, StepSums

__all__ = ["OperatorLoop"]

_END = object()


class OperatorLoop(Loop):
    """The steps of a rank in one round, taken by an operator.

    Args:
        member: This rank.
        learner: What the operator trains.
        feed: Its batches.
        position: Where training stands; moves on with every step.
        observer: Sees what happens.
        begun: What there is of the running epoch, when it was begun in another round.
    """

    def __init__(
        self,
        member: Member,
        learner: StepsLearner,
        feed: Feed,
        position: Position,
        *,
        observer: Observer,
        begun: EpochStats | None = None,
    ) -> None:
        super().__init__(member, learner, feed, position, observer=observer, begun=begun)
        self._steps_of = learner
        learner.connect = partial(collective_for, member)
        learner.on_change = self._hold
        self._names: list[str] = []
        self._totals = np.zeros(0)
        self._numbers: Collective | None = None
        self._batches: Iterator[Any] = iter(())
        self._gate: Collective | None = None
        self._spare: Batch | None = None
        self._begun_at: float | None = None
        self._now_s = 0.0

    @property
    def torn(self) -> bool:
        """See `Loop`."""
        return self._steps_of.torn

    def _hold(self) -> None:
        # From here to the end of the step it is not whole.
        self._member.held = True

    def run(self, until: int) -> None:
        """See `Loop`."""
        try:
            super().run(until)
        finally:
            self._steps_of.close()
            if self._numbers is not None:
                self._numbers.close()

    def _steps(self, collective: Collective, sums: StepSums) -> None:
        """Steps until the epoch or the round ends."""
        at, learner, before = self.position, self._steps_of, self.stats.rows
        self._gate, self._batches = collective, self._feed.epoch(at.epoch, at.step)
        own, self._begun_at, self._now_s = self.stats.own_rows, None, time.perf_counter()
        place = {"epoch": at.epoch + 1, "first_batch": at.step}
        told = learner.train_epoch(iter(self._next, _END), place)
        if self._begun_at is not None:
            self._finish(done=True)
        # What it changed after its last batch is whole as well.
        learner.torn = self._member.held = False
        if learner.tells:
            self._add_told(told, self.stats.own_rows - own, self.stats.rows - before)

    def _next(self) -> Any:
        """The next batch for the operator, or the end."""
        if self._begun_at is not None:
            self._finish(done=False)
        if self.left or self.stopped:
            return _END
        self._now("waiting for data")
        given: Any = next(self._batches, _END)
        if self._feed.steps is None:
            given = self._given_by_anybody(given)
        if given is _END:
            return _END
        rows = 0 if given is None else given.rows
        batch: Batch = self._substitute() if given is None else given
        self._spare = batch
        self._begun_at = time.perf_counter()
        self.stats.data_s += self._begun_at - self._now_s
        self._now("computing")
        return self._steps_of.begin_batch(self.position.iteration, batch, rows)

    def _given_by_anybody(self, given: Any) -> Any:
        """Where ranks may have unequal numbers of batches: None while others have some."""
        assert self._gate is not None
        self._sums.array[:] = 0.0
        self._sums.array[0] = given is not _END
        self._now("waiting for other ranks")
        self._gate.all_reduce()
        if not self._sums.active:
            return _END
        return None if given is _END else given

    def _substitute(self) -> Batch:
        """A batch for a step in which this rank has no rows: it must take the same steps."""
        if self._spare is None:
            epoch = self._feed.epoch(self.position.epoch)
            self._spare = next((b for b in epoch if b is not None), None)
        if self._spare is None:
            raise InputError(
                "rows for every rank, with an operator that takes its own steps",
                f"none for rank {self._member.rank} of {self._member.size}",
                "Use a larger batch_size, or fewer ranks with max_workers.",
            )
        return self._spare

    def _finish(self, *, done: bool) -> None:
        """End the step that the operator has taken."""
        member, at, stats, sums = self._member, self.position, self.stats, self._sums
        computed = time.perf_counter()
        member.held = True
        learner, begun, self._begun_at = self._steps_of, self._begun_at, None
        rows = learner.rows or 0
        numbers = learner.end_batch()
        at.step += 1
        at.iteration += 1
        loss = numbers.sums.get("train_loss", next(iter(numbers.sums.values()), 0.0))
        sums.set(rows, numbers.weight if numbers.sums else 0.0, loss)
        sums.vote(stop=self._observer.wants_stop, leave=member.asked_to_leave)
        stats.own_rows += rows
        if numbers.weight:
            stats.own_weight += rows
            stats.own_loss_sum += rows * loss / numbers.weight
        self._now("waiting for other ranks")
        try:
            self._agree(numbers.sums, done)
        except Stopped:
            # The step is taken, and what the others told of it is not known any more.
            self._count(learner.agreed_rows)
            raise
        self._now_s = time.perf_counter()
        stats.sync_s += self._now_s - computed + learner.sync_s
        stats.compute_s += computed - (begun or computed) - learner.sync_s
        self._count(sums.rows)
        self._average()
        self._observer.step_done(stats, sums)
        member.held = False
        self.left, self.stopped = sums.leave and not sums.stop, sums.stop
        member.check()

    def _count(self, rows: int) -> None:
        stats, sums = self.stats, self._sums
        stats.steps += 1
        stats.rows += rows
        if sums.weight:
            stats.last_loss = sums.loss
            stats.weight += rows
            stats.loss_sum += sums.loss * rows

    def _agree(self, told: Mapping[str, float], done: bool) -> None:
        """Add the numbers of this step over the ranks."""
        names = sorted(told)
        if self._numbers is None:
            everybody = self._member.share(names)
            if any(other != names for other in everybody):
                raise _other_names(everybody)
            self._names, self._totals = names, np.zeros(1 + len(names))
            self._numbers = collective_for(self._member, [self._sums.array, self._totals])
        if names != self._names:
            raise _other_names([self._names, names])
        self._totals[:] = [done, *(told[n] for n in names)]
        self._numbers.all_reduce()
        if 0 < self._totals[0] < self._member.size:
            raise InputError(
                "train_epoch to end after the same batch on every rank",
                f"{int(self._totals[0])} of {self._member.size} ranks that ended",
                "Decide it by what is the same on all of them, such as batch_idx.",
            )

    def _average(self) -> None:
        """Take the numbers of a step into the means of the epoch."""
        extra, weight = self.stats.extra, self._sums.weight
        if not weight:
            return
        total = extra.get("num_samples", 0.0) + weight
        extra["num_samples"] = total
        for name, value in zip(self._names, self._totals[1:].tolist(), strict=True):
            _move(extra, name, value / weight, weight / total)

    def _add_told(self, told: Any, own_rows: int, rows: int) -> None:
        """Take in what a train_epoch of the user's returned: means over the rows of each rank."""
        told = {} if told is None else told
        if not isinstance(told, Mapping):
            raise InputError(
                "a dict of numbers, or None, from train_epoch", type(told).__name__,
                "Return {'train_loss': ...}.",
            )  # fmt: skip
        mine = {n: float(v) for n, v in told.items() if n.removeprefix("last_") not in self._names}
        mine.pop("num_samples", None)
        parts = [p for p in self._member.share([own_rows, mine]) if p[0]]
        stats = self.stats
        for name in sorted({name for _, numbers in parts for name in numbers}):
            of = [(w, numbers[name]) for w, numbers in parts if name in numbers]
            mean = sum(w * value for w, value in of) / sum(w for w, _ in of)
            if name == "train_loss":
                stats.weight += rows
                stats.loss_sum += mean * rows
                stats.last_loss = mean
            elif name.startswith("last_"):
                stats.extra[name] = mean
            else:
                _move(stats.extra, name, mean, rows / max(1, stats.rows))


def _move(means: dict[str, float], name: str, value: float, share: float) -> None:
    """Take a value into a running mean."""
    old = means.get(name, 0.0)
    means[name] = old + (value - old) * share
    means[f"last_{name}"] = value


def _other_names(found: list[list[str]]) -> InputError:
    return InputError(
        "the same names of numbers from train_batch on every rank and in every step",
        " and ".join(sorted({str(names) for names in found})),
        "Return a number for each name, nan where there is none.",
    )
