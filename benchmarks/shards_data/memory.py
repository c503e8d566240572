"""Peaks of the memory of every Python process below this one, sampled."""

from __future__ import annotations

import contextlib
import threading
from typing import Self

import psutil
from tabular.memory import anonymous_mib

_SAMPLE_S = 0.1
_MIB = 2**20


class PeakProcesses:
    """Peaks inside a `with` block, for each Python process that lived meanwhile.

    Attributes:
        found: By process id: what it is, and its peaks of RSS and of anonymous memory in MiB.
    """

    def __init__(self) -> None:
        self.found: dict[int, tuple[str, float, float]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(_SAMPLE_S):
            me = psutil.Process()
            for process in [me, *me.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    if process.name().startswith("python"):
                        self._note(process, process.pid == me.pid)

    def _note(self, process: psutil.Process, is_driver: bool) -> None:
        what, rss, anonymous = self.found.get(process.pid, ("", 0.0, 0.0))
        what = what or ("driver" if is_driver else _role(process))
        rss = max(rss, process.memory_info().rss / _MIB)
        self.found[process.pid] = what, rss, max(anonymous, anonymous_mib(process.pid))


def _role(process: psutil.Process) -> str:
    """Name a process by the program it runs; ranks run inside Spark's workers."""
    command = process.cmdline()
    named = [part for part in command if part.startswith(("pyspark.", "zoo."))]
    what = named[0] if named else " ".join(command[1:3])
    parent = process.parent()
    is_child = parent is not None and what in parent.cmdline()
    return f"{what}, forked" if is_child else what
