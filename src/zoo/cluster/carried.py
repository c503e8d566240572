"""Errors that cross from a rank or a task to the driver, as their own type."""

from __future__ import annotations

import pickle
import traceback
from typing import Any, NoReturn

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
        The pickled error, and its text and traceback. The first is empty when the error cannot
        travel, and for what is no `Exception`: a `SystemExit` of a rank must not end the driver.
    """
    facts = {
        "text": f"{type(error).__name__}: {error}",
        "traceback": "".join(traceback.format_exception(error)),
    }
    if not isinstance(error, Exception):
        return b"", facts
    # As it is; else without its constructor, which may ask for other arguments; else only its
    # message, when what it carries cannot be pickled.
    kind, message = type(error), str(error)
    for form in (error, (kind, error.args, vars(error)), (kind, (message,), {})):
        try:
            payload: bytes = cloudpickle.dumps(form)
            again = _unpacked(payload)
        except Exception:  # noqa: BLE001 - pickling runs code of the user's objects
            continue
        if type(again) is kind and str(again) == message:
            return payload, facts
    return b"", facts


def _unpacked(payload: bytes) -> Exception:
    form: Any = pickle.loads(payload)
    if isinstance(form, Exception):
        return form
    kind, args, state = form
    error: Exception = kind.__new__(kind, *args)
    vars(error).update(state)
    return error


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
    try:
        error = _unpacked(payload) if payload else None
    except Exception:  # noqa: BLE001 - its class may exist on the executors only
        error = None
    if error is None:
        raise RankError(
            "work that runs to its end",
            f"{facts['text']} from {where}",
            "The traceback above shows the line.",
        ) from cause
    error.add_note(f"Raised by {where}.")
    raise error from cause
