"""Run a function on N ranks at once, wherever they run.

A launcher knows how to start tasks somewhere; the meeting makes ranks of them; `launch` watches
over both and turns whatever goes wrong into one error.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import pickle
import platform
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from pyspark import cloudpickle

from zoo.cluster.carried import carry, raise_carried
from zoo.cluster.meeting import Invitation, Meeting, Member, Message, Peer, Stopped
from zoo.errors import InputError, RankError, SlotsError

__all__ = ["Body", "Job", "Launcher", "attend", "launch", "launcher_for", "pickled"]

_log = logging.getLogger(__name__)

# Who waits for slots should know it soon, and not read it all the time.
_SAY_AFTER_S, _SAY_EVERY_S = 3.0, 10.0
# A rank that is told to stop has a moment to see it, then it is interrupted. The job is ended when
# that did not help, and a rank that nobody ended ends itself.
_LOOK_S, _UNWIND_S, _IGNORE_S = 1.0, 3.0, 8.0
# What a rank's process may need to end after its result.
_EXIT_S = 10.0
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
    """Run `body` on all ranks and give back their results in order of rank.

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
    launcher.require(ranks)
    where = launcher.address
    with Meeting(where, ranks, per_executor, reached_at=launcher.reached_at) as meeting:
        job = launcher.start(meeting.invitation, body, ranks)
        try:
            on_world(_gather(meeting, job, ranks, timeout_s))
            results = _collect(meeting, job, on_progress)
        except BaseException as exc:
            meeting.stop(f"{type(exc).__name__}: {exc}")
            job.end(grace_s=_UNWIND_S)
            raise
        meeting.stop("all ranks have ended")
        job.end(grace_s=_EXIT_S)
        return results


def _gather(meeting: Meeting, job: Job, ranks: int, timeout_s: float) -> Sequence[Peer]:
    start = time.monotonic()
    say_at = start + _SAY_AFTER_S
    while not (world := meeting.await_world(0.1)):
        now = time.monotonic()
        if (error := job.error()) is not None:
            raise error
        if job.finished() and not meeting.world:
            raise RankError(
                "ranks that meet", "tasks that ended before", "Look at the executors' logs."
            )
        if now - start > timeout_s:
            raise SlotsError(
                f"{ranks} free task slots within {timeout_s:.0f} s",
                f"{meeting.arrived}",
                "Wait for other jobs to end, start more executors, or ask for fewer ranks "
                "(workers_per_node, num_nodes).",
            )
        if now > say_at:
            say_at = now + _SAY_EVERY_S
            _log.warning("waiting for task slots: %d of %d ranks are here", meeting.arrived, ranks)
    return world


def _collect(meeting: Meeting, job: Job, on_progress: Callable[[Message], None]) -> list[Message]:
    results: dict[int, Message] = {}
    world, quiet_since = meeting.world, 0.0
    while len(results) < len(world):
        try:
            message = meeting.inbox.get(timeout=0.2)
        except queue.Empty:
            # A finished job with silent ranks: give the last words a moment to arrive.
            quiet_since = (quiet_since or time.monotonic()) if job.finished() else 0.0
            if quiet_since and time.monotonic() - quiet_since > 2.0:
                raise job.error() or _lost(world, set(range(len(world))) - set(results)) from None
            continue
        if message.kind == "progress":
            on_progress(message)
        elif message.kind == "result":
            results[message.rank] = message
        elif message.kind == "error":
            raise_carried(message.payload, message.body, world[message.rank].where)
        else:
            raise _lost(world, {message.rank})
    return [results[r] for r in sorted(results)]


def _lost(world: Sequence[Peer], ranks: set[int]) -> RankError:
    who = ", ".join(f"{world[r].where} was lost without a word" for r in sorted(ranks))
    return RankError(
        "ranks that run to their end",
        who,
        "It was killed, or ran out of memory: look at the executor's log, or give executors more "
        "memory.",
    )


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
        if not over.is_set():
            member.check()

    def on_stop() -> None:
        if over.wait(_LOOK_S):
            return
        with lock:
            if not over.is_set():
                signal.pthread_kill(here.ident or 0, _SIGNAL)
        if not over.wait(_IGNORE_S):
            os._exit(1)

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
