"""Callbacks that break a fit off, or kill one of its ranks."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from pyspark import cloudpickle

from zoo.orca.learn.callbacks import Callback, Run

__all__ = ["KillsOnce", "StopsAt"]

# Ranks cannot import a module of the tests by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class StopsAt(Callback):
    """Breaks the fit off after a step."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def on_step_end(self, run: Run) -> None:
        if run.iteration == self.iteration:
            run.stop("enough")


class KillsOnce(Callback):
    """Kills the process of the second rank after a step; the file says that it was done."""

    def __init__(self, path: Path, iteration: int) -> None:
        self.path, self.iteration = path, iteration

    def on_step_end(self, run: Run) -> None:
        if run.rank == 1 and run.iteration == self.iteration and not self.path.exists():
            self.path.touch()
            os.kill(os.getpid(), signal.SIGKILL)
