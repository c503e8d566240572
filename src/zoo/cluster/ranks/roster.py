"""What the driver knows of the ranks of a round: who is done, who is gone, who holds what."""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from zoo.cluster.ranks.carried import raise_carried
from zoo.cluster.ranks.launcher import Job
from zoo.cluster.ranks.meeting import Meeting
from zoo.cluster.ranks.messages import REPORTS, Kind, LostPeerError, Message, Peer
from zoo.cluster.ranks.timing import Timing
from zoo.errors import RankLostError

__all__ = ["Roster"]

_log = logging.getLogger(__name__)

# A rank that used so much of its memory when last heard has probably run out of it.
_MEMORY_FULL = 0.9


@dataclass
class Roster:
    """The ranks of a round.

    Attributes:
        meeting: Where they are connected.
        job: Their tasks.
        world: The ranks.
        timing: How long to wait for what.
        results: Of those who have ended.
        lost: Who is gone, and how that was seen.
        gone: Who ended without a result, because the round was over.
        last: The state of the end of the round, once a rank handed it over.
    """

    meeting: Meeting
    job: Job
    world: tuple[Peer, ...]
    timing: Timing
    results: dict[int, Message] = field(default_factory=dict)
    lost: dict[int, str] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    last: Message | None = None
    _quiet_since: float = 0.0
    _looked: float = field(default_factory=time.monotonic)
    _crashed: bool = False
    _stopped: bool = False

    @property
    def waiting(self) -> set[int]:
        """Who has neither ended nor is gone."""
        return set(range(len(self.world))) - set(self.results) - set(self.lost) - self.gone

    @property
    def finished(self) -> bool:
        """Whether everybody is done, or those who are not have nothing left to give."""
        nobody_needed = self.last is not None and not self.waiting
        return nobody_needed or len(self.results) == len(self.world)

    def messages(self) -> Iterator[Message | None]:
        """What ranks say; now and then None, and losses that nobody says."""
        while True:
            message = None
            with contextlib.suppress(queue.Empty):
                message = self.meeting.inbox.get(timeout=self.timing.tick_s)
            if message is None or time.monotonic() - self._looked > self.timing.look_s:
                self._look()
                yield None
            if message is not None:
                self._note(message)
                yield message

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

    def stop(self, why: str, *, offers: bool = False) -> None:
        """Tell the ranks that the round is over."""
        self._stopped = True
        self.meeting.stop(why, offers=offers)

    def hand_over(self, on_report: Callable[[Message], None]) -> Message | None:
        """End the round after a loss, and take the newest state that a survivor holds.

        Args:
            on_report: Sees what survivors still report.
        """
        self.stop(self._why(), offers=True)
        offers = self._offers(on_report)
        kept = self.last
        for rank in sorted(offers, key=lambda r: (-offers[r], r)):
            if kept is None and rank in self.waiting:
                kept = self._given(rank)
        for rank in range(len(self.world)):
            self.meeting.answer(rank, give=False)
        return kept

    def loss(self) -> RankLostError:
        """What was lost, as an error."""
        remedy = (
            "The stack of the native code that crashed is in the driver's log, as a warning."
            if self._crashed
            else "It was killed, or ran out of memory: look at the executor's log, or give "
            "executors more memory."
        )
        received = self._why() + self._memory()
        return RankLostError("ranks that run to their end", received, remedy)

    def _note(self, message: Message) -> None:
        """Take down what a message says of its rank."""
        rank = message.rank
        if message.kind is Kind.RESULT:
            self.results[rank] = message
        elif message.kind is Kind.BYE and self._stopped:
            self.gone.add(rank)
        elif message.kind is Kind.BYE:
            self.lost[rank] = "ended by itself: the driver was gone for it"
        elif message.kind is Kind.STATE and message.body.get("last"):
            self.last = message
        elif message.kind is Kind.LOST and rank in self.waiting:
            self.lost[rank] = message.body.get("why") or self._ended_by(rank)
            if crash := message.body.get("crash"):
                self._crashed = True
                _log.warning("%s crashed:\n%s", self.world[rank].where, crash)

    def _ended_by(self, rank: int) -> str:
        """How a rank was lost that did not say it."""
        name = self.job.ended_by(self.world[rank].pid)
        return f"was lost: ended by {name}" if name else "was lost without a word"

    def _look(self) -> None:
        """Find ranks that are gone without a word."""
        now = time.monotonic()
        slept, self._looked = now - self._looked > self.timing.own_gap_s, now
        for rank in set() if slept else self.waiting:
            if why := self._silent(rank, now):
                self.meeting.inbox.put(Message(rank, Kind.LOST, {"why": why}))
        # A finished job with silent ranks: give the last words a moment to arrive.
        self._quiet_since = (self._quiet_since or now) if self.job.finished() else 0.0
        if self._quiet_since and now - self._quiet_since > self.timing.last_words_s:
            for rank in self.waiting:
                self.meeting.inbox.put(Message(rank, Kind.LOST, {}))

    def _silent(self, rank: int, now: float) -> str:
        """How long a rank has been silent, when that is too long."""
        flow, pulse = self.meeting.flows[rank], self.meeting.pulses[rank]
        if flow.under_way:
            # Nothing else is heard before the message is there.
            limit_s = self.timing.stall_s(flow.size)
            if now - flow.at > limit_s:
                return f"stopped inside a message of {flow.size:,} bytes for {limit_s:.0f} s"
            return ""
        limit_s = self.timing.silence_s(len(self.world))
        return f"gave no sign of life for {limit_s:.0f} s" if now - pulse.at > limit_s else ""

    def _offers(self, on_report: Callable[[Message], None]) -> dict[int, int]:
        """How far each survivor is; those who have nothing whole are left out."""
        asked, offers = self.waiting, dict[int, int]()
        deadline = time.monotonic() + self.timing.first_offer_s
        for message in self.messages():
            if message is not None and message.kind in REPORTS:
                on_report(message)
            elif message is not None and message.kind is Kind.OFFER:
                offers[message.rank] = message.body.get("iteration", -1)
                deadline = min(deadline, time.monotonic() + self.timing.offers_s)
            elif message is not None and message.kind is Kind.ERROR:
                self.gone.add(message.rank)
            silent = (asked & self.waiting) - set(offers)
            flows = self.meeting.flows
            if any(flows[rank].under_way for rank in silent):
                # It may be the state with which the round ends; it comes as long as it moves.
                deadline = max(deadline, time.monotonic() + self.timing.offers_s)
            if self.last is not None or not silent or time.monotonic() > deadline:
                break
        return offers

    def _given(self, rank: int) -> Message | None:
        """The state of a survivor; None when it is lost before all of it is here."""
        self.meeting.answer(rank, give=True)
        asked = time.monotonic()
        for message in self.messages():
            if rank in self.results:
                return self.results[rank]
            if message is not None and message.kind is Kind.ERROR and message.rank == rank:
                return None
            late = time.monotonic() - asked > self.timing.give_s
            if rank not in self.waiting or (late and not self.meeting.flows[rank].under_way):
                return None
        return None

    def _why(self) -> str:
        return "; ".join(f"{self.world[r].where} {how}" for r, how in sorted(self.lost.items()))

    def _memory(self) -> str:
        """What the lost ranks last said of their memory, where that explains the loss."""
        pulses = self.meeting.pulses
        for rank in self.lost:
            facts: dict[str, Any] = pulses[rank].facts if rank in pulses else {}
            if facts.get("memory_used", 0.0) > _MEMORY_FULL:
                gib = facts["memory_bytes"] / 2**30
                return (
                    f" (its last sign of life: {facts['memory_used']:.0%} of the memory in use, "
                    f"{gib:.1f} GiB its own: probably out of memory)"
                )
        return ""
