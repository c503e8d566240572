"""What a fit is doing: a bar on a terminal or in a notebook, a line for each epoch in a log."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from typing import Any, Self

from tqdm.auto import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from zoo.orca.learn.steps import EpochStats, validation_name

__all__ = ["Progress"]

_log = logging.getLogger(__name__)
_HOUR_S = 3600


class Progress:
    """Shows the phase of a fit; while it trains rows a second, loss and time left.

    The bar stays where it is when the fit ends, however it ends. Where nobody looks, each epoch is
    a line of the logger `zoo`. Use as a context manager.

    Args:
        epochs: Numbers of the epochs to come, counted from 0.
        show: True shows the bar even in a log, False shows nothing; None the bar where a person
            looks, and lines elsewhere.
    """

    def __init__(self, epochs: range, *, show: bool | None = None) -> None:
        self._epochs, self._lines = epochs, False
        self._rows: int | None = None
        self._trains = False
        self._bar: Any = None
        self._console = contextlib.ExitStack()
        terminal = sys.stderr.isatty()
        if show or (show is None and (terminal or _in_notebook())):
            self._bar = tqdm(unit="rows", unit_scale=True, bar_format="{desc}")
            if terminal and threading.current_thread() is threading.main_thread():
                # For the time of the bar, so that lines of the log go above it.
                self._console.enter_context(logging_redirect_tqdm(_at_console()))
        else:
            self._lines = show is None

    def phase(self, name: str) -> None:
        """The fit does something else than train."""
        self._trains = False
        if self._bar is not None:
            self._bar.bar_format = "{desc}" if not self._bar.n else None
            self._bar.set_description_str(name)

    def expect(self, rows: int | None) -> None:
        """Take in how many rows an epoch has; None when that is not known."""
        self._rows = rows
        if self._bar is not None and rows is not None:
            self._bar.total = rows * len(self._epochs)

    def show(self, facts: dict[str, Any]) -> None:
        """Take in a report of a rank."""
        bar = self._bar
        if bar is None:
            return
        before = facts["epoch"] - 1 - self._epochs.start
        done = facts["rows"] + (before * self._rows if self._rows is not None else 0)
        if not self._trains:
            # What was waited for is no part of the time that rows take.
            self._trains = True
            bar.unpause()
            bar.bar_format = None
            if not bar.n:
                bar.n = bar.initial = bar.last_print_n = done
        bar.set_description(f"epoch {facts['epoch']}/{self._epochs.stop}", refresh=False)
        bar.set_postfix(loss=f"{facts['loss']:.4g}", refresh=False)
        bar.update(max(0, done - bar.n))

    def validating(self) -> None:
        """The epoch is trained, and is tried on the validation data."""
        if self._bar is not None and self._trains and "validating" not in self._bar.desc:
            self._bar.set_description(f"{self._bar.desc.removesuffix(': ')}, validating")

    def epoch(self, stats: EpochStats) -> None:
        """An epoch is done."""
        scores = {validation_name(name): value for name, value in stats.scores.items()}
        shown = {name: f"{value:.4g}" for name, value in scores.items()}
        if self._bar is not None:
            self._bar.set_description(f"epoch {stats.epoch}/{self._epochs.stop}", refresh=False)
            self._bar.set_postfix(loss=f"{stats.loss:.4g}", **shown)
        elif self._lines:
            numbers = {"train_loss": f"{stats.loss:.4g}", **shown}
            _say(
                f"epoch {stats.epoch}/{self._epochs.stop}: "
                + ", ".join(f"{name} {value}" for name, value in numbers.items())
                + f" ({stats.rows:,} rows in {_seconds(stats.seconds + stats.validate_s)})"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._console.close()
        if self._bar is not None:
            self._bar.close()


def _say(line: str) -> None:
    """Log a line; where the program has set up no logging, it goes where warnings go."""
    zoo = logging.getLogger("zoo")
    if zoo.hasHandlers() or zoo.level != logging.NOTSET:
        _log.info("%s", line)
    else:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def _at_console() -> list[logging.Logger]:
    """The root logger, and those that write to the terminal by themselves."""
    own = [
        one
        for one in logging.root.manager.loggerDict.values()
        if isinstance(one, logging.Logger)
        and any(getattr(h, "stream", None) in (sys.stdout, sys.stderr) for h in one.handlers)
    ]
    return [logging.root, *own]


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < _HOUR_S else f"{value / _HOUR_S:.1f} h"


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    return shell is not None and "ZMQ" in type(shell.get_ipython()).__name__
