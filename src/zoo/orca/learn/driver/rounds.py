"""A fit as a series of rounds, seen from the driver: the state goes from one to the next.

A round ends early when a rank is lost or when more could take part. The next one begins where the
newest state stands that anybody has: that of a survivor, else the last one that the driver got.
Shards that are gone are computed again. Errors of the user's own code end the fit at once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from zoo.cluster.ranks.carried import pickled
from zoo.cluster.ranks.launcher import Launcher
from zoo.cluster.ranks.meeting import Meeting
from zoo.cluster.ranks.member import Member
from zoo.cluster.ranks.messages import Kind, Message, Peer
from zoo.cluster.ranks.round import Crew, Ending, Round, RoundHooks
from zoo.cluster.ranks.timing import Timing
from zoo.errors import RankLostError, ShardsLostError
from zoo.orca.data.tensors.plan import TensorPlan
from zoo.orca.learn.driver.interrupt import Interrupt
from zoo.orca.learn.driver.policies import Budget, Growth, Stalls
from zoo.orca.learn.driver.progress import Progress
from zoo.orca.learn.driver.sources import Opened, UnequalHostsError
from zoo.orca.learn.order import Order
from zoo.orca.learn.rank.body import train_rank
from zoo.orca.learn.recovery import Recovery
from zoo.orca.learn.report import End, FitReport, RoundFacts, rank_times
from zoo.orca.learn.steps import EpochStats

__all__ = ["Keeper", "Rounds", "Start", "Trained", "packed"]

_log = logging.getLogger(__name__)


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
        interrupted: The user ended it before it was done.
    """

    state: bytes
    epochs: tuple[tuple[EpochStats, ...], ...]
    report: FitReport
    plan: TensorPlan | None
    interrupted: bool = False


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
        order: For all rounds; data and state are filled in.
        start: Where the fit begins.
        recovery: What is put up with.
        keeper: Takes snapshots and numbers.
        begun: When the fit began, by the performance counter.
        timing: How long a round waits for what.
        state: The newest one that the driver has.
        kept: The one that a callback wants the fit to end with, and after which epoch it was.
        rounds: What became of each round.
        epochs: By number, what the ranks said of each epoch.
        interrupt: Whether the user wants the fit to end.
    """

    launcher: Launcher
    crew: Crew
    order: Order
    start: Start
    recovery: Recovery
    keeper: Keeper
    begun: float
    timing: Timing = field(default_factory=Timing)
    state: bytes = b""
    kept: tuple[bytes, int] | None = None
    rounds: list[RoundFacts] = field(default_factory=list)
    epochs: dict[int, dict[int, EpochStats]] = field(default_factory=dict)
    interrupt: Interrupt = field(default_factory=Interrupt)
    _ready: dict[int, float] = field(default_factory=dict)
    _hosts: dict[int, str] = field(default_factory=dict)
    _logged: float = 0
    _kept_at: float = field(default_factory=time.monotonic)

    def run(self, opened: Opened, facts: Mapping[str, Any], progress: Progress) -> Trained:
        """Train to the end.

        Args:
            opened: The data.
            facts: Of the data, kept with every state.
            progress: Shows how far it is.
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
        self._progress = progress
        progress.expect(opened.ingested[0].rows if opened.ingested else None)
        with self.interrupt:
            while self._one(opened) is not End.DONE and not self.interrupt.asked:
                self._growth.ended()
                self.interrupt.armed = False
        return self._trained(opened, ready)

    def _one(self, opened: Opened) -> End:
        """One round; why it ended."""
        self._progress.phase("starting workers")
        hooks = _Hooks(self, opened, self._progress)
        ending, why = Ending(), None
        try:
            ending = self._round(opened, hooks).run()
        except UnequalHostsError:
            raise
        except ShardsLostError as exc:
            # They go with their host, whose rank was counted, or with an executor that had nothing
            # to do. Only when they are lost again and again something is wrong.
            if self.rounds and self.rounds[-1].ended is End.SHARDS_LOST:
                self._budget.spend(exc)
            why = End.SHARDS_LOST
            opened.restore(exc.shards)
        except RankLostError as exc:
            # Other errors of ranks are the user's own: they would only come again.
            why = End.NOT_BEGUN
            self._budget.spend(exc)
        why = why or self._end(ending)
        for result in ending.results:
            self._ready[result.rank] = result.body["ready_s"]
        self._hosts |= {peer.rank: peer.hostname for peer in ending.world}
        self.rounds.append(
            RoundFacts(len(ending.world), hooks.start_s, time.perf_counter() - hooks.begun, why)
        )
        return why

    def _round(self, opened: Opened, hooks: _Hooks) -> Round:
        body = packed(train_rank, self.full_order(opened))
        return Round(body, self.launcher, self.crew, hooks, keeps_state=True, timing=self.timing)

    def _end(self, ending: Ending) -> End:
        """What an ending means, its state taken."""
        if ending.loss is not None:
            if ending.kept is not None:
                self.state = ending.kept.payload
            self._budget.spend(ending.loss)
            return End.RANK_LOST
        return End.CHANGED if ending.left else End.DONE

    def take(self, message: Message) -> None:
        """A state came from a rank: to go back to, to write down, or as the last word."""
        why = message.body["why"]
        if why != "file":
            self.state = message.payload
        if why == "kept":
            self.kept = message.payload, message.body["epoch"]
        if why == "snapshot":
            self._kept_at = time.monotonic()
        if why in ("file", "snapshot"):
            self.keeper.keep(message)

    def log(self, rows: Sequence[Sequence[float]]) -> None:
        """A rank tells the numbers of steps; several survivors of a loss may tell the same."""
        new = [row for row in rows if row[0] > self._logged]
        self._logged = new[-1][0] if new else self._logged
        self.keeper.log(new)

    def log_epoch(self, rank: int, stats: EpochStats, iteration: int) -> None:
        """A rank is done with an epoch."""
        if rank == 0:
            self.keeper.log_epoch(stats, iteration, time.time())
            self._progress.epoch(stats)
        self.epochs.setdefault(stats.epoch, {})[rank] = stats

    def full_order(self, opened: Opened) -> Order:
        """The order of the next round."""
        since_s = time.monotonic() - self._kept_at
        return replace(
            self.order,
            source=opened.source,
            validation=opened.validation,
            state=self.state,
            facts=self._facts,
            snapshots=replace(self.order.snapshots, since_s=since_s),
        )

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
            ranks=rank_times(mine, self._ready, self._hosts),
            rounds=tuple(self.rounds),
            validate_s=validate_s,
            shards=len(opened.shards),
            validation_rows=sum(i.rows for i in opened.ingested[1:]),
        )
        plan = opened.ingested[0].plan if opened.ingested else None
        interrupted = self.interrupt.asked
        state = self.state if interrupted else self._result()
        return Trained(state, epochs, report, plan, interrupted)

    def _result(self) -> bytes:
        """The state that the fit ends with."""
        if self.kept is None:
            saved = self.start.extras.get("callbacks", {}).values()
            if any(state.get("restores_epoch") for state in saved):
                _log.warning(
                    "the best epoch came before this fit was resumed, and its state is gone: the "
                    "fit ends with the last one. KeepBest(path) keeps the best in a file."
                )
            return self.state
        state, epoch = self.kept
        for stats in self.epochs.get(epoch, {}).values():
            stats.extra["restored"] = 1.0
        return state


