"""What the program needs next is imported while the driver JVM starts, which takes longer."""

from __future__ import annotations

import contextlib
import importlib

__all__ = ["import_what_is_needed", "needed_soon", "noted_names"]

_names: dict[str, None] = {}


def needed_soon(name: str) -> None:
    """Note a module, in the place of importing it at once.

    Args:
        name: In full.
    """
    _names[name] = None


def noted_names() -> list[str]:
    """What is noted, and not imported yet."""
    return [*_names]


def import_what_is_needed() -> None:
    """Import what was noted."""
    while _names:
        # What fails here fails again where it is used, and is told there.
        with contextlib.suppress(Exception):
            importlib.import_module(_names.popitem()[0])
