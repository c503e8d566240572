"""Progress of long work: a bar on a terminal or in a notebook, nothing in a log."""

from __future__ import annotations

import sys
from typing import Any, Self

from tqdm.auto import tqdm

__all__ = ["TrainingBar"]


class TrainingBar:
    """Shows epoch, rows a second, loss and time left. Use as a context manager.

    Args:
        epochs: Numbers of the epochs to come, counted from 0.
        rows: Rows of an epoch, or None when that is not known.
        show: True shows it even in a log, False never; None only where a person looks.
    """

    def __init__(self, epochs: range, rows: int | None, *, show: bool | None = None) -> None:
        self._epochs, self._rows = epochs, rows
        total = None if rows is None else rows * len(epochs)
        hidden = not (sys.stderr.isatty() or _in_notebook()) if show is None else not show
        self._bar: Any = tqdm(
            total=total, unit="rows", unit_scale=True, disable=hidden, leave=False, desc="starting"
        )

    def show(self, facts: dict[str, Any]) -> None:
        """Take in a report of a rank."""
        before = facts["epoch"] - 1 - self._epochs.start
        done = facts["rows"] + (before * self._rows if self._rows is not None else 0)
        self._bar.set_description(f"epoch {facts['epoch']}/{self._epochs.stop}", refresh=False)
        self._bar.set_postfix(loss=f"{facts['loss']:.4g}", refresh=False)
        self._bar.update(max(0, done - self._bar.n))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    return shell is not None and "ZMQ" in type(shell.get_ipython()).__name__
