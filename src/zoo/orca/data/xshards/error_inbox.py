"""How an error of a task reaches the driver as itself: beside the texts of Spark, not in them.

Spark tells the driver of an error by a text. Texts hold what strangers wrote, cells and names of
files, so nothing that is taken out of one may be unpickled. While a job runs, the driver listens;
a task that fails connects, and both prove that they know the key of this job before anything is
read. The text has only to say which of the errors that arrived ended the job: by a random number,
which no text knew before.
"""

from __future__ import annotations

import contextlib
import json
import logging
import platform
import secrets
import socket
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import NoReturn, Self

from pyspark import SparkContext, TaskContext

from zoo.cluster.ranks.carried import carry, lines_of, note_of, raise_carried
from zoo.cluster.ranks.door import Door
from zoo.cluster.ranks.link import Link
from zoo.cluster.session.topology import bind_address, is_local, setting

__all__ = ["INVITATION", "CarriedError", "ErrorInbox", "Reporting", "was_reported"]

_log = logging.getLogger(__name__)

INVITATION = "zoo.shards.secret"
"""The local property of a job that tells its tasks the key. Spark hides a `secret` in its logs."""

# A larger error travels with its text cut.
_ERROR_BYTES, _LINE = 1 << 20, 200
# A task waits so long for the driver; then the text of Spark is all that is told.
_CONNECT_S = 10.0
# Of tasks that fail by the hundred only the last ones can be what ended the job.
_MOST_HELD = 64
_REPORTED = "_zoo_reported"


@dataclass(frozen=True)
class CarriedError:
    """An error on its way to the driver.

    Attributes:
        payload: The error, pickled; empty when it cannot travel.
        facts: Its text, the user's lines and the whole traceback.
        where: The shard, and the host.
    """

    payload: bytes
    facts: dict[str, str]
    where: str

    @classmethod
    def of(cls, error: Exception, name: str) -> Self:
        """Pack an error in the task where it was raised."""
        return cls(*carry(error, _ERROR_BYTES), f"{name} on {platform.node()}")

    def throw(self) -> NoReturn:
        """Raise it on the driver, as its own type where that can travel."""
        raise_carried(self.payload, self.facts, self.where)


class ErrorInbox:
    """The driver's side, for one job. Use as a context manager; leaving it closes the door.

    Args:
        host: Address to listen on.
        reached_at: Address under which tasks find this host, when it is another.
    """

    def __init__(self, host: str, reached_at: str | None = None) -> None:
        self._key = secrets.token_bytes(32)
        self._held: dict[str, CarriedError] = {}
        self._lock = threading.Lock()
        self._door = Door(host, self._take, "zoo-errors")
        self.invitation = json.dumps([reached_at or host, self._door.port, self._key.hex()])

    @classmethod
    def at(cls, context: SparkContext) -> Self:
        """Listen where the tasks of a Spark find its driver."""
        host = bind_address(context)
        known = None if is_local(context) else setting(context, "spark.driver.host")
        return cls(host, known)

    def find(self, text: str) -> CarriedError | None:
        """The error that a text of Spark tells of: the last that arrived of those it names."""
        with self._lock:
            named = [error for number, error in self._held.items() if number in text]
        return named[-1] if named else None

    def tell_of_retries(self) -> None:
        """Log the errors after which Spark tried again, with success."""
        with self._lock:
            held = list(self._held.values())
        if held:
            text = held[-1].facts["text"].partition("\n")[0][:_LINE]
            _log.warning(
                "Spark tried again what had failed (%d errors), the last one %s: %s",
                len(held),
                held[-1].where,
                text,
            )

    def close(self) -> None:
        """Take nothing more."""
        self._door.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, client: socket.socket) -> None:
        try:
            with contextlib.closing(Link(client, self._key, server=True)) as link:
                said, payload = link.receive()
                error = CarriedError(payload, dict(said["facts"]), str(said["where"]))
                with self._lock:
                    self._held[str(said["number"])] = error
                    while len(self._held) > _MOST_HELD:
                        del self._held[next(iter(self._held))]
                # The task waits for this, so Spark cannot tell of the error before it is here.
                link.send({})
        except (OSError, KeyError, TypeError, ValueError) as exc:
            _log.info("turned away a connection to the errors of a job: %s", exc)


class Reporting:
    """Hands errors of its body over to the driver, if it asked for them, and lets them pass.

    Args:
        name: The part of the work, as in "shard 0 of partition 3".
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        """Nothing is done before an error."""

    def __exit__(self, _: object, error: BaseException | None, trace: TracebackType | None) -> None:
        # What made the shards may have told of it already.
        if not isinstance(error, Exception) or was_reported(error):
            return
        number = _hand_over(error, self._name)
        # An error may forbid that anything is set; it is to be seen all the same.
        with contextlib.suppress(Exception):
            error.add_note(note_of(f"{self._name} on {platform.node()}", lines_of(error)) + number)
            vars(error)[_REPORTED] = True
            # The lines are in the note, and Spark shows all of them several times.
            if trace is not None:
                trace.tb_next = None


def was_reported(error: Exception) -> bool:
    """Whether the driver has been told of an error, with the part of the work that raised it."""
    return _REPORTED in vars(error)


def _hand_over(error: Exception, name: str) -> str:
    """Send an error to the driver of this job.

    Returns:
        The number by which the driver knows it, to be written where Spark will tell of it.
    """
    task = TaskContext.get()
    told = task.getLocalProperty(INVITATION) if task is not None else None
    if not told:
        return ""
    number = secrets.token_hex(8)
    try:
        host, port, key = json.loads(told)
        carried = CarriedError.of(error, name)
        said = {"number": number, "where": carried.where, "facts": carried.facts}
        address = (str(host), int(port))
        link = Link.connect(address, bytes.fromhex(key), timeout_s=_CONNECT_S)
        with contextlib.closing(link):
            link.send(said, carried.payload)
            link.receive()
    except Exception as exc:  # noqa: BLE001 - whatever goes wrong, the error itself is to be seen
        # The job of a task that runs on may be over, and nobody listens any more.
        level = logging.INFO if isinstance(exc, ConnectionError) else logging.WARNING
        _log.log(level, "the driver cannot be told of an error as itself: %s", exc)
        return ""
    return f"\nNumber {number}."
