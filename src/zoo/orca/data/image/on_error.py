"""What becomes of bad images and records, in every function that meets some."""

from __future__ import annotations

from typing import Literal

from zoo.errors import InputError

__all__ = ["OnError", "check_on_error"]

OnError = Literal["fail", "skip", "quarantine"]
"""An error, nothing but a count, or a place in a list with the reason."""


def check_on_error(on_error: str) -> None:
    """Refuse what is no way to treat bad images.

    Raises:
        InputError: It is none.
    """
    if on_error not in ("fail", "skip", "quarantine"):
        raise InputError(
            "on_error 'fail', 'skip' or 'quarantine'", repr(on_error), "Choose one of them."
        )
