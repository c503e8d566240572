"""Where the ranks of a round meet: a small server that the driver hosts.

Every rank holds one connection to it for as long as it lives. The driver names the world when
enough ranks are there, passes small values between them, hears results, errors and progress, and
knows at once that a rank is gone because its connection ends. Both sides prove that they know the
key of the round before anything is read (HMAC, `multiprocessing.connection`), so a stranger who
finds the port cannot speak to it. The key travels with the task, never on a command line.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import queue
import secrets
import socket
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, answer_challenge, deliver_challenge
from typing import Any, Self

from zoo.cluster.host import host_key

__all__ = ["Arrival", "Invitation", "Meeting", "Member", "Message", "Peer", "Stopped", "choose"]

_log = logging.getLogger(__name__)


class Stopped(Exception):  # noqa: N818 - control flow of a rank, not an error of its own
    """The driver ended the round, or is gone. Carries the reason."""


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
    """

    executor: str
    host: str
    hostname: str
    address: str
    pid: int


@dataclass(frozen=True)
class Peer(Arrival):
    """A rank of the world."""

    rank: int


@dataclass(frozen=True)
class Message:
    """What a rank told the driver.

    Attributes:
        rank: Who; None for a task that is no rank.
        kind: `result`, `error`, `progress` or `lost`.
        body: Small facts.
        payload: Bytes, of a result or an error.
    """

    rank: int | None
    kind: str
    body: dict[str, Any]
    payload: bytes = b""


def choose(arrivals: Sequence[Arrival], ranks: int, per_executor: int) -> list[int] | None:
    """Which arrivals become the world, as indexes in order of rank; None while too few are there.

    Ranks of one executor, and executors of one host, get neighbouring numbers. Executors share
    the ranks evenly: none gets a second one while another has none.
    """
    by_executor: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index, arrival in enumerate(arrivals):
        by_executor[arrival.host, arrival.executor].append(index)
    depth = [
        (place, executor, index)
        for executor, members in by_executor.items()
        for place, index in enumerate(members[:per_executor])
    ]
    if len(depth) < ranks:
        return None
    taken = sorted(depth, key=lambda d: d[0])[:ranks]
    return [index for _, _, index in sorted(taken, key=lambda d: (d[1], d[0]))]


class Meeting:
    """The driver's side. Use as a context manager; leaving it ends every connection.

    Args:
        host: Address to listen on.
        ranks: Size of the world.
        per_executor: Most ranks of one executor.
    """

    def __init__(self, host: str, ranks: int, per_executor: int) -> None:
        self._ranks, self._per_executor = ranks, per_executor
        self._server = socket.create_server((host, 0), backlog=1024)
        self._lock, self._send_lock = threading.Lock(), threading.Lock()
        self._arrived: list[tuple[Arrival, Connection]] = []
        self._world: list[Peer] = []
        self._links: dict[int, Connection] = {}
        self._values: dict[int, dict[int, Any]] = {}
        self._open = True
        self.inbox: queue.Queue[Message] = queue.Queue()
        self.invitation = Invitation((host, self._server.getsockname()[1]), secrets.token_bytes(32))
        threading.Thread(target=self._accept, name="zoo-meeting", daemon=True).start()

    @property
    def world(self) -> tuple[Peer, ...]:
        """The ranks, in order; empty until enough are there."""
        with self._lock:
            return tuple(self._world)

    @property
    def arrived(self) -> int:
        """Tasks that have presented themselves and are still there."""
        with self._lock:
            return len(self._arrived)

    def stop(self, why: str) -> None:
        """Tell all ranks to end the round, and dismiss who comes later."""
        with self._lock:
            self._open = False
            links = [*self._links.values(), *(link for _, link in self._arrived)]
        for link in links:
            self._tell(link, {"kind": "stop", "why": why})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop("the round is over")
        # A blocked accept() sleeps on when only the descriptor is closed; shutdown wakes it.
        try:
            self._server.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # not connected: some systems refuse, and closing is enough there
        self._server.close()
        with self._lock:
            links = list(self._links.values())
        for link in links:
            link.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = Connection(client.detach())
            threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link: Connection) -> None:
        """One connection, from the handshake to its end."""
        try:
            deliver_challenge(link, self.invitation.key)
            answer_challenge(link, self.invitation.key)
            arrival = Arrival(**_receive(link)[0])
        except (AuthenticationError, EOFError, OSError, ValueError, TypeError) as exc:
            _log.warning("turned away a connection to the meeting: %s", exc)
            link.close()
            return
        self._enter(arrival, link)
        done = False
        try:
            while True:
                body, payload = _receive(link)
                rank = self._rank_of(link)
                if body["kind"] == "share":
                    self._share(rank, body["turn"], body["value"])
                else:
                    done = done or body["kind"] in ("result", "error")
                    self.inbox.put(Message(rank, body.pop("kind"), body, payload))
        except (EOFError, OSError):
            rank = self._leave(link)
            if rank is not None and not done:
                self.inbox.put(Message(rank, "lost", {}))

    def _enter(self, arrival: Arrival, link: Connection) -> None:
        with self._lock:
            late = bool(self._world) or not self._open
            if not late:
                self._arrived.append((arrival, link))
                chosen = choose([a for a, _ in self._arrived], self._ranks, self._per_executor)
                if chosen is None:
                    return
                self._name_world(chosen)
        if late:
            self._tell(link, {"kind": "dismiss"})

    def _name_world(self, chosen: list[int]) -> None:
        peers = [Peer(**asdict(self._arrived[i][0]), rank=r) for r, i in enumerate(chosen)]
        world = [asdict(p) for p in peers]
        for rank, index in enumerate(chosen):
            self._links[rank] = self._arrived[index][1]
        rest = [link for i, (_, link) in enumerate(self._arrived) if i not in set(chosen)]
        self._arrived.clear()
        self._world = peers
        for rank, link in self._links.items():
            self._tell(link, {"kind": "world", "rank": rank, "peers": world})
        for link in rest:
            self._tell(link, {"kind": "dismiss"})

    def _rank_of(self, link: Connection) -> int | None:
        with self._lock:
            return next((r for r, other in self._links.items() if other is link), None)

    def _leave(self, link: Connection) -> int | None:
        with self._lock:
            self._arrived = [(a, other) for a, other in self._arrived if other is not link]
        return self._rank_of(link)

    def _share(self, rank: int | None, turn: int, value: Any) -> None:
        """Hand a value of every rank to every rank, once all have given theirs."""
        if rank is None:
            return
        with self._lock:
            values = self._values.setdefault(turn, {})
            values[rank] = value
            if len(values) < len(self._world):
                return
            del self._values[turn]
            links = list(self._links.values())
        everyone = [values[r] for r in sorted(values)]
        for link in links:
            self._tell(link, {"kind": "shared", "values": everyone})

    def _tell(self, link: Connection, body: dict[str, Any]) -> None:
        with self._send_lock:
            _send(link, body)


