"""What crosses between driver and ranks: what the user gave, and errors as their own type."""

from __future__ import annotations

import logging
import pickle
import traceback
from typing import Any, NoReturn

import cloudpickle

from zoo.cluster.ranks.own_code import own_code_by_value
from zoo.errors import InputError, RankError

__all__ = ["RemoteTraceback", "carry", "pickled", "raise_carried", "said", "unpickled"]

_log = logging.getLogger(__name__)


class RemoteTraceback(Exception):  # noqa: N818 - it only carries text, as the cause of an error
    """The traceback where it happened, as text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def pickled(value: Any, what: str) -> bytes:
    """Pickle what the user gave, functions and classes of a script included.

    Raises:
        InputError: It cannot be pickled; names what and why.
    """
    try:
        blob: bytes = _with_code(value)
    except Exception as exc:  # pickling runs code of the user's objects
        raise InputError(
            f"{what} that can be sent to the ranks",
            f"one that cannot be pickled ({type(exc).__name__}: {exc})",
            "Open files, locks, connections and sessions inside the creator function instead.",
        ) from exc
    return blob


def unpickled(blob: bytes) -> Any:
    """What the driver has pickled for this rank.

    A rank is not interrupted in here: cloudpickle keeps the classes that it makes, and whoever came
    next in this process would get one without its methods.
    """
    return pickle.loads(blob)


def _with_code(value: Any) -> bytes:
    try:
        with own_code_by_value():
            return bytes(cloudpickle.dumps(value))
    except Exception as exc:  # noqa: BLE001 - pickling runs code of the user's objects
        # Code that uses what cannot travel, such as a lock of its module, may still go by its name.
        blob = bytes(cloudpickle.dumps(value))
        _log.warning(
            "modules of the program are imported where ranks run, and may be older there if they "
            "were edited meanwhile: they cannot travel (%s: %s)", type(exc).__name__, exc
        )  # fmt: skip
        return blob


def carry(error: BaseException) -> tuple[bytes, dict[str, str]]:
    """Pack an error for the way to the driver.

    Returns:
        The pickled error, and its text and traceback. The first is empty when the error cannot
        travel, and for what is no `Exception`: a `SystemExit` of a rank must not end the driver.
    """
    facts = {
        "text": said(error),
        "traceback": "".join(traceback.format_exception(error)),
    }
    if not isinstance(error, Exception):
        return b"", facts
    # As it is; else without its constructor, which may ask for other arguments; else only its
    # message, when what it carries cannot be pickled.
    kind, message = type(error), _message(error)
    for form in (error, (kind, error.args, vars(error)), (kind, (message,), {})):
        try:
            payload: bytes = cloudpickle.dumps(form)
            again = _unpacked(payload)
        except Exception:  # noqa: BLE001 - pickling runs code of the user's objects
            continue
        if type(again) is kind and _message(again) == message:
            return payload, facts
    return b"", facts


def said(error: BaseException) -> str:
    """Type and message of an error, also of one that cannot say it."""
    return f"{type(error).__name__}: {_message(error)}"


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as exc:  # noqa: BLE001 - code of the user's own error
        return f"(its text cannot be made: {type(exc).__name__})"


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
