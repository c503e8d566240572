"""The driver's side of one round: tasks become ranks, work, and end for one of three reasons.

A round ends when all ranks have done their work; when all of them agreed to leave because more
ranks could take part; or when a rank was lost, and then whoever survived hands over what it holds.
Errors of the body itself are raised, the first one on top.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from zoo.cluster.carried import raise_carried
from zoo.cluster.launch import Job, Launcher
from zoo.cluster.meeting import LostPeerError, Meeting, Message, Peer
from zoo.errors import RankError, SlotsError

__all__ = ["Crew", "Ending", "Round", "launch"]

_log = logging.getLogger(__name__)

# Who waits for slots should know it soon, and not read it all the time.
_SAY_AFTER_S, _SAY_EVERY_S = 3.0, 10.0
# With enough ranks to begin, how long to wait for the others.
_PATIENCE_S = 5.0
_UNWIND_S, _EXIT_S, _LAST_S = 3.0, 10.0, 0.5
# Between rounds tasks end by themselves, a lost one too that Spark starts again where a survivor
# has just ended. To cancel one would end its Python process, which the next round can use.
_AGAIN_S = 3.0
# A new executor's first task takes a while to get here. When none comes, there is none left for it.
_ARRIVE_S = 10.0
# How long to wait for a message, and how often at least to look for what nobody says.
_TICK_S, _LOOK_S = 0.2, 1.0
# A rank without a sign of life is stopped, or its host is gone.
SILENT_S = 15.0
# The slowest network over which a state may still come.
_SLOW_BYTES_PER_S = 10e6
# The driver itself may have slept; nobody could be heard then.
_OWN_GAP_S = 5.0
# After the first survivor has answered, how long to wait for others, who may hold a newer state;
# how long for the first; how long a state may take to come.
_OFFERS_S, _FIRST_OFFER_S, _GIVE_S = 3.0, 90.0, 300.0


@dataclass(frozen=True)
class Crew:
    """How many ranks a round may have.

    Attributes:
        least: Fewer do not begin.
        most: More are not needed.
        per_executor: Most ranks of one executor.
        timeout_s: Longest wait for the least.
    """

    least: int
    most: int
    per_executor: int
    timeout_s: float = 120.0


@dataclass(frozen=True)
class Ending:
    """How a round ended.

    Attributes:
        world: Its ranks.
        results: What they handed back, in order of rank; empty after a loss.
        loss: Why the round was cut short; None when it was not.
        kept: The newest state that a survivor handed over, or None.
        left: The ranks agreed to leave.
    """

    world: tuple[Peer, ...] = ()
    results: tuple[Message, ...] = ()
    loss: Exception | None = None
    kept: Message | None = None
    left: bool = False


class Round:
    """One round.

    Args:
        body: A pickled `Body`.
        launcher: Where to run.
        crew: How many ranks.
        on_world: Sees who the ranks are before they start; may raise to refuse them.
        on_message: Sees reports and states.
        keeps_state: After a loss, ask the survivors for the newest state.
        wants_change: Asked now and then with the ranks there are and the ranks there could be,
            whether the round should end for it.
        on_pulse: Sees the last signs of life now and then.
    """

    def __init__(
        self,
        body: bytes,
        launcher: Launcher,
        crew: Crew,
        *,
        on_world: Callable[[Sequence[Peer]], None] = lambda _: None,
        on_message: Callable[[Message], None] = lambda _: None,
        keeps_state: bool = False,
        wants_change: Callable[[int, int], bool] = lambda *_: False,
        on_pulse: Callable[[Meeting], None] = lambda _: None,
    ) -> None:
        self._body, self._launcher, self._crew = body, launcher, crew
        self._on_world, self._on_message = on_world, on_message
        self._wants_change, self._on_pulse = wants_change, on_pulse
        self._keeps_state = keeps_state
        # Executors that have been there for a while, and since when there are more.
        self._settled, self._more_since = 0, time.monotonic()

    def run(self) -> Ending:
        """Run it to its end.

        Raises:
            SlotsError: Too few slots for the least ranks.
            Exception: The first error that a rank hit, as its own type.
        """
        launcher, crew = self._launcher, self._crew
        launcher.require(max(crew.least, crew.per_executor))
        where, at = launcher.address, launcher.reached_at
        with Meeting(where, crew.most, crew.per_executor, reached_at=at) as meeting:
            job = launcher.start(meeting.invitation, self._body, crew.most)
            try:
                watch = _Watch(meeting, job, self._gather(meeting, job))
                self._on_world(watch.world)
                ending = self._watch(watch)
            except BaseException as exc:
                meeting.stop(f"{type(exc).__name__}: {exc}")
                job.end(grace_s=_UNWIND_S)
                raise
            meeting.stop("the round is over")
            wait_s = _EXIT_S if ending.loss is None else _UNWIND_S
            over = ending.loss is None and not ending.left
            _await_left(meeting, job, wait_s, _LAST_S if over else _AGAIN_S)
        return ending

    def _gather(self, meeting: Meeting, job: Job) -> tuple[Peer, ...]:
        """Wait for the ranks: all that can be, or after a while enough of them."""
        crew, start = self._crew, time.monotonic()
        say_at = start + _SAY_AFTER_S
        while not (world := meeting.await_world(0.1)):
            now = time.monotonic()
            if (error := job.error()) is not None:
                raise error
            if job.finished() and not meeting.world:
                raise RankError(
                    "ranks that meet", "tasks that ended before", "Look at the executors' logs."
                )
            here = meeting.arrived
            could = min(crew.most, max(1, self._launcher.alive()) * crew.per_executor)
            if here >= crew.least and (here >= could or now - start > _PATIENCE_S):
                meeting.settle()
                continue
            if now - start > crew.timeout_s:
                raise SlotsError(
                    f"{crew.least} free task slots within {crew.timeout_s:.0f} s",
                    f"{here}",
                    "Wait for other jobs to end, start more executors, or ask for fewer ranks "
                    "(workers_per_node, min_workers, num_nodes).",
                )
            if now > say_at:
                say_at = now + _SAY_EVERY_S
                _log.warning("waiting for task slots: %d of %d ranks are here", here, crew.most)
        if len(world) < crew.most:
            _log.info("beginning with %d of at most %d ranks", len(world), crew.most)
        return world

    def _watch(self, watch: _Watch) -> Ending:
        asked = False
        for message in watch.messages():
            if message is None:
                self._on_pulse(watch.meeting)
                if not asked and self._could_change(watch):
                    asked = True
                    watch.meeting.ask_to_leave()
            elif message.kind in ("progress", "state"):
                watch.take_state(message)
                self._on_message(message)
            elif message.kind == "result":
                watch.results[message.rank] = message
            elif message.kind == "error":
                watch.error(message)
            else:
                watch.lose(message.rank, message.body.get("why", "was lost without a word"))
            if watch.lost and not watch.finished:
                if watch.last is not None:
                    # The state is safe, and whoever waits for the lost rank may end as well.
                    watch.meeting.stop("a rank was lost after the last step")
                    continue
                kept = watch.hand_over(self._on_message) if self._keeps_state else None
                return Ending(watch.world, loss=watch.loss(), kept=kept)
            if watch.finished:
                break
        left = any(r.body.get("left") for r in watch.results.values())
        return Ending(watch.world, watch.ordered(), left=left)

    def _could_change(self, watch: _Watch) -> bool:
        crew, ranks = self._crew, len(watch.world)
        if ranks >= crew.most:
            return False
        waiting = ranks + watch.meeting.waiting
        could = min(crew.most, max(waiting, self._settled_executors() * crew.per_executor))
        return could > ranks and self._wants_change(ranks, could)

    def _settled_executors(self) -> int:
        """Executors that are not just beginning: to end the round for these would be too soon."""
        alive, now = self._launcher.alive(), time.monotonic()
        if alive <= self._settled or now - self._more_since > _ARRIVE_S:
            self._settled, self._more_since = alive, now
        return self._settled


@dataclass
class _Watch:
    """What is known of the ranks of a round.

    Attributes:
        meeting: Where they are connected.
        job: Their tasks.
        world: The ranks.
        results: Of those who have ended.
        lost: Who is gone, and how that was seen.
        last: The state of the end of the round, once a rank handed it over.
    """

    meeting: Meeting
    job: Job
    world: tuple[Peer, ...]
    results: dict[int, Message] = field(default_factory=dict)
    lost: dict[int, str] = field(default_factory=dict)
    last: Message | None = None
    _quiet_since: float = 0.0
    _looked: float = field(default_factory=time.monotonic)

    @property
    def finished(self) -> bool:
        """Whether everybody is done, or those who are not have nothing left to give."""
        done = set(self.results) | (set(self.lost) if self.last is not None else set())
        return len(done) == len(self.world)

    def messages(self) -> Iterator[Message | None]:
        """What ranks say; now and then None, and losses that nobody says."""
        while True:
            message = None
            with contextlib.suppress(queue.Empty):
                message = self.meeting.inbox.get(timeout=_TICK_S)
            if message is None or time.monotonic() - self._looked > _LOOK_S:
                self._look()
                yield None
            if message is not None:
                yield message

    def take_state(self, message: Message) -> None:
        """Remember the state with which a round ends."""
        if message.kind == "state" and message.body.get("last"):
            self.last = message

    def lose(self, rank: int, how: str) -> None:
        """Count a rank out, once."""
        if rank not in self.lost and rank not in self.results:
            self.lost[rank] = how

    def error(self, message: Message) -> None:
        """Raise what a rank hit; a broken connection between ranks is a loss instead."""
        where = self.world[message.rank].where
        try:
            raise_carried(message.payload, message.body, where)
        except LostPeerError as exc:
            self.lost[message.rank] = f"lost its connection ({exc})"

    def ordered(self) -> tuple[Message, ...]:
        """The results in order of rank."""
        return tuple(self.results[r] for r in sorted(self.results))

    def _look(self) -> None:
        """Find ranks that are gone without a word."""
        now = time.monotonic()
        slept, self._looked = now - self._looked > _OWN_GAP_S, now
        waiting = set(range(len(self.world))) - set(self.results) - set(self.lost)
        if not slept:
            for rank, pulse in self.meeting.pulses.items():
                limit = SILENT_S + pulse.facts.get("sending", 0) / _SLOW_BYTES_PER_S
                if rank in waiting and now - pulse.at > limit:
                    how = f"gave no sign of life for {SILENT_S:.0f} s"
                    self.meeting.inbox.put(Message(rank, "lost", {"why": how}))
        # A finished job with silent ranks: give the last words a moment to arrive.
        self._quiet_since = (self._quiet_since or now) if self.job.finished() else 0.0
        if self._quiet_since and now - self._quiet_since > 2.0:
            for rank in waiting:
                self.meeting.inbox.put(Message(rank, "lost", {}))

    def hand_over(self, on_message: Callable[[Message], None]) -> Message | None:
        """End the round after a loss, and take the newest state that a survivor holds."""
        self.meeting.stop(self._why(), offers=True)
        offers = self._offers(on_message)
        kept = self.last
        by_age = sorted(offers, key=lambda r: (-offers[r], r))
        for rank in by_age if kept is None else []:
            self.meeting.answer(rank, give=True)
            if (kept := self._await_result(rank)) is not None:
                break
        for rank in range(len(self.world)):
            self.meeting.answer(rank, give=False)
        return kept

    def _offers(self, on_message: Callable[[Message], None]) -> dict[int, int]:
        """How far each survivor is; those who have nothing whole are left out."""
        survivors = set(range(len(self.world))) - set(self.lost) - set(self.results)
        offers: dict[int, int] = {}
        deadline = time.monotonic() + _FIRST_OFFER_S
        while survivors and time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                message = self.meeting.inbox.get(timeout=0.1)
                if message.kind in ("progress", "state"):
                    self.take_state(message)
                    on_message(message)
                    continue
                survivors.discard(message.rank)
                if message.kind == "offer":
                    offers[message.rank] = message.body["iteration"]
                    deadline = min(deadline, time.monotonic() + _OFFERS_S)
                elif message.kind == "lost":
                    self.lose(message.rank, "was lost after it")
            if self.job.finished() and not offers:
                deadline = min(deadline, time.monotonic() + _OFFERS_S)
        return offers

    def _await_result(self, rank: int) -> Message | None:
        deadline = time.monotonic() + _GIVE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(queue.Empty):
                message = self.meeting.inbox.get(timeout=0.2)
                if message.rank == rank and message.kind == "result":
                    return message
                if message.rank == rank and message.kind in ("lost", "error"):
                    return None
        return None

    def _why(self) -> str:
        return "; ".join(f"{self.world[r].where} {how}" for r, how in sorted(self.lost.items()))

    def loss(self) -> RankError:
        """What was lost, as an error."""
        return RankError(
            "ranks that run to their end",
            self._why() + self._memory(),
            "It was killed, or ran out of memory: look at the executor's log, or give executors "
            "more memory.",
        )

    def _memory(self) -> str:
        """What the lost ranks last said of their memory, where that explains the loss."""
        pulses = self.meeting.pulses
        for rank in self.lost:
            facts: dict[str, Any] = pulses[rank].facts if rank in pulses else {}
            if facts.get("memory_used", 0.0) > 0.9:
                gib = facts["memory_bytes"] / 2**30
                return (
                    f" (its last sign of life: {facts['memory_used']:.0%} of the memory in use, "
                    f"{gib:.1f} GiB its own: probably out of memory)"
                )
        return ""


def _await_left(meeting: Meeting, job: Job, wait_s: float, last_s: float) -> None:
    """Wait for the tasks that are connected, then end the job: others may never start."""
    deadline = time.monotonic() + wait_s
    while meeting.connected and time.monotonic() < deadline and not job.finished():
        time.sleep(0.01)
    # Who has not gone by now has to be ended.
    job.end(grace_s=_LAST_S if meeting.connected else last_s)


def launch(
    body: bytes,
    *,
    launcher: Launcher,
    ranks: int,
    per_executor: int,
    on_world: Callable[[Sequence[Peer]], None] = lambda _: None,
    on_progress: Callable[[Message], None] = lambda _: None,
    timeout_s: float = 120.0,
) -> list[Message]:
    """Run `body` on all ranks, all or none, and give back their results in order of rank.

    Args:
        body: A pickled `Body`.
        launcher: Where to run.
        ranks: How many.
        per_executor: Most ranks of one executor.
        on_world: Sees who the ranks are before they start; may raise to refuse them.
        on_progress: Sees every report.
        timeout_s: Longest wait for all ranks to be there.

    Raises:
        SlotsError: Too few slots for the ranks.
        RankError: A rank was lost, or failed with an error that cannot travel.
        Exception: The first error that a rank hit, as its own type.
    """
    crew = Crew(ranks, ranks, per_executor, timeout_s)
    end = Round(body, launcher, crew, on_world=on_world, on_message=on_progress).run()
    if end.loss is not None:
        raise end.loss
    return list(end.results)