class _Hooks(RoundHooks):
    """What the driver of a fit does while a round runs."""

    def __init__(self, rounds: Rounds, opened: Opened, progress: Progress) -> None:
        self._rounds, self._opened, self._progress = rounds, opened, progress
        self._stalls = Stalls(rounds.recovery.stall_s)
        self.begun = time.perf_counter()
        self._first: float | None = None

    @property
    def start_s(self) -> float:
        """Until the first word from a rank that trains."""
        return (self._first or time.perf_counter()) - self.begun

    def on_world(self, peers: Sequence[Peer]) -> None:
        """The shards must be where the ranks are."""
        self._opened.require_placed(peers)
        self._rounds.growth.begins(len(peers))
        self._rounds.interrupt.armed = True

    def on_report(self, message: Message) -> None:
        """Take in what a rank says of its work."""
        body = message.body
        match message.kind:
            case Kind.STATE:
                self._rounds.take(message)
            case Kind.MOVED:
                self._opened.moved(body["part"], body["places"])
            case Kind.COPIED:
                self._opened.copied(body["part"], body["places"])
            case Kind.NUMBERS:
                self._rounds.log(body["rows"])
            case Kind.EPOCH:
                self._rounds.log_epoch(message.rank, EpochStats(**body["stats"]), body["iteration"])
            case _:
                self._first = self._first or time.perf_counter()
                self._rounds.growth.training()
                self._opened.fixed = True
                self._progress.show(body)

    def on_pulse(self, meeting: Meeting) -> None:
        """Name ranks that hang, and tell whether they validate."""
        first = meeting.pulses.get(0)
        if first is not None and first.facts.get("doing") == "validating":
            self._progress.validating()
        self._stalls.look(meeting.world, meeting.pulses)

    def wants_end(self) -> bool:
        """Whether the user does."""
        return self._rounds.interrupt.asked

    def wants_change(self, ranks: int, could: int) -> bool:
        """Whether a round of more ranks is worth it."""
        return self._rounds.growth.wants_change(ranks, could)
