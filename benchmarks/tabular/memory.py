"""Memory that the kernel cannot take back (RssAnon): of this process and of Python ones below."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

import psutil

_SAMPLE_S, _LOOK_S = 0.05, 0.5
_BARE_RANK = """
import pyspark.worker, zoo.orca.learn.rank.body
from tabular.job import make_model
model = make_model({{"columns": {columns}, "mark": ""}})
from tabular.memory import anonymous_mib
import os
print(anonymous_mib(os.getpid()))
"""


def anonymous_mib(pid: int) -> float:
    """RssAnon of a process; 0 when it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) / 1024
    return 0.0


def bare_rank_mib(columns: int) -> float:
    """What a Python worker holds that has imported torch and made the model, and no more."""
    program = _BARE_RANK.format(columns=columns)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


class PeakMemory:
    """Peaks inside a `with` block.

    Attributes:
        driver_mib: Of this process.
        rank_mib: Of the largest Python process below it.
    """

    def __init__(self) -> None:
        self.driver_mib = self.rank_mib = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        me, ranks, looked = os.getpid(), [], 0
        while True:
            if looked % round(_LOOK_S / _SAMPLE_S) == 0:
                ranks = _python_below(me)
            looked += 1
            self.driver_mib = max(self.driver_mib, anonymous_mib(me))
            self.rank_mib = max([self.rank_mib, *map(anonymous_mib, ranks)])
            if self._ended.wait(_SAMPLE_S):
                return


def _python_below(pid: int) -> list[int]:
    found = []
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.name().startswith("python"):
                found.append(process.pid)
    return found