class Member:
    """A task's side of the meeting.

    Args:
        invitation: From the driver.
        executor: Name of the executor that runs this task.
    """

    def __init__(self, invitation: Invitation, executor: str) -> None:
        self._link: Connection = _connect(invitation)
        here = socket.socket(fileno=os.dup(self._link.fileno()))
        address = here.getsockname()[0]
        here.close()
        self.arrival = Arrival(executor, host_key(), platform.node(), address, os.getpid())
        self._send_lock = threading.Lock()
        self._shared: queue.Queue[list[Any] | None] = queue.Queue()
        self._turn = 0
        self._why: str | None = None
        self.rank, self.peers = -1, ()  # type: tuple[int, tuple[Peer, ...]]

    def join(self) -> bool:
        """Present this task and wait for the world.

        Returns:
            Whether this task is a rank; False means it is not needed.
        """
        self._say(asdict(self.arrival))
        try:
            body, _ = _receive(self._link)
        except (EOFError, OSError):
            return False
        if body["kind"] != "world":
            return False
        self.rank = body["rank"]
        self.peers = tuple(Peer(**p) for p in body["peers"])
        threading.Thread(target=self._listen, name="zoo-member", daemon=True).start()
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
        self._say({"kind": "share", "turn": self._turn, "value": value})
        values = self._shared.get()
        if values is None:
            raise Stopped(self._why)
        return values

    def report(self, facts: dict[str, Any]) -> None:
        """Tell the driver how far this rank is. Never blocks on an answer."""
        self._say({"kind": "progress", **facts})

    def finish(self, payload: bytes, facts: dict[str, Any] | None = None) -> None:
        """Hand over the result of this rank."""
        self._say({"kind": "result", **(facts or {})}, payload)

    def fail(self, payload: bytes, facts: dict[str, Any]) -> None:
        """Hand over an error of this rank."""
        self._say({"kind": "error", **facts}, payload)

    def close(self) -> None:
        """End the connection."""
        self._link.close()

    def _say(self, body: dict[str, Any], payload: bytes = b"") -> None:
        with self._send_lock:
            if not _send(self._link, body, payload):
                self._why = self._why or "the driver is gone"

    def _listen(self) -> None:
        try:
            while True:
                body, _ = _receive(self._link)
                if body["kind"] == "shared":
                    self._shared.put(body["values"])
                elif body["kind"] == "stop":
                    self._end(body["why"])
        except (EOFError, OSError, TypeError):  # TypeError: the link was closed under recv
            self._end("the driver is gone")

    def _end(self, why: str) -> None:
        self._why = self._why or why
        self._shared.put(None)


def _connect(invitation: Invitation) -> Connection:
    link = Client(invitation.address, authkey=invitation.key)
    sock = socket.socket(fileno=os.dup(link.fileno()))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.close()
    return link


def _send(link: Connection, body: dict[str, Any], payload: bytes = b"") -> bool:
    try:
        link.send_bytes(json.dumps({**body, "payload": bool(payload)}).encode())
        if payload:
            link.send_bytes(payload)
    except OSError:
        return False
    return True


def _receive(link: Connection) -> tuple[dict[str, Any], bytes]:
    body = json.loads(link.recv_bytes())
    payload = link.recv_bytes() if body.pop("payload") else b""
    return body, payload
