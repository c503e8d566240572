"""Where the ranks of a round meet: a small server that the driver hosts.

Every rank holds one connection to it for as long as it lives. The driver names the world when
enough ranks are there, passes small values between them, hears results, errors and progress, and
knows at once that a rank is gone because its connection ends. A stranger who finds the port cannot
speak to it (`zoo.cluster.ranks.link`). The key travels with the task, never on a command line.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import secrets
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Self

from zoo.cluster.ranks.door import Door
from zoo.cluster.ranks.link import CrashError, Flow, Link
from zoo.cluster.ranks.messages import Arrival, Invitation, Kind, Message, Peer, Pulse
from zoo.cluster.ranks.timing import Timing

__all__ = ["Meeting", "choose"]

_log = logging.getLogger(__name__)

_LAST_KINDS = frozenset({Kind.RESULT, Kind.ERROR, Kind.BYE})


def choose(arrivals: Sequence[Arrival], ranks: int, per_executor: int) -> list[int] | None:
    """Which arrivals become the world, as indexes in order of rank; None while too few are there.

    Ranks of one executor, and executors of one host, get neighbouring numbers. Executors share
    the ranks evenly: none gets a second one while another has none. Of copies of a task only the
    first counts.
    """
    fit = _fit(arrivals, per_executor)
    if len(fit) < ranks:
        return None
    taken = sorted(fit, key=lambda f: f[0])[:ranks]
    return [index for _, _, index in sorted(taken, key=lambda f: (f[1], f[0]))]


def _fit(arrivals: Sequence[Arrival], per_executor: int) -> list[tuple[int, tuple[str, str], int]]:
    """The arrivals that may be ranks: place in the executor, the executor, index."""
    by_executor: dict[tuple[str, str], list[int]] = defaultdict(list)
    tasks: set[int] = set()
    for index, arrival in enumerate(arrivals):
        if arrival.task is None or arrival.task not in tasks:
            by_executor[arrival.host, arrival.executor].append(index)
        if arrival.task is not None:
            tasks.add(arrival.task)
    return [
        (place, executor, index)
        for executor, members in by_executor.items()
        for place, index in enumerate(members[:per_executor])
    ]


class Meeting:
    """The driver's side. Use as a context manager; leaving it ends every connection.

    Args:
        host: Address to listen on.
        ranks: Size of the world; `settle` takes fewer.
        per_executor: Most ranks of one executor.
        reached_at: Address under which tasks find this host, when it is another.
        timing: How long both sides wait for each other.

    Attributes:
        invitation: What tasks need to find it.
        inbox: What ranks said, in order.
    """

    def __init__(
        self,
        host: str,
        ranks: int,
        per_executor: int,
        *,
        reached_at: str | None = None,
        timing: Timing = Timing(),  # noqa: B008 - it is frozen
    ) -> None:
        self._ranks, self._per_executor = ranks, per_executor
        self._pulses: dict[int, Pulse] = {}
        self._lock = threading.Lock()
        self._guests: dict[Link, Arrival] = {}
        self._links: dict[Link, int] = {}
        self._ended: dict[Link, bool] = {}
        self._world: list[Peer] = []
        self._named = threading.Event()
        self._values: dict[int, dict[int, Any]] = {}
        self._open = True
        self.inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._key, self._timing = secrets.token_bytes(32), timing
        self._door = Door(host, self._serve, "zoo-meeting")
        address = (reached_at or host, self._door.port)
        self.invitation = Invitation(address, self._key, timing=timing)

    @property
    def world(self) -> tuple[Peer, ...]:
        """The ranks, in order; empty until enough are there."""
        with self._lock:
            return tuple(self._world)

    @property
    def arrived(self) -> int:
        """Tasks that wait and could be ranks: of one executor, no more than may be."""
        with self._lock:
            return len(_fit(list(self._guests.values()), self._per_executor))

    @property
    def waiting(self) -> int:
        """Tasks that came after the world was named, and could be ranks of the next one."""
        with self._lock:
            if not self._world:
                return 0
            everyone = [*self._world, *self._guests.values()]
            return len(_fit(everyone, self._per_executor)) - len(self._world)

    @property
    def connected(self) -> int:
        """Tasks whose connection is open."""
        return self._door.inside

    @property
    def pulses(self) -> dict[int, Pulse]:
        """The last sign of life of every rank."""
        with self._lock:
            return dict(self._pulses)

    @property
    def flows(self) -> dict[int, Flow]:
        """Of every rank, the message that it sends."""
        with self._lock:
            return {rank: link.receiving for link, rank in self._links.items()}

    def settle(self) -> None:
        """Name the world from those who are here, though fewer than wanted."""
        unneeded: list[Link] = []
        with self._lock:
            if not self._world and self._open:
                here = len(_fit(list(self._guests.values()), self._per_executor))
                self._name_world(min(here, self._ranks))
                unneeded = self._take_unneeded()
        for guest in unneeded:
            guest.send({"kind": Kind.DISMISS})

    def await_world(self, timeout_s: float) -> tuple[Peer, ...]:
        """Wait for the ranks, at most so long."""
        self._named.wait(timeout_s)
        return self.world

    def stop(self, why: str, *, offers: bool = False) -> None:
        """Tell all ranks to end the round, and dismiss who comes later.

        Args:
            why: For the ranks' logs.
            offers: Ask each rank how far it is (`Member.offer`); `answer` must follow.
        """
        with self._lock:
            self._open = False
            links = [*self._links, *self._guests]
        for link in links:
            link.send({"kind": Kind.STOP, "why": why, "offers": offers})

    def ask_to_leave(self) -> None:
        """Ask the ranks to end the round at the next step that suits all of them."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.send({"kind": Kind.LEAVE})

    def answer(self, rank: int, *, give: bool) -> None:
        """Answer an offer: whether the rank should hand over its state."""
        with self._lock:
            links = [link for link, r in self._links.items() if r == rank]
        for link in links:
            link.send({"kind": Kind.ANSWER, "give": give})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop("the round is over")
        self._door.close()
        self._door.clear(self._timing.close_s)

    def _serve(self, client: socket.socket) -> None:
        """One connection, from the handshake to its end."""
        try:
            with contextlib.closing(Link(client, self._key, server=True)) as link:
                self._enter(Arrival(**link.receive()[0]), link)
                self._hear(link)
        except (OSError, TypeError, ValueError) as exc:
            # A stranger, or a task that came for an earlier meeting at this port.
            _log.info("turned away a connection to the meeting: %s", exc)

    def _hear(self, link: Link) -> None:
        """Hear a task to its end; the end of a rank that did not say its last word is a loss."""
        self._ended[link], facts = False, dict[str, Any]()
        try:
            while True:
                self._take(link, *link.receive())
        except CrashError as exc:
            facts = {"why": f"was lost: {_crash(exc)}", "crash": str(exc)}
        except OSError:
            pass
        except Exception as exc:  # noqa: BLE001 - a rank that talks nonsense is of no more use
            facts = {"why": f"was lost: it sent what cannot be understood ({exc!r})"}
        with self._lock:
            self._guests.pop(link, None)
            rank, ended = self._links.get(link), self._ended.pop(link)
        if rank is not None and not ended:
            self.inbox.put(Message(rank, Kind.LOST, facts))

    def _take(self, link: Link, body: dict[str, Any], payload: bytes) -> None:
        rank, kind = self._links.get(link), Kind(body.pop("kind"))
        if rank is None:
            return  # not a rank, so not asked
        with self._lock:
            facts = body if kind is Kind.PULSE else self._pulses[rank].facts
            self._pulses[rank] = Pulse(time.monotonic(), facts)
        if kind is Kind.SHARE:
            self._share(rank, body["turn"], body["value"])
        elif kind is not Kind.PULSE:
            self._ended[link] = self._ended[link] or kind in _LAST_KINDS
            self.inbox.put(Message(rank, kind, body, payload))

    def _enter(self, arrival: Arrival, link: Link) -> None:
        with self._lock:
            if not self._open:
                unneeded = [link]
            else:
                self._guests[link] = arrival
                if not self._world:
                    self._name_world(self._ranks)
                unneeded = self._take_unneeded()
        for guest in unneeded:
            guest.send({"kind": Kind.DISMISS})

    def _take_unneeded(self) -> list[Link]:
        """The guests that may end. A copy of a rank's task may not: Spark would end the rank."""
        if not self._world:
            return []
        links, ranks = list(self._guests), len(self._world)
        everyone = [*self._world, *self._guests.values()]
        room = self._ranks - ranks
        fit = sorted(i - ranks for _, _, i in _fit(everyone, self._per_executor) if i >= ranks)
        tasks = {p.task for p in self._world if p.task is not None}
        unneeded = [
            link
            for k, link in enumerate(links)
            if k not in fit[:room] and self._guests[link].task not in tasks
        ]
        for link in unneeded:
            del self._guests[link]
        return unneeded

    def _name_world(self, ranks: int) -> None:
        guests = list(self._guests.items())
        chosen = choose([arrival for _, arrival in guests], ranks, self._per_executor)
        if not chosen:
            return
        now = time.monotonic()
        self._pulses = {rank: Pulse(now, {}) for rank in range(len(chosen))}
        self._world = [Peer(**asdict(guests[i][1]), rank=rank) for rank, i in enumerate(chosen)]
        self._links = {guests[i][0]: rank for rank, i in enumerate(chosen)}
        peers = [asdict(p) for p in self._world]
        for link, rank in self._links.items():
            del self._guests[link]
            link.send({"kind": Kind.WORLD, "rank": rank, "peers": peers})
        self._named.set()

    def _share(self, rank: int, turn: int, value: Any) -> None:
        """Hand a value of every rank to every rank, once all have given theirs."""
        with self._lock:
            values = self._values.setdefault(turn, {})
            values[rank] = value
            if len(values) < len(self._world):
                return
            del self._values[turn]
        everyone = [values[r] for r in sorted(values)]
        for link in self._links:
            link.send({"kind": Kind.SHARED, "values": everyone})


def _crash(error: CrashError) -> str:
    """The kind of a crash, from the last words of a process."""
    return str(error).partition("\n")[0].removeprefix("Fatal Python error: ").lower()
