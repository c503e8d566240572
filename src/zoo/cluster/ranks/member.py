"""The side of a task in a meeting."""

from __future__ import annotations

import logging
import os
import platform
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from zoo.cluster.host import host_key
from zoo.cluster.ranks.link import Link
from zoo.cluster.ranks.messages import Arrival, Invitation, Kind, Peer, Stopped

__all__ = ["Member"]

_log = logging.getLogger(__name__)


class Member:
    """A task's side of the meeting.

    Args:
        invitation: From the driver.
        executor: Name of the executor that runs this task.
        task: Number of the task, the same for copies of it; None when there are no copies.
        host: Key of its host; None finds it out.
        devices: Of the accelerators of the host, those that this task was given.

    Attributes:
        arrival: How this task presents itself.
        key: The secret of this round, also for connections between ranks.
        timing: How long both sides wait for each other.
        rank: Its number; -1 before it joined.
        peers: All ranks, in order.
        asked_to_leave: The driver would like the round to end at a step that suits all ranks.
        wants_offers: The driver ended the round and asks who holds the newest state.
        held: While True nobody interrupts this rank: it changes what must stay whole.
        describe: Gives what every sign of life says; called in a thread of its own.

    Raises:
        OSError: The driver cannot be reached, or its meeting is over.
    """

    def __init__(
        self,
        invitation: Invitation,
        executor: str,
        *,
        task: int | None = None,
        host: str | None = None,
        devices: Sequence[str] = (),
    ) -> None:
        self._link = Link.connect(invitation.address, invitation.key)
        self.key, self.timing = invitation.key, invitation.timing
        self.arrival = Arrival(
            executor,
            host or host_key(),
            platform.node(),
            self._link.local_host,
            os.getpid(),
            task=task,
            devices=list(devices),
        )
        self.rank = -1
        self.peers: tuple[Peer, ...] = ()
        self._shared: queue.SimpleQueue[list[Any] | None] = queue.SimpleQueue()
        self._turn = 0
        self._answers: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._why: str | None = None
        self._told: float | None = None
        self._asks = self._gives = False
        self._acted = time.monotonic()
        self._ear: threading.Thread | None = None
        self._quiet = threading.Event()
        self.asked_to_leave = self.wants_offers = False
        self.held = False
        self.describe: Callable[[], dict[str, Any]] = dict

    def join(self, on_stop: Callable[[], None] = lambda: None) -> bool:
        """Present this task and wait for the world.

        Args:
            on_stop: Called in a thread of its own when the driver ends the round, or is gone.

        Returns:
            Whether this task is a rank; False means it is not needed.
        """
        self._link.send(asdict(self.arrival))
        try:
            body, _ = self._link.receive()
        except OSError:
            return False
        if body["kind"] != Kind.WORLD:
            return False
        self.rank = body["rank"]
        self.peers = tuple(Peer(**p) for p in body["peers"])
        self._ear = threading.Thread(
            target=self._listen, args=(on_stop,), name="zoo-member", daemon=True
        )
        self._ear.start()
        threading.Thread(target=self._live, name="zoo-pulse", daemon=True).start()
        return True

    @property
    def size(self) -> int:
        """Ranks in the world."""
        return len(self.peers)

    @property
    def neighbours(self) -> list[int]:
        """The ranks of this host, this one among them, in order."""
        return [p.rank for p in self.peers if p.host == self.peers[self.rank].host]

    @property
    def closed(self) -> threading.Event:
        """Set when this task ends: for what goes on in threads of its own."""
        return self._quiet

    @property
    def stopped(self) -> bool:
        """Whether the driver ended the round or is gone."""
        return self._why is not None

    @property
    def unwinding(self) -> bool:
        """Whether it was told of the end just now, and is on its way to offer what it holds."""
        told = self._told
        return told is not None and time.monotonic() - told < self.timing.unwind_s

    @property
    def overdue(self) -> bool:
        """Whether a rank that was told to stop has had its time.

        Who offers a state waits for the driver, however long others take to give theirs. Who sends
        one has time as long as it moves. Whoever may hold the newest state gets more time to offer
        it: its step may be a long one; so does one that packs it.
        """
        sending, timing, now = self._link.sending, self.timing, time.monotonic()
        if self._asks:
            return False
        if sending.under_way:
            return now - sending.at > timing.stall_s(sending.size)
        limit_s = timing.first_offer_s if self.wants_offers else timing.ignore_s
        return now - self._acted > (timing.give_s if self._gives else limit_s)

    def check(self) -> None:
        """Raise `Stopped` when the driver ended the round or is gone."""
        if self._why is not None:
            raise self._ending()

    def share(self, value: Any) -> list[Any]:
        """Give a small JSON value, get everybody's in order of rank. Every rank must call it."""
        self.check()
        self._turn += 1
        self._link.send({"kind": Kind.SHARE, "turn": self._turn, "value": value})
        values = self._shared.get()
        if values is None:
            raise self._ending()
        return values

    def report(self, facts: dict[str, Any], kind: Kind = Kind.PROGRESS) -> None:
        """Tell the driver how far this rank is. Never blocks on an answer.

        Args:
            facts: What there is to say.
            kind: One of `REPORTS`.
        """
        self._link.send({"kind": kind, **facts})

    def hand_over(self, payload: bytes | memoryview, facts: dict[str, Any]) -> None:
        """Give the driver a state to keep."""
        self._link.send({"kind": Kind.STATE, **facts}, payload)
        self._acted = time.monotonic()

    def offer(self, facts: dict[str, Any]) -> bool:
        """After `Stopped`, say how far this rank is; whether the driver wants its state."""
        self.held = self._asks = True
        self._link.send({"kind": Kind.OFFER, **facts})
        self._gives = self._answers.get()
        self._asks, self._acted = False, time.monotonic()
        return self._gives

    def finish(self, payload: bytes, facts: dict[str, Any] | None = None) -> None:
        """Hand over the result of this rank."""
        self._link.send({"kind": Kind.RESULT, **(facts or {})}, payload)

    def fail(self, payload: bytes, facts: dict[str, Any]) -> None:
        """Hand over an error of this rank."""
        self._link.send({"kind": Kind.ERROR, **facts}, payload)

    def bye(self) -> None:
        """End without a result, because the round is over."""
        self._link.send({"kind": Kind.BYE})

    def tell_crashes(self) -> None:
        """Let the driver know when this process dies of a signal, as far as it can still speak."""
        self._link.tell_crashes()

    def close(self) -> None:
        """End the connection, once the driver has all that was sent."""
        self._quiet.set()
        self._link.end(sending=True)
        if self._ear is not None:
            self._ear.join(self.timing.close_s)
        self._link.end()
        self._link.close()

    def _listen(self, on_stop: Callable[[], None]) -> None:
        try:
            while True:
                self._hear(self._link.receive()[0], on_stop)
        except OSError:
            self._end_alone("the driver is gone", on_stop)
        except Exception as exc:  # noqa: BLE001 - whatever it was, nobody listens any more
            self._end_alone(f"the driver cannot be understood ({exc!r})", on_stop)

    def _hear(self, body: dict[str, Any], on_stop: Callable[[], None]) -> None:
        kind = body["kind"]
        if kind == Kind.SHARED:
            self._shared.put(body["values"])
        elif kind == Kind.LEAVE:
            self.asked_to_leave = True
        elif kind == Kind.ANSWER:
            self._answers.put(body["give"])
        elif kind == Kind.STOP and self._why is None:
            self.wants_offers = body["offers"]
            self._stop(body["why"], on_stop)

    def _end_alone(self, why: str, on_stop: Callable[[], None]) -> None:
        self.wants_offers = self._gives = False
        self._answers.put(False)
        if self._why is None:
            self._stop(why, on_stop)

    def _ending(self) -> Stopped:
        self._told = time.monotonic()
        return Stopped(self._why)

    def _stop(self, why: str, on_stop: Callable[[], None]) -> None:
        self._why, self._acted = why, time.monotonic()
        self._shared.put(None)
        threading.Thread(target=on_stop, name="zoo-stop", daemon=True).start()

    def _live(self) -> None:
        said = False
        while not self._quiet.wait(self.timing.pause_s(self.size)):
            try:
                self._link.send({"kind": Kind.PULSE, **self.describe()})
            except Exception as exc:  # noqa: BLE001 - that it lives depends on nothing it says
                self._link.send({"kind": Kind.PULSE})
                if not said:
                    _log.warning("rank %d cannot say what it does: %r", self.rank, exc)
                said = True
