"""Ranks as processes of this machine, without a cluster: the reference for every other launcher."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from typing import BinaryIO

import cloudpickle

from zoo.cluster.ranks.attend import attend
from zoo.cluster.ranks.launcher import Job
from zoo.cluster.ranks.messages import Invitation
from zoo.errors import RankError, RankLostError

__all__ = ["LocalLauncher", "main"]

# `sys.path` before anything is imported: what the driver can import, a rank can too.
_START = """\
import pickle, sys
sys.path[:] = pickle.load(sys.stdin.buffer)
from zoo.cluster.ranks.local import main
main(sys.stdin.buffer)
"""
_PARENT_S, _REAP_S = 0.5, 0.5


class LocalLauncher:
    """Starts each rank as a Python process that ends with its parent."""

    @property
    def address(self) -> str:
        """Ranks are on this machine: loopback."""
        return "127.0.0.1"

    @property
    def reached_at(self) -> str:
        """The same."""
        return self.address

    def places(self) -> tuple[int, int]:
        """One place with the cores this process may use."""
        return 1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1

    def alive(self) -> int:
        """This machine."""
        return 1

    def require(self, ranks: int) -> None:
        """Any number of processes can share the cores."""

    def hindered(self) -> str:
        """Nothing: processes wait for no place."""
        return ""

    def start(self, invitation: Invitation, body: bytes, ranks: int) -> Job:
        """Start the processes."""
        return _Processes(invitation, body, ranks)


class _Processes:
    def __init__(self, invitation: Invitation, body: bytes, ranks: int) -> None:
        # Through standard input, not the command line: it holds the key.
        task = pickle.dumps(sys.path) + cloudpickle.dumps((invitation, body, os.getpid()))
        self._feeders: list[threading.Thread] = []
        self._children: list[subprocess.Popen[bytes]] = []
        for _ in range(ranks):
            # A session of its own: Ctrl-C is for the driver, which then ends its ranks.
            child = subprocess.Popen(
                [sys.executable, "-c", _START], stdin=subprocess.PIPE, start_new_session=True
            )
            feeder = threading.Thread(target=_feed, args=(child.stdin, task), daemon=True)
            feeder.start()
            self._children.append(child)
            self._feeders.append(feeder)

    def finished(self) -> bool:
        """Whether all processes have ended."""
        return all(child.poll() is not None for child in self._children)

    def running(self) -> int:
        """Processes that have not ended: none waits for a place."""
        return sum(child.poll() is None for child in self._children)

    def error(self) -> BaseException | None:
        """A process that ended badly."""
        for child in self._children:
            if name := _signal(child.poll()):
                return RankLostError(
                    "rank processes that live", f"one that was ended by {name}",
                    "It was killed, or ran out of memory.",
                )  # fmt: skip
            if child.returncode:
                return RankError(
                    "rank processes that start", f"exit status {child.returncode}",
                    "What it wrote to standard error says why.",
                )  # fmt: skip
        return None

    def ended_by(self, pid: int) -> str:
        """The signal that ended a process. Its connections may end a moment before it does."""
        child = next((c for c in self._children if c.pid == pid), None)
        if child is None:
            return ""
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_REAP_S)
        return _signal(child.returncode)

    def end(self, grace_s: float) -> None:
        """Wait for the processes, then kill them and what they started."""
        deadline = time.monotonic() + grace_s
        for child in self._children:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        for feeder in self._feeders:
            feeder.join()


def _signal(status: int | None) -> str:
    """The signal in the exit status of a process; empty without one."""
    if status is None or status >= 0:
        return ""
    try:
        return signal.Signals(-status).name
    except ValueError:
        return f"signal {-status}"


def _feed(pipe: BinaryIO, task: bytes) -> None:
    # The process died, or was ended: its exit status says so.
    with contextlib.suppress(BrokenPipeError), pipe:
        pipe.write(task)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_S)
    os._exit(1)


def main(task: BinaryIO) -> None:
    """Be a rank.

    Args:
        task: Where the launcher writes what to do.
    """
    invitation, body, parent = pickle.load(task)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    sys.exit(attend(invitation, f"process-{os.getpid()}", body))
