"""Run a function on N ranks at once, wherever they run.

A launcher knows how to start tasks somewhere; the meeting makes ranks of them; `launch` watches
over both and turns whatever goes wrong into one error.
"""

from __future__ import annotations

import importlib
import logging
import pickle
import queue
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pyspark import cloudpickle

from zoo.cluster.carried import carry, raise_carried
from zoo.cluster.meeting import Invitation, Meeting, Member, Message, Peer, Stopped
from zoo.errors import InputError, RankError, SlotsError

__all__ = ["Body", "Job", "Launcher", "attend", "launch", "launcher_for", "pickled"]

_log = logging.getLogger(__name__)

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
        """Why the tasks could not run, once finished."""

    def end(self, grace_s: float) -> None:
        """Wait for the tasks, at most so long, then end them."""


class Launcher(Protocol):
    """Starts tasks in one kind of place."""

    @property
    def address(self) -> str:
        """Where the driver listens for them."""

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
    with Meeting(launcher.address, ranks, per_executor) as meeting:
        job = launcher.start(meeting.invitation, body, ranks)
        try:
            world = _gather(meeting, job, ranks, timeout_s)
            on_world(world)
            results = _collect(meeting, job, on_progress)
        except BaseException as exc:
            meeting.stop(f"{type(exc).__name__}: {exc}")
            job.end(grace_s=3.0)
            raise
        job.end(grace_s=10.0)
        return results


def _gather(meeting: Meeting, job: Job, ranks: int, timeout_s: float) -> Sequence[Peer]:
    start = said = time.monotonic()
    while not (world := meeting.world):
        _raise_early(meeting, job)
        now = time.monotonic()
        if now - start > timeout_s:
            raise SlotsError(
                f"{ranks} free task slots within {timeout_s:.0f} s",
                f"{meeting.arrived}",
                "Wait for other jobs to end, start more executors, or ask for fewer ranks "
                "(workers_per_node, num_nodes).",
            )
        if now - said > 5.0:
            said = now
            _log.warning("waiting for task slots: %d of %d ranks are here", meeting.arrived, ranks)
        time.sleep(0.005)
    return world


def _raise_early(meeting: Meeting, job: Job) -> None:
    if not job.finished() or meeting.world:
        return
    if (error := job.error()) is not None:
        raise error
    raise RankError("ranks that meet", "tasks that ended before", "Look at the executors' logs.")


def _collect(meeting: Meeting, job: Job, on_progress: Callable[[Message], None]) -> list[Message]:
    results: dict[int, Message] = {}
    world, quiet_since = meeting.world, None
    while len(results) < len(world):
        try:
            message = meeting.inbox.get(timeout=0.2)
        except queue.Empty:
            # A finished job with silent ranks: give the last words a moment to arrive.
            quiet_since = (quiet_since or time.monotonic()) if job.finished() else None
            if quiet_since and time.monotonic() - quiet_since > 2.0:
                raise job.error() or _lost(world, set(range(len(world))) - set(results)) from None
            continue
        if message.kind == "progress":
            on_progress(message)
        elif message.kind == "result" and message.rank is not None:
            results[message.rank] = message
        elif message.kind == "error":
            peer = world[message.rank or 0]
            where = f"rank {peer.rank} on {peer.hostname} (process {peer.pid})"
            raise_carried(message.payload, message.body, where)
        elif message.kind == "lost" and message.rank is not None:
            raise _lost(world, {message.rank})
    return [results[r] for r in sorted(results)]


def _lost(world: Sequence[Peer], ranks: set[int]) -> RankError:
    who = ", ".join(f"rank {r} on {world[r].hostname} (process {world[r].pid})" for r in sorted(ranks))
    return RankError(
        "ranks that run to their end",
        f"{who} lost without a word",
        "It was killed, or ran out of memory: look at the executor's log, or give executors more "
        "memory.",
    )


def attend(invitation: Invitation, executor: str, body: bytes) -> None:
    """A task's whole life: meet, run as a rank if chosen, hand over the result or the error."""
    member = Member(invitation, executor)
    try:
        if not member.join():
            return
        try:
            run: Body = pickle.loads(body)
            payload, facts = run(member)
        except Stopped:
            return
        except BaseException as exc:  # noqa: BLE001 - the process boundary: it goes to the driver
            member.fail(*carry(exc))
        else:
            member.finish(payload, facts)
    finally:
        member.close()
