"""Ranks as processes of this machine, without a cluster: the reference for every other launcher."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import threading
import time
from typing import BinaryIO

from pyspark import cloudpickle

from zoo.cluster.launch import Job, attend
from zoo.cluster.meeting import Invitation
from zoo.errors import RankError

__all__ = ["LocalLauncher"]


class LocalLauncher:
    """Starts each rank as a Python process that ends with its parent."""

    @property
    def address(self) -> str:
        """Ranks are on this machine: loopback."""
        return "127.0.0.1"

    def places(self) -> tuple[int, int]:
        """One place with the cores this process may use."""
        return 1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1

    def require(self, ranks: int) -> None:
        """Any number of processes can share the cores."""

    def start(self, invitation: Invitation, body: bytes, ranks: int) -> Job:
        """Start the processes."""
        return _Processes(invitation, body, ranks)


class _Processes:
    def __init__(self, invitation: Invitation, body: bytes, ranks: int) -> None:
        # Through standard input, not the command line: it holds the key. `sys.path` first, so that
        # what the parent could import the rank can too.
        head = pickle.dumps(list(sys.path))
        task = cloudpickle.dumps((invitation, body))
        command = [sys.executable, "-m", "zoo.cluster.local"]
        self._children = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(ranks)]
        for child in self._children:
            assert child.stdin is not None
            threading.Thread(target=_feed, args=(child.stdin, head, task), daemon=True).start()

    def finished(self) -> bool:
        """Whether all processes have ended."""
        return all(child.poll() is not None for child in self._children)

    def error(self) -> BaseException | None:
        """A process that ended badly."""
        bad = [c for c in self._children if c.poll()]
        if not bad:
            return None
        return RankError(
            "rank processes that start", f"exit status {bad[0].returncode}",
            "What it wrote to standard error says why.",
        )  # fmt: skip

    def end(self, grace_s: float) -> None:
        """Wait for the processes, then kill them."""
        deadline = time.monotonic() + grace_s
        for child in self._children:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            if child.stdin is not None:
                child.stdin.close()


def _feed(pipe: BinaryIO, *blobs: bytes) -> None:
    """Write the task and leave the pipe open: its end tells the rank that the parent is gone."""
    try:
        for blob in blobs:
            pipe.write(struct.pack("<Q", len(blob)) + blob)
        pipe.flush()
    except (BrokenPipeError, ValueError):
        pass  # the process died, or was ended: its exit status says so


def _read(pipe: BinaryIO) -> bytes:
    (size,) = struct.unpack("<Q", pipe.read(8))
    return pipe.read(size)


def _die_with_parent() -> None:
    # The raw descriptor: a thread that sleeps inside `sys.stdin` blocks the interpreter's exit.
    while os.read(0, 1024):
        pass
    os._exit(1)


def main() -> None:
    """Entry of a rank process."""
    sys.path[:] = pickle.loads(_read(sys.stdin.buffer))
    invitation, body = pickle.loads(_read(sys.stdin.buffer))
    threading.Thread(target=_die_with_parent, daemon=True).start()
    attend(invitation, f"process-{os.getpid()}", body)


if __name__ == "__main__":
    main()
