"""The loop of one rank: batches in, gradients out, agreement, update. No framework in here.

A round may end between any two steps, and the loop can begin at any of them. What a rank holds
after a step is whole; while it changes, nobody interrupts the rank (`Member.held`).
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import numpy as np

from zoo.cluster.ranks.member import Member
from zoo.errors import InputError
from zoo.orca.learn.agree.collective import Collective, collective_for
from zoo.orca.learn.framework import Feed, Learner
from zoo.orca.learn.steps import EpochStats, Position, StepSums

__all__ = ["Loop", "Observer"]


class Observer:
    """Sees what happens in a rank; the base sees nothing.

    Attributes:
        wants_stop: The fit should end after this step.
        may_stop: It may come to want that, so ranks ask each other after every epoch.
    """

    wants_stop: bool = False
    may_stop: bool = False

    def epoch_begins(self, stats: EpochStats) -> None:
        """An epoch begins, or goes on in another round."""

    def step_done(self, stats: EpochStats, sums: StepSums) -> None:
        """A step is done."""

    def epoch_ends(self, stats: EpochStats) -> None:
        """An epoch is done, validation included; the position is still in it."""

    def epoch_done(self, stats: EpochStats) -> None:
        """The position is at the beginning of the next epoch."""


class Loop:
    """The steps of a rank in one round.

    Args:
        member: This rank.
        learner: The model.
        feed: Its batches.
        position: Where training stands; moves on with every step.
        observer: Sees what happens.
        begun: What there is of the running epoch, when it was begun in another round.

    Attributes:
        left: The ranks agreed to end the round before the work was done.
        stopped: The ranks agreed to end the fit.
    """

    def __init__(
        self,
        member: Member,
        learner: Learner,
        feed: Feed,
        position: Position,
        *,
        observer: Observer,
        begun: EpochStats | None = None,
    ) -> None:
        self._member, self._learner, self._feed = member, learner, feed
        self.position, self._observer = position, observer
        self.stats = begun if begun is not None and position.step else EpochStats(0)
        self.left = self.stopped = False
        self._sums = StepSums()
        self._collective: Collective | None = None
        self._buffers: list[np.ndarray] = []
        self._doing, self._since = "starting", time.perf_counter()

    @property
    def torn(self) -> bool:
        """Whether a step was cut off after weights had changed, so nobody may go on from here."""
        return False

    def run(self, until: int) -> None:
        """Train until so many epochs are done, or the round ends."""
        try:
            while self.position.epoch < until and not self.left and not self.stopped:
                self._epoch()
        finally:
            if self._collective is not None:
                self._collective.close()

    def describe(self) -> dict[str, Any]:
        """What this rank is doing, for its signs of life."""
        at = self.position
        return {
            "doing": self._doing,
            "for_s": round(time.perf_counter() - self._since, 1),
            "epoch": at.epoch + 1,
            "step": at.step,
            "iteration": at.iteration,
        }

    def begun(self) -> dict[str, Any]:
        """What there is of the running epoch, as plain values."""
        return asdict(self.stats)

    def _connect(self) -> Collective:
        """What adds over the ranks; made anew when the learner has other arrays than before."""
        buffers = self._learner.buffers()
        same = len(buffers) == len(self._buffers)
        same = same and all(a is b for a, b in zip(buffers, self._buffers, strict=True))
        if self._collective is None or not same:
            if self._collective is not None:
                self._collective.close()
            self._collective = collective_for(self._member, [self._sums.array, *buffers])
            self._buffers = buffers
        return self._collective

    def _epoch(self) -> None:
        at, learner = self.position, self._learner
        if not at.step:
            self.stats = EpochStats(at.epoch + 1)
        learner.begin_epoch(at.epoch)
        self._observer.epoch_begins(self.stats)
        begin = time.perf_counter()
        self._steps(self._connect(), self._sums)
        self.stats.seconds += time.perf_counter() - begin
        if self.left or self.stopped:
            return
        if not self.stats.steps:
            raise InputError(
                "batches to train on",
                f"none in epoch {at.epoch + 1}",
                "Let the data creator return a loader that can be gone through once an epoch.",
            )
        self._end_epoch()

    def _steps(self, collective: Collective, sums: StepSums) -> None:
        """Steps until the epoch or the round ends."""
        stats, at, learner, member = self.stats, self.position, self._learner, self._member
        clock, observer = time.perf_counter, self._observer
        batches, ended = self._feed.epoch(at.epoch, at.step), object()
        now = clock()
        while True:
            self._doing, self._since = "waiting for data", now
            batch = next(batches, ended)
            fetched = clock()
            stats.data_s += fetched - now
            self._doing, self._since = "computing", fetched
            if batch is ended:
                if self._feed.steps is not None:
                    return
                learner.backward(None, sums)
                # After it: no batch any more is not the same as none in this step.
                sums.clear()
            else:
                learner.begin_step(at.iteration)
                learner.backward(batch, sums)
                _, own_rows, weight, loss = sums.array[:4].tolist()
            sums.vote(stop=observer.wants_stop, leave=member.asked_to_leave)
            computed = clock()
            self._doing, self._since = "waiting for other ranks", computed
            collective.all_reduce()
            agreed = clock()
            if not sums.active or self._is_over(sums):
                return
            self._doing, self._since = "updating or in a callback", agreed
            # From here to the end of the step it is not whole.
            member.held = True
            if batch is not ended:
                stats.own_rows += int(own_rows)
                stats.own_weight += weight
                stats.own_loss_sum += loss
            if sums.rows:
                learner.update(sums)
                stats.took(sums)
            at.step += 1
            at.iteration += 1
            now = clock()
            stats.sync_s += agreed - computed
            stats.compute_s += computed - fetched + now - agreed
            observer.step_done(stats, sums)
            seen = clock()
            stats.observe_s += seen - now
            now = seen
            member.held = False
            self.left = sums.leave
            self.stopped = member.size == 1 and observer.wants_stop
            if self.left or self.stopped:
                return
            member.check()

    def _is_over(self, sums: StepSums) -> bool:
        """Whether a stop was asked for after the step before: then this one is not taken."""
        if sums.stop:
            self._learner.restore()
            self.stopped = True
        return sums.stop

    def _end_epoch(self) -> None:
        stats, at, learner = self.stats, self.position, self._learner
        self._now("agreeing at the end of an epoch")
        self._settle()
        self._now("validating")
        begin = time.perf_counter()
        scores = learner.score()
        stats.validation = {} if scores is None else learner.scored(self._member.share(scores))
        stats.validate_s += time.perf_counter() - begin
        self._now("ending an epoch or in a callback")
        self._member.held = True
        begin = time.perf_counter()
        learner.end_epoch(stats)
        self._observer.epoch_ends(stats)
        stats.observed(time.perf_counter() - begin)
        at.epoch, at.step = at.epoch + 1, 0
        self._observer.epoch_done(stats)
        self._member.held = False
        self._member.check()
        if self._observer.may_stop:
            self.stopped = any(self._member.share(self._observer.wants_stop))

    def _settle(self) -> None:
        arrays = self._learner.remainder(self.stats.own_rows)
        if not arrays:
            return
        collective = collective_for(self._member, arrays)
        try:
            collective.all_reduce()
        finally:
            collective.close()
        # What is half taken is not whole.
        self._member.held = True
        self._learner.settle()
        self._member.held = False
        self._member.check()

    def _now(self, doing: str) -> None:
        self._doing, self._since = doing, time.perf_counter()
