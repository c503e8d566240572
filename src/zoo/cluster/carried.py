"""Errors that cross from a rank or a task to the driver, as their own type."""

from __future__ import annotations

import pickle
import traceback
from typing import NoReturn

from pyspark import cloudpickle

from zoo.errors import RankError

__all__ = ["RemoteTraceback", "carry", "raise_carried"]


class RemoteTraceback(Exception):  # noqa: N818 - it only carries text, as the cause of an error
    """The traceback where it happened, as text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def carry(error: BaseException) -> tuple[bytes, dict[str, str]]:
    """Pack an error for the way to the driver.

    Returns:
        The pickled error, empty when it cannot travel, and its text and traceback.
    """
    text = f"{type(error).__name__}: {error}"
    trace = "".join(traceback.format_exception(error))
    try:
        payload: bytes = cloudpickle.dumps(error)
        pickle.loads(payload)
    except Exception:  # noqa: BLE001 - an error that cannot travel goes as its text
        payload = b""
    return payload, {"text": text, "traceback": trace}


def raise_carried(payload: bytes, facts: dict[str, str], where: str) -> NoReturn:
    """Raise a packed error: its own type and message, and where it comes from.

    Args:
        payload: From `carry`. It must come from a task of ours: it is unpickled.
        facts: From `carry`.
        where: Rank or partition, and host.

    Raises:
        RankError: When the error itself could not travel.
    """
    cause = RemoteTraceback(f"Traceback on {where}:\n{facts['traceback']}")
    if not payload:
        raise RankError(
            "work that runs to its end",
            f"{facts['text']} from {where}",
            "The traceback above shows the line.",
        ) from cause
    error: BaseException = pickle.loads(payload)
    error.add_note(f"Raised by {where}.")
    raise error from cause
