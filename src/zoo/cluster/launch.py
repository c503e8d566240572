"""What starts ranks, and the life of the task that becomes one.

A launcher knows how to start tasks somewhere; the meeting makes ranks of them; a round
(`zoo.cluster.round`) watches over both. Here is what all of them share, and a task's side.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from pyspark import cloudpickle

from zoo.cluster.carried import carry
from zoo.cluster.meeting import Invitation, Member, Stopped
from zoo.errors import InputError

__all__ = ["Body", "Job", "Launcher", "attend", "launcher_for", "pickled"]

# A rank that is told to stop has a moment to see it, then it is interrupted, and one that goes on
# ends itself. Whoever may hold the newest state gets more time: its step may be a long one.
_LOOK_S, _REPEAT_S, _IGNORE_S, _OFFER_S = 1.0, 0.3, 8.0, 90.0
_SIGNAL = signal.SIGUSR1

Body = Callable[[Member], tuple[bytes, dict[str, Any]]]
"""What a rank runs. It returns the rank's result and small facts about it."""

LAUNCHERS = {
    "local": "zoo.cluster.local:LocalLauncher",
    "spark": "zoo.cluster.spark:SparkLauncher",
}


class Job(Protocol):
    """Tasks that a launcher started."""

    def finished(self) -> bool:
        """Whether no task runs any more."""

    def error(self) -> BaseException | None:
        """Why tasks could not run; None while nothing is known to be wrong."""

    def end(self, grace_s: float) -> None:
        """Wait for the tasks, at most so long, then end them."""


class Launcher(Protocol):
    """Starts tasks in one kind of place."""

    @property
    def address(self) -> str:
        """Where the driver listens for them."""

    @property
    def reached_at(self) -> str:
        """Address under which they find the driver."""

    def places(self) -> tuple[int, int]:
        """Executors, and cores of each."""

    def alive(self) -> int:
        """Executors that are there now."""

    def require(self, ranks: int) -> None:
        """Raise `SlotsError` when so many ranks can never run at once."""

    def start(self, invitation: Invitation, body: bytes, ranks: int) -> Job:
        """Start at least `ranks` tasks that `attend` the meeting."""


def launcher_for(name: str) -> Launcher:
    """The launcher of that name: `local` or `spark`."""
    module, _, attribute = LAUNCHERS[name].partition(":")
    made: Launcher = getattr(importlib.import_module(module), attribute)()
    return made


def pickled(value: Any, what: str) -> bytes:
    """Pickle what the user gave, functions and classes of a script included.

    Raises:
        InputError: It cannot be pickled; names what and why.
    """
    try:
        blob: bytes = cloudpickle.dumps(value)
    except Exception as exc:  # pickling runs code of the user's objects
        raise InputError(
            f"{what} that can be sent to the ranks",
            f"one that cannot be pickled ({type(exc).__name__}: {exc})",
            "Open files, locks, connections and sessions inside the creator function instead.",
        ) from exc
    return blob


def attend(
    invitation: Invitation,
    executor: str,
    body: bytes,
    *,
    task: int | None = None,
    host: str | None = None,
) -> str | None:
    """A task's whole life: meet, run as a rank if chosen, hand over the result or the error.

    Args:
        invitation: From the driver.
        executor: Name of the executor that runs this task.
        body: A pickled `Body`.
        task: Number of the task, the same for copies of it; None when there are no copies.
        host: Key of its host; None finds it out.

    Returns:
        Why the driver could not be reached, or None. No error, so that nobody runs the task again:
        the round may simply be over.
    """
    try:
        member = Member(invitation, executor, task=task, host=host)
    except OSError as exc:
        return f"{platform.node()} cannot reach {invitation.address}: {exc}"
    with contextlib.closing(member), _ended_with_round(member) as on_stop:
        if member.join(on_stop):
            try:
                run: Body = pickle.loads(body)
                member.finish(*run(member))
            except Stopped:
                pass
            except BaseException as exc:  # noqa: BLE001 - the process boundary: it goes to the driver
                member.held = True
                member.fail(*carry(exc))
    return None


@contextlib.contextmanager
def _ended_with_round(member: Member) -> Iterator[Callable[[], None]]:
    """Raise `Stopped` in a rank that does not look, and end the process of one that goes on.

    A body may sleep, wait for a file or compute for an hour. Spark ends the processes of cancelled
    tasks only seconds later, with errors in its log, and nobody does when the driver was killed.
    """
    here = threading.current_thread()
    over, lock = threading.Event(), threading.Lock()

    def interrupt(*_: object) -> None:
        if not over.is_set() and not member.held:
            member.check()

    def on_stop() -> None:
        wait_s = _OFFER_S if member.wants_offers else _IGNORE_S
        deadline = time.monotonic() + wait_s
        pause_s = _LOOK_S
        while not over.wait(pause_s):
            if time.monotonic() > deadline:
                os._exit(1)
            # Again and again: at a moment when nothing may be cut off it is not heard.
            pause_s = _REPEAT_S
            with lock:
                if not over.is_set():
                    signal.pthread_kill(here.ident or 0, _SIGNAL)

    if here is not threading.main_thread():
        yield lambda: None  # signals reach the main thread only; the launcher ends the process
        return
    before = signal.signal(_SIGNAL, interrupt)
    try:
        yield on_stop
    finally:
        with lock:
            over.set()
        signal.signal(_SIGNAL, before)
