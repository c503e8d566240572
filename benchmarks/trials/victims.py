"""Finds the processes of a Spark on this machine, and what they hold."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from zoo.cluster.session.worker_template import STAND_IN

__all__ = [
    "await_true",
    "executors",
    "kill",
    "left_of",
    "marked",
    "shards_of",
    "workers_of",
]

MARK = "ZOO_TRIALS_MARK"
_SETTLE_S = 15.0


def executors() -> list[psutil.Process]:
    """Executors of this process's Spark, oldest first."""
    found = [p for p in _family() if "CoarseGrainedExecutorBackend" in _command(p)]
    return sorted(found, key=lambda p: p.pid)


def workers_of(executor: psutil.Process) -> list[psutil.Process]:
    """The Python workers of an executor, its daemon not included."""
    return [worker for child in _children(executor) for worker in _children(_daemon(child))]


def shards_of(executor: psutil.Process) -> list[Path]:
    """Files of shards that the tasks of an executor wrote."""
    found: set[Path] = set()
    for daemon in _children(executor):
        with contextlib.suppress(psutil.Error):
            for place in daemon.environ().get("SPARK_LOCAL_DIRS", "").split(","):
                if place:
                    found.update(Path(place).glob("zoo-shards-*"))
    return sorted(found)


def kill(process: psutil.Process, number: signal.Signals = signal.SIGKILL) -> float:
    """Send a signal; when that was."""
    os.kill(process.pid, number)
    return time.time()


def marked(mark: str) -> list[str]:
    """Processes that inherited the mark, wherever in the tree they are."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            alive = process.status() != psutil.STATUS_ZOMBIE
            if alive and process.environ().get(MARK) == mark:
                found.append(f"{process.pid} " + " ".join(process.cmdline())[:200])
    return found


def left_of(mark: str) -> list[str]:
    """Processes with the mark that are still there when all had time to end."""
    await_true(lambda: not marked(mark), _SETTLE_S)
    return marked(mark)


def await_true(condition: Callable[[], object], limit_s: float, pause_s: float = 0.1) -> bool:
    """Wait for a condition; whether it came to be."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
    return True


def _family() -> list[psutil.Process]:
    while True:
        # A process may end, or become a zombie, while the tree is read.
        with contextlib.suppress(psutil.Error):
            return psutil.Process().children(recursive=True)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children()
    except psutil.Error:
        return []


def _daemon(child: psutil.Process) -> psutil.Process:
    """The daemon for which a child of an executor stands in, or the child itself."""
    with contextlib.suppress(psutil.Error):
        if child.name().startswith(STAND_IN):
            return psutil.Process(int(child.name().removeprefix(STAND_IN)))
    return child


def _command(process: psutil.Process) -> str:
    try:
        alive = process.status() != psutil.STATUS_ZOMBIE
        return " ".join(process.cmdline()) if alive else ""
    except psutil.Error:
        return ""
