"""What crosses between driver and ranks: what the user gave, and errors as their own type."""

from __future__ import annotations

import functools
import logging
import pickle
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn, ParamSpec, TypeVar

import cloudpickle

from zoo.cluster.ranks.own_code import own_code_by_value
from zoo.errors import InputError, RankError, ZooError

__all__ = [
    "carry",
    "folded",
    "lines_of",
    "note_of",
    "pickled",
    "raise_carried",
    "said",
    "unpickled",
]

_log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

# Code that lies between what the user wrote and where it is called, by module.
_BETWEEN = ("zoo.", "pyspark.", "torch.nn.modules.module.", "concurrent.futures.", "threading.")
_INSTALLED = ("<frozen ", *map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib")))
_CAUSES, _CAUSE = 3, 300
_CUT = 64 << 10


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


def carry(error: BaseException, limit: int | None = None) -> tuple[bytes, dict[str, str]]:
    """Pack an error for the way to the driver.

    Args:
        error: Any.
        limit: The most bytes of the packed error; a larger one travels with its text cut.

    Returns:
        The pickled error, and its text, the user's lines that led to it, and its whole traceback.
        The first is empty when the error cannot travel, and for what is no `Exception`: a
        `SystemExit` of a rank must not end the driver.
    """
    message = _message(error)
    facts = {
        "text": _cut(said(error)),
        "lines": _cut(lines_of(error)),
        "traceback": _cut("".join(traceback.format_exception(error))),
    }
    if not isinstance(error, Exception):
        return b"", facts
    # As it is; else without its constructor, which may ask for other arguments; else only its
    # message, when what it carries cannot be pickled or is too much.
    kind, notes = type(error), [_cut(str(note)) for note in getattr(error, "__notes__", [])]
    state = {"__notes__": notes} if notes else {}
    plain = [(kind, (text,), state) for text in (message, _cut(message))]
    for form in (error, (kind, error.args, vars(error)), *plain):
        try:
            payload: bytes = cloudpickle.dumps(form)
            again = _unpacked(payload)
        except Exception:  # noqa: BLE001 - pickling runs code of the user's objects
            continue
        if limit is not None and len(payload) > limit:
            continue
        if type(again) is kind and _message(again) in (message, _cut(message)):
            return payload, facts
    return b"", {**facts, "lines": "\n".join([*notes, facts["lines"]])}


def _cut(text: str) -> str:
    if len(text) <= _CUT:
        return text
    half = _CUT // 2
    return f"{text[:half]}\n... ({len(text) - _CUT} characters) ...\n{text[-half:]}"


def lines_of(error: BaseException) -> str:
    """Where in the user's code, or in what that calls, an error comes from; and what caused it.

    Of what we raise on purpose the message says it, and only lines of the user are told.
    """
    trace = error.__traceback__
    frames = list(zip(traceback.walk_tb(trace), traceback.extract_tb(trace), strict=True))
    kept = [line for (frame, _), line in frames if not _is_between(frame)]
    if isinstance(error, ZooError):
        return "".join(traceback.StackSummary.from_list(kept).format())
    text = "".join(traceback.StackSummary.from_list(kept or [f for _, f in frames]).format())
    causes = [said(cause) for cause in _causes(error)][:_CAUSES]
    return text + "".join(f"Caused by {cause[:_CAUSE]}\n" for cause in causes)


def note_of(where: str, lines: str) -> str:
    """What is added to an error that comes from elsewhere.

    Args:
        where: Rank or partition, and host.
        lines: From `lines_of`.
    """
    return f"Raised by {where}:\n{lines.rstrip()}" if lines.strip() else f"Raised by {where}."


def _is_between(frame: FrameType) -> bool:
    return _name(frame).startswith(_BETWEEN)


def _name(frame: FrameType) -> str:
    """The module of a frame, with a dot at the end."""
    return f"{frame.f_globals.get('__name__')}."


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen = {id(error)}
    while True:
        before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if before is None or id(before) in seen:
            return
        seen.add(id(before))
        error = before
        yield error


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
    """Raise a packed error: its own type and message, and notes that tell where it comes from.

    Args:
        payload: From `carry`. It must come from a task of ours: it is unpickled.
        facts: From `carry`.
        where: Rank or partition, and host.

    Raises:
        RankError: When the error itself could not travel.
    """
    _log.info("the whole traceback on %s:\n%s", where, facts["traceback"])
    try:
        error = _unpacked(payload) if payload else None
    except Exception:  # noqa: BLE001 - its class may exist on the executors only
        error = None
    note = note_of(where, facts["lines"])
    if error is None:
        error = RankError(
            "work that runs to its end", f"{facts['text']} from {where}",
            "The lines below show where.",
        )  # fmt: skip
    try:
        error.add_note(note)
    except Exception:  # noqa: BLE001 - an error may forbid that anything is set
        _log.warning("%s\n%s", facts["text"], note)
    raise error from None


def folded(call: Callable[P, T]) -> Callable[P, T]:
    """Leave the frames inside a call out of the tracebacks of errors that are no fault in here.

    Those are what ranks and tasks raised, whose notes say where; what we raise on purpose; and what
    the user's code raised, whose own frames stay.
    """

    @functools.wraps(call)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except Exception as exc:
            _fold(exc)
            raise

    return called


def _fold(error: Exception) -> None:
    traces = []
    trace = error.__traceback__
    while trace is not None:
        traces.append(trace)
        trace = trace.tb_next
    frames = [trace.tb_frame for trace in traces]
    ours = max(k for k, frame in enumerate(frames) if _name(frame).startswith("zoo."))
    own = any(not _is_installed(frame) for frame in frames[ours + 1 :])
    carried = frames[-1].f_code is raise_carried.__code__
    if not (carried or own or isinstance(error, ZooError)):
        return
    kept = [trace for trace in traces if not _is_between(trace.tb_frame)]
    for trace, after in zip(kept, [*kept[1:], None], strict=False):
        trace.tb_next = after
    error.__traceback__ = kept[0] if kept else None


def _is_installed(frame: FrameType) -> bool:
    """Whether code is Python's own or of an installed package, and not of the user's program."""
    return frame.f_code.co_filename.startswith(_INSTALLED)
