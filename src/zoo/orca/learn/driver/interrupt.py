"""Ctrl-C, and the stop button of a notebook, while ranks train: what they have done is kept."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType
from typing import Any, Self

__all__ = ["Interrupt"]

_log = logging.getLogger(__name__)


class Interrupt:
    """Takes the first one as a wish to end after the step; the second one ends the program's way.

    Spark cancels its jobs at an interrupt, and ranks are such jobs: they would be gone before they
    could hand over anything. Only the main thread hears signals; elsewhere this does nothing.

    Attributes:
        armed: Ranks are there, and can hand over what they have. Before, an interrupt is as ever.
        asked: The first one came.
    """

    def __init__(self) -> None:
        self.armed = self.asked = False
        self._before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.armed and not self.asked:
            self.asked = True
            _log.warning("interrupted: ending after this step. Once more to end at once.")
        elif callable(self._before):
            self._before(number, frame)
