"""The name of a piece of work: the same for the same input and settings, in every process."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable
from enum import Enum
from functools import partial
from types import FunctionType
from typing import Any

import numpy as np
from upath import UPath

__all__ = ["fingerprint"]

_WRITERS = 1
"""Of our writers: raised when the same input comes to give other files."""


def fingerprint(*values: Any, items: Iterable[Any] = ()) -> str | None:
    """Return a text that stands for some values.

    Plain values, paths, arrays, dataclasses, enums and functions of this library have one. Other
    functions do not: their code may be another the next time.

    Args:
        *values: What the work depends on.
        items: The rest of it, taken one at a time, however many.

    Returns:
        32 hexadecimal digits, or None when a value cannot be told from others for sure.
    """
    digest = hashlib.sha256(f"writers {_WRITERS}".encode())
    try:
        for value in (values, *items):
            text = json.dumps(value, default=_describe, separators=(",", ":"))
            digest.update(text.encode() + b"\n")
    except (TypeError, ValueError):  # ValueError: a value that holds itself
        return None
    return digest.hexdigest()[:32]


def _describe(value: Any) -> Any:
    """Return plain values for one that JSON does not know."""
    if isinstance(value, partial):
        return ["partial", value.func, value.args, value.keywords]
    if isinstance(value, FunctionType) and _is_ours(value):
        return ["function", value.__module__, value.__qualname__]
    if isinstance(value, slice):
        return ["slice", value.start, value.stop, value.step]
    if isinstance(value, (os.PathLike, UPath)):
        return ["path", str(value)]
    if isinstance(value, Enum):
        return ["enum", str(value)]
    if isinstance(value, bytes):
        return ["bytes", hashlib.sha256(value).hexdigest()]
    if isinstance(value, np.generic):
        return ["number", str(value.dtype), value.item()]
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return ["array", str(value.dtype), value.shape, value.tobytes()]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return ["record", type(value).__qualname__, fields]
    raise TypeError(f"{type(value).__name__} cannot be told from others")


def _is_ours(function: FunctionType) -> bool:
    return function.__module__.startswith("zoo.") and function.__closure__ is None
