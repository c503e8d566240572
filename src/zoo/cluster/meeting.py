"""Where the ranks of a round meet: a small server that the driver hosts.

Every rank holds one connection to it for as long as it lives. The driver names the world when
enough ranks are there, passes small values between them, hears results, errors and progress, and
knows at once that a rank is gone because its connection ends. A stranger who finds the port cannot
speak to it (`zoo.cluster.link`). The key travels with the task, never on a command line.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import queue
import secrets
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from zoo.cluster.host import host_key
from zoo.cluster.link import Link

__all__ = [
    "Arrival",
    "Invitation",
    "LostPeerError",
    "Meeting",
    "Member",
    "Message",
    "Peer",
    "Pulse",
    "Stopped",
    "choose",
]

_log = logging.getLogger(__name__)

_CLOSE_S = 5.0
# How often a rank says that it lives; more ranks say it less often, so that the driver can listen.
_PULSE_S, _CALM_RANKS = 1.0, 64


class Stopped(BaseException):
    """The driver ended the round, or is gone. Carries the reason.

    Control flow of a rank, like `KeyboardInterrupt`: an `except Exception` does not hold it up.
    """


class LostPeerError(ConnectionError):
    """The connection to another rank broke. The driver knows who is gone, so it decides."""


@dataclass(frozen=True)
class Invitation:
    """What a task needs to find the meeting. Never logged: it holds the key.

    Attributes:
        address: Host and port.
        key: Shared secret of this round.
    """

    address: tuple[str, int]
    key: bytes = field(repr=False)


@dataclass(frozen=True)
class Arrival:
    """How a task presents itself.

    Attributes:
        executor: The executor that runs it.
        host: Key of its host.
        hostname: Name of its host, for people.
        address: Local address that routes to the driver.
        pid: Its process.
        task: Number of the task, the same for copies of it that Spark may start; None when there
            are no copies.
    """

    executor: str
    host: str
    hostname: str
    address: str
    pid: int
    task: int | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class Peer(Arrival):
    """A rank of the world."""

    rank: int

    @property
    def where(self) -> str:
        """Which rank, and where it runs, for people."""
        return f"rank {self.rank} on {self.hostname} (process {self.pid})"


@dataclass(frozen=True)
class Pulse:
    """The last sign of life of a rank.

    Attributes:
        at: When it came, by the driver's monotonic clock.
        facts: What the rank said of itself: what it does, for how long, its memory.
    """

    at: float
    facts: dict[str, Any]


@dataclass(frozen=True)
class Message:
    """What a rank told the driver.

    Attributes:
        rank: Who.
        kind: `result`, `error`, `progress`, `state`, `offer` or `lost`.
        body: Small facts.
        payload: Bytes, of a result or an error.
    """

    rank: int
    kind: str
    body: dict[str, Any]
    payload: bytes = b""


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
    """

    def __init__(
        self, host: str, ranks: int, per_executor: int, *, reached_at: str | None = None
    ) -> None:
        self._ranks, self._per_executor = ranks, per_executor
        self._pulses: dict[int, Pulse] = {}
        self._server = _listen_on(host)
        self._lock = threading.Lock()
        self._serving: dict[threading.Thread, socket.socket] = {}
        self._guests: dict[Link, Arrival] = {}
        self._links: dict[Link, int] = {}
        self._world: list[Peer] = []
        self._named = threading.Event()
        self._values: dict[int, dict[int, Any]] = {}
        self._open = True
        self.inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        port = self._server.getsockname()[1]
        self.invitation = Invitation((reached_at or host, port), secrets.token_bytes(32))
        self._door = threading.Thread(target=self._accept, name="zoo-meeting", daemon=True)
        self._door.start()

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
        with self._lock:
            return len(self._serving)

    @property
    def pulses(self) -> dict[int, Pulse]:
        """The last sign of life of every rank."""
        with self._lock:
            return dict(self._pulses)

    def settle(self) -> None:
        """Name the world from those who are here, though fewer than wanted."""
        unneeded: list[Link] = []
        with self._lock:
            if not self._world and self._open:
                here = len(_fit(list(self._guests.values()), self._per_executor))
                self._name_world(min(here, self._ranks))
                unneeded = self._take_unneeded()
        for guest in unneeded:
            guest.send({"kind": "dismiss"})

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
            link.send({"kind": "stop", "why": why, "offers": offers})

    def ask_to_leave(self) -> None:
        """Ask the ranks to end the round at the next step that suits all of them."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.send({"kind": "leave"})

    def answer(self, rank: int, *, give: bool) -> None:
        """Answer an offer: whether the rank should hand over its state."""
        with self._lock:
            links = [link for link, r in self._links.items() if r == rank]
        for link in links:
            link.send({"kind": "answer", "give": give})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop("the round is over")
        # A blocked accept() sleeps on when only the descriptor is closed; shutdown wakes it.
        self._server.shutdown(socket.SHUT_RDWR)
        self._door.join()
        self._server.close()
        with self._lock:
            serving = dict(self._serving)
        deadline = time.monotonic() + _CLOSE_S
        for thread, client in serving.items():
            with contextlib.suppress(OSError):  # closed by its thread
                client.shutdown(socket.SHUT_RDWR)
            thread.join(max(0.0, deadline - time.monotonic()))

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            thread = threading.Thread(
                target=self._serve, args=(client,), name="zoo-meeting-link", daemon=True
            )
            with self._lock:
                self._serving[thread] = client
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        """One connection, from the handshake to its end."""
        try:
            with contextlib.closing(Link(client, self.invitation.key, server=True)) as link:
                self._enter(Arrival(**link.receive()[0]), link)
                self._hear(link)
        except (OSError, TypeError, ValueError) as exc:
            # A stranger, or a task that came for an earlier meeting at this port.
            _log.info("turned away a connection to the meeting: %s", exc)
        finally:
            with self._lock:
                del self._serving[threading.current_thread()]

    def _hear(self, link: Link) -> None:
        done = False
        try:
            while True:
                body, payload = link.receive()
                rank, kind = self._links.get(link), body.pop("kind")
                if rank is None:
                    continue  # not a rank, so not asked
                with self._lock:
                    facts = body if kind == "pulse" else self._pulses[rank].facts
                    self._pulses[rank] = Pulse(time.monotonic(), facts)
                if kind == "share":
                    self._share(rank, body["turn"], body["value"])
                elif kind != "pulse":
                    done = done or kind in ("result", "error")
                    self.inbox.put(Message(rank, kind, body, payload))
        except OSError:
            with self._lock:
                self._guests.pop(link, None)
                left = self._links.get(link)
            if left is not None and not done:
                self.inbox.put(Message(left, "lost", {}))

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
            guest.send({"kind": "dismiss"})

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
            link.send({"kind": "world", "rank": rank, "peers": peers})
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
            link.send({"kind": "shared", "values": everyone})


class Member:
    """A task's side of the meeting.

    Args:
        invitation: From the driver.
        executor: Name of the executor that runs this task.
        task: Number of the task, the same for copies of it; None when there are no copies.
        host: Key of its host; None finds it out.

    Attributes:
        arrival: How this task presents itself.
        key: The secret of this round, also for connections between ranks.
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
    ) -> None:
        self._link = Link.connect(invitation.address, invitation.key)
        self.key = invitation.key
        self.arrival = Arrival(
            executor,
            host or host_key(),
            platform.node(),
            self._link.local_host,
            os.getpid(),
            task=task,
        )
        self.rank, self.peers = -1, ()  # type: tuple[int, tuple[Peer, ...]]
        self._shared: queue.SimpleQueue[list[Any] | None] = queue.SimpleQueue()
        self._turn = 0
        self._answers: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._why: str | None = None
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
        if body["kind"] != "world":
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

    def check(self) -> None:
        """Raise `Stopped` when the driver ended the round or is gone."""
        if self._why is not None:
            raise Stopped(self._why)

    def share(self, value: Any) -> list[Any]:
        """Give a small JSON value, get everybody's in order of rank. Every rank must call it."""
        self.check()
        self._turn += 1
        self._link.send({"kind": "share", "turn": self._turn, "value": value})
        values = self._shared.get()
        if values is None:
            raise Stopped(self._why)
        return values

    def report(self, facts: dict[str, Any]) -> None:
        """Tell the driver how far this rank is. Never blocks on an answer."""
        self._link.send({"kind": "progress", **facts})

    def hand_over(self, payload: bytes | memoryview, facts: dict[str, Any]) -> None:
        """Give the driver a state to keep."""
        self._announce(payload)
        self._link.send({"kind": "state", **facts}, payload)

    def offer(self, facts: dict[str, Any]) -> bool:
        """After `Stopped`, say how far this rank is; whether the driver wants its state."""
        self.held = True
        self._link.send({"kind": "offer", **facts})
        return self._answers.get()

    def finish(self, payload: bytes, facts: dict[str, Any] | None = None) -> None:
        """Hand over the result of this rank."""
        self._announce(payload)
        self._link.send({"kind": "result", **(facts or {})}, payload)

    def fail(self, payload: bytes, facts: dict[str, Any]) -> None:
        """Hand over an error of this rank."""
        self._link.send({"kind": "error", **facts}, payload)

    def close(self) -> None:
        """End the connection, once the driver has all that was sent."""
        self._quiet.set()
        self._link.end(sending=True)
        if self._ear is not None:
            self._ear.join(_CLOSE_S)
        self._link.end()
        self._link.close()

    def _listen(self, on_stop: Callable[[], None]) -> None:
        try:
            while True:
                body, _ = self._link.receive()
                kind = body["kind"]
                if kind == "shared":
                    self._shared.put(body["values"])
                elif kind == "leave":
                    self.asked_to_leave = True
                elif kind == "answer":
                    self._answers.put(body["give"])
                elif kind == "stop" and self._why is None:
                    self.wants_offers = body["offers"]
                    self._stop(body["why"], on_stop)
        except OSError:
            self._answers.put(False)
            self.wants_offers = False
            if self._why is None:
                self._stop("the driver is gone", on_stop)

    def _stop(self, why: str, on_stop: Callable[[], None]) -> None:
        self._why = why
        self._shared.put(None)
        threading.Thread(target=on_stop, name="zoo-stop", daemon=True).start()

    def _announce(self, payload: bytes | memoryview) -> None:
        """Say that a long message follows: until it is there, nothing else is heard."""
        if payload:
            self._link.send({"kind": "pulse", **self.describe(), "sending": len(payload)})

    def _live(self) -> None:
        pause_s = _PULSE_S * max(1.0, self.size / _CALM_RANKS)
        while not self._quiet.wait(pause_s):
            self._link.send({"kind": "pulse", **self.describe()})


def _listen_on(host: str) -> socket.socket:
    family, _, _, _, place = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
    return socket.create_server(place, family=family, backlog=1024)
