"""Which partition a value belongs to: the same in every process, and for equal values of any type.

Python's own hash of text differs between processes, and pandas' hashes 1 and 1.0 apart.
"""

from __future__ import annotations

import datetime as dt
import math
import numbers
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
from pandas.util import hash_array

from zoo.errors import InputError

__all__ = ["partition_of_values"]

_MISSING = 0
_WORD = (1 << 64) - 1


def partition_of_values(values: pd.Series[Any], count: int) -> np.ndarray:
    """The partition of each value.

    Equal values get the same one: 1, 1.0 and True; a text in any dtype; dates of any resolution.
    None, NaN, NaT and NA are equal here.

    Args:
        values: Numbers, text, bytes, booleans, dates, or tuples of them.
        count: How many partitions there are.

    Raises:
        InputError: A value is something else.
    """
    return (_hashes(values) % np.uint64(count)).astype(np.int64)


def _hashes(values: pd.Series[Any]) -> np.ndarray:
    missing = values.isna().to_numpy(dtype=bool)
    if isinstance(values.dtype, pd.CategoricalDtype):
        of_category = _hashes(values.cat.categories.to_series())
        codes = values.cat.codes.to_numpy()
        hashes = np.append(of_category, np.uint64(_MISSING))[codes]
    else:
        hashes = np.full(len(values), _MISSING, dtype=np.uint64)
        hashes[~missing] = _hashes_of_present(values[~missing])
    hashes[missing] = _MISSING
    return hashes


def _hashes_of_present(values: pd.Series[Any]) -> np.ndarray:
    kind = getattr(values.dtype, "kind", "O")
    if kind in "biu":
        whole = values.to_numpy(dtype=np.uint64 if kind == "u" else np.int64)
        return hash_array(whole.view(np.uint64))
    if kind == "f":
        return hash_array(_float_words(values.to_numpy(dtype=np.float64)))
    if kind in "Mm":
        return hash_array(_seconds(values).view(np.uint64))
    cells = values.to_numpy(dtype=object)
    if all(type(cell) is str for cell in cells):
        return hash_array(hash_array(cells))
    return hash_array(np.array([_word(cell) for cell in cells], dtype=np.uint64))


def _float_words(values: np.ndarray) -> np.ndarray:
    """Whole numbers as the integers they equal, others as the bits of a double."""
    words = values.view(np.uint64).copy()
    whole = np.floor(values) == values
    for kind, low, high in ((np.int64, -(2.0**63), 2.0**63), (np.uint64, 2.0**63, 2.0**64)):
        fits = whole & (values >= low) & (values < high)
        words[fits] = values[fits].astype(kind).view(np.uint64)
    return words


def _seconds(values: pd.Series[Any]) -> np.ndarray:
    """Whole seconds: resolutions differ, and values of one second may share a partition."""
    plain = values.dt.tz_convert(None) if getattr(values.dt, "tz", None) is not None else values
    kind = "timedelta64[s]" if plain.dtype.kind == "m" else "datetime64[s]"
    return plain.to_numpy().astype(kind).astype(np.int64)


def _word(cell: Any) -> int:
    """64 bits for one value of any kind; equal values give equal bits."""
    if isinstance(cell, str | bytes):
        return int(hash_array(np.array([cell], dtype=object))[0])
    # Before numbers: numpy counts its timedelta64 among them.
    if isinstance(cell, dt.date | dt.timedelta | np.datetime64 | np.timedelta64):
        return _time_word(cell)
    if isinstance(cell, numbers.Number | np.bool_):
        return _number_word(cell)
    if isinstance(cell, tuple):
        return _sequence_word(cell)
    raise InputError(
        "values of numbers, text, bytes, booleans, dates, or tuples of them in the column",
        f"{type(cell).__module__}.{type(cell).__qualname__}",
        "Add a column with such values, and partition by it.",
    )


def _time_word(cell: Any) -> int:
    if isinstance(cell, dt.timedelta | np.timedelta64):
        seconds = np.timedelta64(cell, "us").astype("timedelta64[s]")
    else:
        if isinstance(cell, dt.datetime) and cell.tzinfo is not None:
            cell = cell.astimezone(dt.UTC).replace(tzinfo=None)
        seconds = np.datetime64(cell, "us").astype("datetime64[s]")
    return int(seconds.astype(np.int64)) & _WORD


def _number_word(cell: Any) -> int:
    if isinstance(cell, complex | np.complexfloating):
        return _sequence_word((cell.real, cell.imag)) if cell.imag else _number_word(cell.real)
    number: Any = cell if isinstance(cell, numbers.Rational | Decimal) else float(cell)
    finite = isinstance(number, numbers.Rational) or math.isfinite(number)
    if finite and number == int(number) and -(2**63) <= number < 2**64:
        return int(number) & _WORD
    try:
        return int(np.float64(float(number)).view(np.uint64))
    except OverflowError:  # a whole number beyond all floats
        return int(number) & _WORD


def _sequence_word(cells: Sequence[Any]) -> int:
    word = len(cells)
    for cell in cells:
        missing = pd.api.types.is_scalar(cell) and pd.isna(cell)
        word = (word * 1_000_003 ^ (_MISSING if missing else _word(cell))) & _WORD
    return word
