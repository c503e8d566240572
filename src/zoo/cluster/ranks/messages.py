"""What passes between a rank and the driver, and who is who."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from zoo.cluster.ranks.timing import Timing

__all__ = [
    "REPORTS",
    "Arrival",
    "Invitation",
    "Kind",
    "LostPeerError",
    "Message",
    "Peer",
    "Pulse",
    "Stopped",
]


class Kind(StrEnum):
    """What a message says."""

    # From the driver to a task.
    WORLD = "world"
    """The task is a rank; who the others are."""
    DISMISS = "dismiss"
    """The task is not needed."""
    SHARED = "shared"
    """What every rank gave in a turn."""
    LEAVE = "leave"
    """The round should end at a step that suits all ranks."""
    STOP = "stop"
    """The round is over."""
    ANSWER = "answer"
    """Whether an offered state is wanted."""

    # From a rank to the driver.
    PULSE = "pulse"
    """It lives, and what it does."""
    SHARE = "share"
    """A value for all ranks."""
    PROGRESS = "progress"
    """How far it is."""
    NUMBERS = "numbers"
    """Numbers of single steps."""
    EPOCH = "epoch"
    """An epoch is done."""
    MOVED = "moved"
    """Shards have other places now."""
    COPIED = "copied"
    """Shards have copies now."""
    STATE = "state"
    """A state to keep; with `last` the one with which the round ends."""
    OFFER = "offer"
    """How far the state is that it could give."""
    RESULT = "result"
    """Its work is done."""
    ERROR = "error"
    """Its work failed."""
    BYE = "bye"
    """It ends because the round is over, and has nothing to give."""

    # What the driver's side finds out by itself.
    LOST = "lost"
    """A rank is gone; `why` says how that was seen."""


REPORTS = frozenset({Kind.PROGRESS, Kind.NUMBERS, Kind.EPOCH, Kind.MOVED, Kind.COPIED, Kind.STATE})
"""What a rank tells while it works on."""


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
        timing: How long both sides wait for each other.
    """

    address: tuple[str, int]
    key: bytes = field(repr=False)
    timing: Timing = field(default=Timing(), kw_only=True)


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
        devices: Of the accelerators of the host, those that this task was given.
    """

    executor: str
    host: str
    hostname: str
    address: str
    pid: int
    task: int | None = field(default=None, kw_only=True)
    devices: Sequence[str] = field(default=(), kw_only=True)


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
        kind: What it says.
        body: Small facts.
        payload: Bytes, of a state, a result or an error.
    """

    rank: int
    kind: Kind
    body: dict[str, Any]
    payload: bytes = b""
