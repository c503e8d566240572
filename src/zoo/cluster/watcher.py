"""The process that cleans up after another one, however that one ended.

`zoo.cluster.guard` starts this file as a script of its own, with the signals blocked that end
whole process groups. It imports the standard library only, so it stays a few megabytes small.

Its arguments are the owner's process id and the owner's start time. The owner is gone when that
process is, or when stdin ends. Commands arrive on stdin, each a word, a space, an argument and a
zero byte: `dir PATH`, `forget PATH`, `process PID:START` and `clean`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import shutil
import signal
import sys
import time

__all__ = ["Watcher", "main", "start_time"]

POLL_S = 0.5
GRACE_S = 3.0
REMOVE_S = 5.0


def start_time(pid: int) -> str | None:
    """When a process started, as text that a later process with the same id does not share.

    Returns:
        None when no such process runs (one that has ended and was not waited for included).
    """
    try:
        with open(f"/proc/{pid}/stat") as file:
            # The name, in parentheses, may itself contain spaces and parentheses.
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None if os.path.isdir("/proc/self") else _start_time_from_ps(pid)
    return None if fields[0] in "ZX" else fields[19]


def _start_time_from_ps(pid: int) -> str | None:
    import subprocess  # only where there is no /proc: it would double the memory of the watcher

    command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    state, _, started = subprocess.run(
        command, capture_output=True, text=True, check=False
    ).stdout.partition(" ")
    return None if not state or state.startswith("Z") else started.strip().replace(" ", "_")


def _descendants(pid: int) -> list[int]:
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    found = []
    for thread in threads:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{thread}/children") as file:
            for child in map(int, file.read().split()):
                found += [child, *_descendants(child)]
    return found


def _remove(path: str) -> None:
    # A process that is just ending may still write, so once is not always enough.
    deadline = time.monotonic() + REMOVE_S
    while os.path.lexists(path):
        shutil.rmtree(path, ignore_errors=True)
        if not os.path.lexists(path) or time.monotonic() > deadline:
            return
        time.sleep(0.1)


class Watcher:
    """What is to be cleaned once the owner is gone."""

    def __init__(self) -> None:
        self._locks: dict[str, int] = {}
        self._processes: dict[int, str] = {}
        self._rest = b""

    def feed(self, chunk: bytes) -> bool:
        """Take a piece of the command stream; True when it asks to clean now."""
        *commands, self._rest = (self._rest + chunk).split(b"\0")
        clean = False
        for command in commands:
            clean |= self._obey(command)
        return clean

    def _obey(self, command: bytes) -> bool:
        word, _, argument = os.fsdecode(command).partition(" ")
        if word == "dir" and argument not in self._locks:
            self._locks[argument] = _lock(argument)
        elif word == "forget" and argument in self._locks:
            _close(self._locks.pop(argument))
        elif word == "process":
            pid, _, started = argument.partition(":")
            self._processes[int(pid)] = started
        return word == "clean"

    def clean(self) -> None:
        """End the processes with all they started, then remove the directories."""
        doomed = {pid: s for pid, s in self._processes.items() if start_time(pid) == s}
        for pid in [child for root in doomed for child in _descendants(root)]:
            started = start_time(pid)
            if started is not None:
                doomed[pid] = started
        _signal(self._processes, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        while doomed and time.monotonic() < deadline:
            time.sleep(0.05)
            doomed = {pid: s for pid, s in doomed.items() if start_time(pid) == s}
        _signal(doomed, signal.SIGKILL)
        for path, lock in self._locks.items():
            _remove(path)
            _close(lock)


def _signal(processes: dict[int, str], number: signal.Signals) -> None:
    for pid, started in processes.items():
        # The start time tells a process of ours from a stranger that got its id later.
        if start_time(pid) == started:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)


def _lock(path: str) -> int:
    # As long as this lock is held, `sweep` of another process leaves the directory alone.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return -1
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return descriptor


def _close(descriptor: int) -> None:
    if descriptor >= 0:
        os.close(descriptor)


def main(owner: int, started: str) -> None:
    """Read commands until the owner is gone, then clean.

    Args:
        owner: The process id to watch.
        started: Its start time, as `start_time` gives it.
    """
    watcher = Watcher()
    while start_time(owner) == started:
        if select.select([0], [], [], POLL_S)[0] and not _take(watcher):
            break
    # What was written before the owner died may still wait in the pipe.
    while select.select([0], [], [], 0)[0] and _take(watcher):
        pass
    watcher.clean()


def _take(watcher: Watcher) -> bool:
    """Hand over what stdin has now; False when there is no more to wait for."""
    chunk = os.read(0, 65536)
    return not watcher.feed(chunk) and bool(chunk)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
