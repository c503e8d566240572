"""A fit as a series of rounds, seen from the driver: the state goes from one to the next.

A round ends early when a rank is lost or when more could take part. The next one begins where the
newest state stands that anybody has: that of a survivor, else the last one that the driver got.
Shards that are gone are computed again. Errors of the user's own code end the fit at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from zoo.cluster.launch import Launcher, pickled
from zoo.cluster.meeting import Meeting, Member, Message, Peer
from zoo.cluster.round import Crew, Ending, Round
from zoo.errors import RankError, ShardsLostError
from zoo.orca.data.plan import TensorPlan
from zoo.orca.learn.loop import EpochStats
from zoo.orca.learn.progress import TrainingBar
from zoo.orca.learn.pytorch.sources import Opened, UnequalHostsError
from zoo.orca.learn.pytorch.worker import Order, train_rank
from zoo.orca.learn.recovery import Budget, Growth, Recovery, Stalls
from zoo.orca.learn.report import FitReport, RoundFacts, rank_times

__all__ = ["Keeper", "Rounds", "Start", "Trained", "packed"]


_NO_SHARDS = "shards were lost"


class Keeper(Protocol):
    """Takes what a fit hands to the driver while it runs."""

    def keep(self, message: Message) -> None:
        """A state that is to be written somewhere; must not block for long."""

    def log(self, rows: Sequence[Sequence[float]]) -> None:
        """Numbers of steps: iteration, loss, learning rate, rows, wall clock."""

    def log_epoch(self, stats: EpochStats, iteration: int, wall: float) -> None:
        """An epoch is done, at this iteration and wall clock."""


@dataclass(frozen=True)
class Start:
    """Where a fit begins.

    Attributes:
        state: From `save_state`.
        first_epoch: Epochs that were done before it.
        until: Epochs done when it is over.
        extras: Of the state: not empty when an earlier fit is gone on with.
    """

    state: bytes
    first_epoch: int
    until: int
    extras: Mapping[str, Any]


@dataclass(frozen=True)
class Trained:
    """What a fit gives back.

    Attributes:
        state: Weights, optimizer and position.
        epochs: For every epoch, its ranks.
        report: Where the time went.
        plan: The layout of the data, shapes known; None for loaders.
    """

    state: bytes
    epochs: tuple[tuple[EpochStats, ...], ...]
    report: FitReport
    plan: TensorPlan | None


def packed(body: Callable[[Member, Order], tuple[bytes, dict[str, Any]]], order: Order) -> bytes:
    """A body with its order, for the way to the ranks."""

    def task(member: Member) -> tuple[bytes, dict[str, Any]]:
        return body(member, order)

    return pickled(task, "a model, optimizer, loss, metrics, callbacks and data creator")


@dataclass
class Rounds:
    """The rounds of one fit.

    Attributes:
        launcher: Starts the ranks.
        crew: How many.
        order: The fields of `Order` besides data and state.
        start: Where the fit begins.
        recovery: What is put up with.
        keeper: Takes snapshots and numbers.
        begun: When the fit began, by the performance counter.
        state: The newest one that the driver has.
        rounds: What became of each round.
        epochs: By number, what the ranks said of each epoch.
    """

    launcher: Launcher
    crew: Crew
    order: Mapping[str, Any]
    start: Start
    recovery: Recovery
    keeper: Keeper
    begun: float
    state: bytes = b""
    rounds: list[RoundFacts] = field(default_factory=list)
    epochs: dict[int, dict[int, EpochStats]] = field(default_factory=dict)
    _ready: dict[int, float] = field(default_factory=dict)
    _logged: float = 0
    _kept_at: float = field(default_factory=time.monotonic)

    def run(self, opened: Opened, facts: Mapping[str, Any], show_progress: bool | None) -> Trained:
        """Train to the end.

        Args:
            opened: The data.
            facts: Of the data, kept with every state.
            show_progress: None shows it where a person looks.
        """
        ready, start = time.perf_counter(), self.start
        for known in start.extras.get("history", ()):
            stats = EpochStats(**known)
            if stats.epoch > start.first_epoch:
                self.epochs[stats.epoch] = {0: stats}
        opened.fixed = opened.fixed or bool(start.extras.get("begun"))
        self.state = self.state or start.state
        self._facts = {**facts, "first_epoch": start.first_epoch}
        self._budget, self._growth = Budget(self.recovery), Growth(self.recovery.round_share)
        rows = opened.ingested[0].rows if opened.ingested else None
        epochs = range(start.first_epoch, start.until)
        with TrainingBar(epochs, rows, show=show_progress) as bar:
            while self._round(opened, bar) != "done":
                self._growth.ended()
        return self._trained(opened, ready)

    def _round(self, opened: Opened, bar: TrainingBar) -> str:
        """One round; why it ended."""
        watch = _Watch(self, opened, bar)
        ending, why = Ending(), ""
        try:
            ending = watch.run()
        except UnequalHostsError:
            raise
        except ShardsLostError as exc:
            # They go with their host, whose rank was counted, or with an executor that had nothing
            # to do. Only when they are lost again and again something is wrong.
            if self.rounds and self.rounds[-1].ended == _NO_SHARDS:
                self._budget.spend(exc)
            why = _NO_SHARDS
            opened.restore(exc.shards)
        except RankError as exc:
            why = "a task was lost before it began"
            self._budget.spend(exc)
        why = why or self._why(ending)
        for result in ending.results:
            self._ready[result.rank] = result.body["ready_s"]
        self.rounds.append(
            RoundFacts(len(ending.world), watch.start_s, time.perf_counter() - watch.begun, why)
        )
        return why

    def _why(self, ending: Ending) -> str:
        if ending.loss is not None:
            if ending.kept is not None:
                self.state = ending.kept.payload
            self._budget.spend(ending.loss)
            return "a rank was lost"
        return "ranks changed" if ending.left else "done"

    def take(self, message: Message) -> None:
        """A state came from a rank: to go back to, to write down, or as the last word."""
        why = message.body["why"]
        if why != "file":
            self.state = message.payload
        if why == "snapshot":
            self._kept_at = time.monotonic()
        if why in ("file", "snapshot"):
            self.keeper.keep(message)

    def note(self, message: Message) -> None:
        """A rank said something of its steps or epochs."""
        body = message.body
        if "scalars" in body:
            # Several survivors of a loss may tell the same steps.
            rows = [row for row in body["scalars"] if row[0] > self._logged]
            self._logged = rows[-1][0] if rows else self._logged
            self.keeper.log(rows)
            return
        stats = EpochStats(**body["epoch_stats"])
        if message.rank == 0:
            self.keeper.log_epoch(stats, body["iteration"], time.time())
        self.epochs.setdefault(stats.epoch, {})[message.rank] = stats

    def full_order(self, opened: Opened) -> Order:
        """The order of the next round."""
        since_s = time.monotonic() - self._kept_at
        mine = {
            "source": opened.source,
            "validation": opened.validation,
            "state": self.state,
            "facts": self._facts,
            "snapshots": replace(self.order["snapshots"], since_s=since_s),
        }
        return Order(**{**self.order, **mine})

    @property
    def growth(self) -> Growth:
        """When to take in more ranks."""
        return self._growth

    def _trained(self, opened: Opened, ready: float) -> Trained:
        ended = time.perf_counter()
        epochs = tuple(
            tuple(ranks[r] for r in sorted(ranks)) for _, ranks in sorted(self.epochs.items())
        )
        # An earlier fit that is gone on with is a result, but not this fit's time.
        before = {int(h["epoch"]) for h in self.start.extras.get("history", ())}
        mine = [ranks for ranks in epochs if ranks[0].epoch not in before]
        begun_s = float((self.start.extras.get("begun") or {}).get("seconds", 0.0))
        train_s = max(0.0, sum(e[0].seconds for e in mine) - begun_s)
        validate_s = sum(e[0].validate_s for e in mine)
        report = FitReport(
            seconds=ended - self.begun,
            ingest_s=ready - self.begun,
            start_s=max(0.0, ended - ready - train_s - validate_s),
            train_s=train_s,
            rows=epochs[0][0].rows if epochs else 0,
            epochs=len(mine),
            bytes_ingested=sum(i.bytes for i in opened.ingested),
            ranks=rank_times(mine, self._ready),
            rounds=tuple(self.rounds),
            validate_s=validate_s,
        )
        plan = opened.ingested[0].plan if opened.ingested else None
        return Trained(self.state, epochs, report, plan)


class _Watch:
    """What the driver does while a round runs."""

    def __init__(self, rounds: Rounds, opened: Opened, bar: TrainingBar) -> None:
        self._rounds, self._opened, self._bar = rounds, opened, bar
        self._stalls = Stalls(rounds.recovery.stall_s)
        self.begun = time.perf_counter()
        self._first: float | None = None

    @property
    def start_s(self) -> float:
        """Until the first word from a rank that trains."""
        return (self._first or time.perf_counter()) - self.begun

    def run(self) -> Ending:
        """Run the round."""
        rounds = self._rounds
        return Round(
            packed(train_rank, rounds.full_order(self._opened)), rounds.launcher, rounds.crew,
            on_world=self._on_world, on_message=self._on_message, keeps_state=True,
            wants_change=rounds.growth.wants_change, on_pulse=self._on_pulse,
        ).run()  # fmt: skip

    def _on_world(self, peers: Sequence[Peer]) -> None:
        self._opened.require_placed(peers)
        self._rounds.growth.begins(len(peers))

    def _on_message(self, message: Message) -> None:
        if message.kind == "state":
            self._rounds.take(message)
        elif "moved" in message.body:
            self._opened.moved(message.body["part"], message.body["moved"])
        elif "step" in message.body:
            self._first = self._first or time.perf_counter()
            self._rounds.growth.training()
            self._opened.fixed = True
            self._bar.show(message.body)
        else:
            self._rounds.note(message)

    def _on_pulse(self, meeting: Meeting) -> None:
        self._stalls.look(meeting.world, meeting.pulses)
