"""Recognise what the user passed. (First form.)"""

from __future__ import annotations

from typing import Any


class Frame:
    """A frame."""

    def __init__(self, spark: Any) -> None:
        self.spark = spark

    def restore(self, result: Any) -> Any:
        """Back."""
        return result


def as_frame(data: Any, session: Any) -> Frame:
    """Recognise."""
    return Frame(data)
