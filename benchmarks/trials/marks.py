"""What ranks write down of their steps, in one file for all, and what can be read from it."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from zoo.orca.learn.callback import Callback, Run

__all__ = ["Mark", "Marker", "Marks"]

_LINE = 60


class Marker(Callback):
    """Writes a line when a rank begins, and one after each of its steps.

    Args:
        path: The file, on the one machine that all ranks share.
        pause_s: What it waits before each, as if the model were a larger one.
    """

    def __init__(self, path: str, pause_s: float) -> None:
        self._path, self._pause_s, self._file = path, pause_s, -1

    def on_train_begin(self, run: Run) -> None:
        """The rank begins."""
        self._write("begin", run)

    def on_step_end(self, run: Run) -> None:
        """A step is done."""
        time.sleep(self._pause_s)
        self._write("step", run)

    def _write(self, kind: str, run: Run) -> None:
        if self._file < 0:
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        text = f"{kind} {time.time():.6f} {run.iteration} {run.rank} {run.size} {os.getpid()}"
        # One write of one length: lines of several ranks never mix, and the last is easy to find.
        os.write(self._file, f"{text:<{_LINE - 1}}\n".encode())

    def __del__(self) -> None:
        if self._file >= 0:
            with contextlib.suppress(OSError):
                os.close(self._file)


@dataclass(frozen=True)
class Mark:
    """A line.

    Attributes:
        kind: `begin` or `step`.
        wall: When.
        iteration: Steps done in all.
        rank: Whose.
        size: How many ranks there were.
        pid: Its process.
    """

    kind: str
    wall: float
    iteration: int
    rank: int
    size: int
    pid: int


class Marks:
    """Reads what `Marker` writes.

    Args:
        path: The file; need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self) -> list[Mark]:
        """All lines in order of time."""
        text = self.path.read_text() if self.path.exists() else ""
        found = []
        for line in text.splitlines():
            kind, wall, *numbers = line.split()
            found.append(Mark(kind, float(wall), *map(int, numbers)))
        return sorted(found, key=lambda mark: mark.wall)

    def last(self) -> Mark | None:
        """The newest line."""
        try:
            with self.path.open("rb") as file:
                file.seek(-_LINE, os.SEEK_END)
                kind, wall, *numbers = file.read(_LINE).decode().split()
            return Mark(kind, float(wall), *map(int, numbers))
        except (OSError, ValueError, TypeError):
            return None  # no line yet, or ranks are just writing

    def extra_steps(self) -> int:
        """Steps that were taken again, because their results were lost."""
        extra = reached = 0
        begun = False
        for mark in self.all():
            if mark.kind == "step":
                reached, begun = max(reached, mark.iteration), False
            elif not begun:
                extra += max(0, reached - mark.iteration)
                reached, begun = mark.iteration, True
        return extra

    def resumed_after(self, moment: float) -> Mark | None:
        """The first step after the moment that ranks took which began after it."""
        begun = False
        for mark in self.all():
            if mark.wall > moment:
                begun = begun or mark.kind == "begin"
                if begun and mark.kind == "step":
                    return mark
        return None

    def processes_kept(self) -> tuple[int, int] | None:
        """Of the ranks of the second round, how many run in processes of the first; None for one.

        Returns:
            How many do, and how many ranks there are.
        """
        rounds: list[set[int]] = []
        begun = False
        for mark in self.all():
            if mark.kind == "begin":
                if not begun:
                    rounds.append(set())
                rounds[-1].add(mark.pid)
            begun = mark.kind == "begin"
        return (len(rounds[0] & rounds[1]), len(rounds[1])) if len(rounds) > 1 else None

    def worlds(self) -> list[tuple[float, int]]:
        """When rounds began, and with how many ranks."""
        found: list[tuple[float, int]] = []
        begun = False
        for mark in self.all():
            if mark.kind == "begin" and not begun:
                found.append((mark.wall, mark.size))
            begun = mark.kind == "begin"
        return found
