"""The life of a task that becomes a rank.

A rank that is told to stop and does not look is interrupted by a signal, which raises `Stopped`
wherever its main thread stands. Its process may live on: Spark uses Python workers again. So it is
never done in the middle of something that others would find half done: an import, an object that
is being unpickled, a message, the start of a process or thread, a lock of the logging module. The
signal comes again and again until it finds the rank elsewhere, and a rank that never gets there
ends its process.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing.process
import os
import platform
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from types import CodeType, FrameType
from typing import TYPE_CHECKING

from zoo.cluster.ranks.carried import carry, said, unpickled
from zoo.cluster.ranks.link import Link
from zoo.cluster.ranks.member import Member
from zoo.cluster.ranks.messages import Invitation, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable

    from zoo.cluster.ranks.launcher import Body

__all__ = ["attend"]

_log = logging.getLogger(__name__)

_SIGNAL = signal.SIGUSR1
# What is not interrupted while it is on the stack: modules, with what they contain, and functions.
_WHOLE_MODULES = (
    "importlib.", "zipimport.", "cloudpickle.", "pyspark.cloudpickle.", "logging.",
)  # fmt: skip
_WHOLE_CALLS: frozenset[CodeType] = frozenset(
    call.__code__
    for call in (
        Link.send,
        unpickled,
        multiprocessing.process.BaseProcess.start,
        subprocess.Popen.__init__,
        threading.Thread.start,
    )
)


def attend(
    invitation: Invitation,
    executor: str,
    body: bytes,
    *,
    task: int | None = None,
    host: str | None = None,
    devices: Sequence[str] = (),
) -> str | None:
    """A task's whole life: meet, run as a rank if chosen, hand over the result or the error.

    Args:
        invitation: From the driver.
        executor: Name of the executor that runs this task.
        body: A pickled `Body`.
        task: Number of the task, the same for copies of it; None when there are no copies.
        host: Key of its host; None finds it out.
        devices: Of the accelerators of the host, those that this task was given.

    Returns:
        Why the driver could not be reached, or None. No error, so that nobody runs the task again:
        the round may simply be over.
    """
    try:
        member = Member(invitation, executor, task=task, host=host, devices=devices)
    except OSError as exc:
        return f"{platform.node()} cannot reach {invitation.address}: {exc}"
    with contextlib.closing(member), _ended_with_round(member) as on_stop:
        if member.join(on_stop):
            member.tell_crashes()
            _work(member, body)
    return None


def _work(member: Member, body: bytes) -> None:
    try:
        run: Body = unpickled(body)
        member.finish(*run(member))
    except BaseException as exc:  # noqa: BLE001 - the process boundary: it goes to the driver
        member.held = True
        if not member.stopped:
            member.fail(*carry(exc))
            return
        # An interruption may come out as any error, of native code say. Nobody waits for it.
        if not isinstance(exc, Stopped):
            _log.info("rank %d ended with the round: %s", member.rank, said(exc))
        member.bye()


def _in_the_middle(frame: FrameType | None) -> bool:
    """Whether the work on the stack must come to its end."""
    while frame is not None and frame.f_code is not attend.__code__:
        name = f"{frame.f_globals.get('__name__')}."
        if frame.f_code in _WHOLE_CALLS or name.startswith(_WHOLE_MODULES):
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def _ended_with_round(member: Member) -> Iterator[Callable[[], None]]:
    """Raise `Stopped` in a rank that does not look, and end the process of one that goes on.

    A body may sleep, wait for a file or compute for an hour. Spark ends the processes of cancelled
    tasks only seconds later, with errors in its log, and nobody does when the driver was killed.
    """
    here = threading.current_thread()
    over, lock = threading.Event(), threading.Lock()

    def interrupt(_: int, frame: FrameType | None) -> None:
        spared = over.is_set() or member.held or member.unwinding
        if not spared and not _in_the_middle(frame):
            member.check()

    def on_stop() -> None:
        pause_s = member.timing.notice_s
        while not over.wait(pause_s):
            if member.overdue:
                os._exit(1)
            pause_s = member.timing.repeat_s
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
