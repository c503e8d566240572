"""What a rank does beside its steps: callbacks, snapshots, and words to the driver."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

from zoo.cluster.ranks.member import Member
from zoo.cluster.ranks.messages import Kind
from zoo.orca.learn.callback import CallbackList
from zoo.orca.learn.framework import Built, Framework
from zoo.orca.learn.order import Order
from zoo.orca.learn.rank.loop import Loop, Observer
from zoo.orca.learn.steps import EpochStats, Position, StepSums, validation_name
from zoo.orca.learn.trigger import Moment

__all__ = ["RankObserver"]

_REPORT_S = 0.3
# A copy for the driver may take this part of the time at most.
_HELD_SHARE = 0.01
# Rows of single steps that are kept for the driver; a recovered rank sends them again.
_RECENT = 50_000


class RankRun:
    """The training as callbacks see it; see `zoo.orca.learn.callback.Run`."""

    def __init__(self, observer: RankObserver, loop: Loop) -> None:
        self._observer, self._loop = observer, loop
        self.model: Any = observer.built.model
        self.optimizer: Any = observer.built.optimizer
        self.rank, self.size = observer.member.rank, observer.member.size
        self.epoch = self.step = self.iteration = 0
        self.steps = observer.steps
        self.mean_loss = float("nan")
        self.logs: dict[str, float] = {}

    def now(self, logs: dict[str, float]) -> RankRun:
        """Where the training is at this moment."""
        at, stats = self._loop.position, self._loop.stats
        self.epoch, self.iteration = stats.epoch or at.epoch + 1, at.iteration
        self.step = at.step or stats.steps
        self.mean_loss = stats.loss
        self.logs = logs
        return self

    def stop(self, why: str) -> None:
        """End the fit after this step."""
        self._observer.wants_stop, self._observer.why = True, why

    def save(self, path: str) -> None:
        """Let the driver write the state."""
        self._observer.send("file", path=path)

    def keep(self) -> None:
        """Let the fit end with this state."""
        self._observer.send("kept")


class RankObserver(Observer):
    """Everything of a rank that is not its steps.

    Args:
        member: This rank.
        framework: Writes the state.
        built: What it trains.
        order: Of this round.
        extras: What the state brought: history, callbacks.
        steps: Steps of an epoch, or None.

    Attributes:
        steps: As given.
        why: Why a callback ended the fit.
    """

    def __init__(
        self,
        member: Member,
        framework: Framework,
        built: Built,
        order: Order,
        *,
        extras: Mapping[str, Any],
        steps: int | None,
    ) -> None:
        callbacks, snapshots = order.callbacks, order.snapshots
        self.member, self.built, self._framework = member, built, framework
        self._callbacks = CallbackList(list(callbacks))
        if callbacks and extras.get("callbacks"):
            self._callbacks.load_state_dict(extras["callbacks"])
        self.may_stop = bool(callbacks)
        self.why = ""
        self._snapshots, self._fit = snapshots, dict(order.facts)
        self._history: list[dict[str, Any]] = list(extras.get("history", []))
        # The driver's: what its frames go through before they are rows.
        self._stages = {name: extras[name] for name in ("preprocess",) if name in extras}
        self.steps, self._log_steps = steps, order.log_steps
        self._rows: list[list[float]] = []
        self._told = self._held = self._kept = time.monotonic()
        self._told -= _REPORT_S
        self._kept -= snapshots.since_s
        self._score: float | None = None
        self._epoch_over = False
        self._pool: ThreadPoolExecutor | None = None
        self._sending: Future[None] | None = None
        self._copy = io.BytesIO()
        self._sent_s = 0.0

    def watch(self, loop: Loop) -> None:
        """Take the loop, which is made after this."""
        self._loop = loop
        self._run = RankRun(self, loop)

    def begin(self) -> None:
        """The round begins."""
        self._callbacks.on_train_begin(self._run.now({}))

    def end(self) -> None:
        """The round ends in good order: rank 0 gives the state to the driver."""
        loop = self._loop
        if not loop.left:
            self.member.held = True
            logs = _logs(loop.stats, self.built.learning_rate)
            self._callbacks.on_train_end(self._run.now(logs))
            self.member.held = False
        if loop.stopped and loop.stats.steps and loop.position.step:
            # Stopped inside an epoch: what there is of it is a result too.
            self._tell_epoch(loop.stats)
        if self.member.rank == 0:
            self._tell_rows()
            self._take_copy()
            # The newest state that there is: nobody cuts it off on its way.
            self.member.held = True
            with self._copy.getbuffer() as payload:
                self.member.hand_over(payload, {"why": "last", "last": True, **self._where()})
            self.member.held = False
        if self._pool is not None:
            self._pool.shutdown()

    def state(self) -> bytes:
        """The whole state, now."""
        file = io.BytesIO()
        self._framework.write(file, self.built, self._position, self._extras())
        return file.getvalue()

    def epoch_begins(self, stats: EpochStats) -> None:
        """See `Observer`."""
        if not self._loop.position.step:
            self._callbacks.on_epoch_begin(self._run.now({}))

    def step_done(self, stats: EpochStats, sums: StepSums) -> None:
        """See `Observer`."""
        if self.may_stop:
            logs = {"loss": stats.last_loss, "lr": self.built.learning_rate}
            self._callbacks.on_step_end(self._run.now(logs))
        if self._log_steps:
            at = self._loop.position.iteration
            row = [at, stats.last_loss, self.built.learning_rate, sums.rows, time.time()]
            self._rows.append(row)
            if len(self._rows) > _RECENT:
                del self._rows[: _RECENT // 2]
        if self.member.rank:
            return
        now = time.monotonic()
        if now - self._told > _REPORT_S:
            self._told = now
            self._tell_progress(stats)
        # After its last step an epoch has validation to come, and then one question is enough.
        inside = self.steps is None or self._loop.position.step < self.steps
        if inside and (why := self._due(stats, now, epoch_ended=False)):
            self.send(why)

    def epoch_ends(self, stats: EpochStats) -> None:
        """See `Observer`."""
        self._score = next(iter(stats.scores.values()), self._score)
        if not self.may_stop:
            return
        logs = _logs(stats, self.built.learning_rate)
        before = set(logs)
        self._epoch_over = True
        self._callbacks.on_epoch_end(self._run.now(logs))
        self._epoch_over = False
        stats.extra |= {name: float(logs[name]) for name in logs.keys() - before}

    def epoch_done(self, stats: EpochStats) -> None:
        """See `Observer`."""
        why = ""
        if self.member.rank == 0:
            self._remember(stats)
            why = self._due(stats, time.monotonic(), epoch_ended=True)
            if why:
                stats.observed(self._take_copy())
        # Told before the state is sent: a driver with the state of an epoch has its numbers too.
        self._tell_epoch(stats)
        if self.member.rank == 0:
            self._tell_progress(stats)
        if why:
            self._send_copy({"why": why, **self._where()})

    def send(self, why: str, **facts: Any) -> None:
        """Let the driver have the state; it is copied now and sent by a thread.

        Args:
            why: `snapshot`, `held`, `file` or `kept`.
            facts: What the driver needs for it.
        """
        if self.member.rank == 0:
            self._take_copy()
            self._send_copy({"why": why, **self._where(), **facts})

    def _take_copy(self) -> float:
        """Copy the state, once the copy before is sent; how long that took, in seconds."""
        begin = time.perf_counter()
        self._finish_sending()
        self._framework.write(self._copy, self.built, self._position, self._extras())
        took = time.perf_counter() - begin
        self._loop.stats.snapshot_s += took
        return took

    def _send_copy(self, facts: dict[str, Any]) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "zoo-snapshot")
        begin = time.perf_counter()

        def work() -> None:
            with self._copy.getbuffer() as payload:
                self.member.hand_over(payload, facts)
            self._sent_s = time.perf_counter() - begin

        self._sending = self._pool.submit(work)

    def _due(self, stats: EpochStats, now: float, *, epoch_ended: bool) -> str:
        """Why the driver should have the state now; empty if it need not."""
        order, at = self._snapshots, self._loop.position
        if order.trigger is not None:
            since, loss = now - self._kept, stats.last_loss
            moment = Moment(at.iteration, at.epoch, epoch_ended, loss, self._score, since)
            if order.trigger.fires(moment):
                self._held = self._kept = now
                return "snapshot"
        if order.hold_s is None:
            return ""
        if now - self._held <= max(order.hold_s, self._sent_s / _HELD_SHARE):
            return ""
        self._held = now
        return "held" if self._sending is None or self._sending.done() else ""

    def _finish_sending(self) -> None:
        if self._sending is not None:
            self._sending.result()
            self._sending = None

    @property
    def _position(self) -> Position:
        """Where a state of this moment goes on: one of the end of an epoch, in the next."""
        at = self._loop.position
        return Position(at.epoch + 1, 0, at.iteration) if self._epoch_over else at

    def _where(self) -> dict[str, int]:
        return asdict(self._position)

    def _extras(self) -> dict[str, Any]:
        """What has to go on besides the model."""
        loop = self._loop
        begun = loop.begun() if self._position.step else {}
        callbacks = self._callbacks.state_dict() if self.may_stop else {}
        return {
            "begun": begun, "callbacks": callbacks, "history": self._history, "fit": self._fit,
            **self._stages,
        }  # fmt: skip

    def _tell_progress(self, stats: EpochStats) -> None:
        self._tell_rows()
        self.member.report(
            {
                "epoch": stats.epoch,
                "step": stats.steps,
                "steps": self.steps,
                "rows": stats.rows,
                "loss": stats.loss,
            }
        )

    def tell_steps(self) -> None:
        """Give the driver numbers of steps that a lost rank may have kept to itself."""
        self.member.held = True
        self._tell_rows()

    def _tell_rows(self) -> None:
        if self._rows:
            self.member.report({"rows": self._rows}, Kind.NUMBERS)
            self._rows = []

    def _tell_epoch(self, stats: EpochStats) -> None:
        # Numbers of one kind arrive in order of iteration.
        if self.member.rank == 0:
            self._tell_rows()
        facts = self._remember(stats)
        at = self._loop.position.iteration
        self.member.report({"stats": facts, "iteration": at}, Kind.EPOCH)

    def _remember(self, stats: EpochStats) -> dict[str, Any]:
        stats.extra.setdefault("lr", self.built.learning_rate)
        facts = asdict(stats)
        self._history = [h for h in self._history if h["epoch"] != stats.epoch] + [facts]
        return facts


def _logs(stats: EpochStats, rate: float) -> dict[str, float]:
    """The numbers of an epoch, by the names that `fit` gives back."""
    logs = {"train_loss": stats.loss, "lr": rate, **stats.extra}
    for name, value in stats.scores.items():
        logs[validation_name(name)] = value
    return logs
