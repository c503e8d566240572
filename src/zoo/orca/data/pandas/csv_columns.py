"""Which columns of a CSV file the shards have, under which names and types. No Spark in here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from zoo.errors import InputError
from zoo.orca.data.pandas.csv_keywords import CsvKeywords

__all__ = ["ColumnChoice", "choose_columns", "distinct_names"]

# Names of types that Spark knows and pandas does not, or takes for something else.
_SPARK_TYPES = {
    "bigint": "int64",
    "boolean": "bool",
    "date": "datetime64[ns]",
    "integer": "int64",
    "smallint": "int16",
    "timestamp": "datetime64[ns]",
    "tinyint": "int8",
}
_TEXTS = (str, object, "str", "string", "object", "O", "U", np.str_)


@dataclass(frozen=True)
class ColumnChoice:
    """The columns of the shards; a function, for tasks, that finishes the frame of a partition.

    Args:
        positions: Where in the file the columns are, in the order of the file.
        names: Their names.
        texts: Positions whose values stay the text that they are in the file.
        dtypes: The type that the caller wants, by position in the result.
        index: Names of the columns that become the index.
        squeeze: Make a Series of a single column.
    """

    positions: tuple[int, ...]
    names: tuple[str, ...]
    texts: frozenset[int]
    dtypes: Mapping[int, Any]
    index: tuple[str, ...] = ()
    squeeze: bool = False

    def __call__(self, frame: pd.DataFrame) -> Any:
        """Give a frame its names, types and index.

        Raises:
            InputError: A value cannot become the type that was asked for.
        """
        if self.dtypes:
            columns = [frame.iloc[:, i] for i in range(frame.shape[1])]
            for at, dtype in self.dtypes.items():
                columns[at] = _converted(columns[at], dtype, self.names[at])
            frame = pd.DataFrame(dict(enumerate(columns)), index=frame.index)
        frame.columns = pd.Index(self.names, dtype=object)
        if self.index:
            frame = frame.set_index(list(self.index))
        return frame.squeeze("columns") if self.squeeze else frame


def distinct_names(header: Sequence[str | None]) -> list[str]:
    """Names as pandas makes them of a header: the second `a` is `a.1`, none is `Unnamed: 3`.

    Example:
        >>> distinct_names(["a", "a", ""])
        ['a', 'a.1', 'Unnamed: 2']
    """
    plain = [name or f"Unnamed: {at}" for at, name in enumerate(header)]
    given, seen = set(plain), set[str]()
    names = []
    for name in plain:
        number, new = 0, name
        while new in seen or (number and new in given):
            number += 1
            new = f"{name}.{number}"
        seen.add(new)
        names.append(new)
    return names


def choose_columns(header: Sequence[str], keywords: CsvKeywords) -> ColumnChoice:
    """Apply names, usecols, dtype and index_col to the columns of a file.

    Args:
        header: The columns of the file: distinct names, or numbers as text without a header.
        keywords: What the caller asked for; names as a list.

    Raises:
        InputError: The keywords do not fit the columns, or each other.
    """
    positions, names = _named(header, keywords)
    dtypes = _dtypes(header, positions, names, keywords.dtype)
    texts = {positions[at] for at, dtype in dtypes.items() if _is_text(dtype)}
    wanted = {at: _dtype(dtype) for at, dtype in dtypes.items() if not _is_text(dtype)}
    return ColumnChoice(
        tuple(positions),
        tuple(names),
        frozenset(texts),
        wanted,
        tuple(_index_name(one, names) for one in keywords.index_col),
        keywords.squeeze,
    )


def _named(header: Sequence[str], keywords: CsvKeywords) -> tuple[list[int], list[str]]:
    new = list(keywords.names or ())
    covers = len(new) == len(header)
    known = new if covers else list(header)
    if keywords.usecols is None:
        if new and not covers:
            raise InputError(
                f"names for the {len(header)} columns of the file",
                f"{len(new)} names: {', '.join(map(str, new))}",
                "Name all columns, or choose some of them with usecols.",
            )
        return list(range(len(header))), known
    positions = _used(known, keywords.usecols)
    if new and not covers:
        if len(new) != len(positions):
            raise InputError(
                f"as many names as usecols ({len(positions)}) or as columns ({len(header)})",
                f"{len(new)} names. Passed names did not match usecols",
                "Change one of them.",
            )
        return positions, new
    return positions, [known[at] for at in positions]


def _used(known: Sequence[str], usecols: Any) -> list[int]:
    if callable(usecols):
        positions = [at for at, name in enumerate(known) if usecols(name)]
    else:
        places = {name: at for at, name in enumerate(known)}
        places.update({at: at for at in range(len(known))})  # type: ignore[misc]
        missing = [one for one in usecols if one not in places]
        if missing:
            raise InputError(
                f"usecols among the columns {', '.join(map(str, known))}",
                f"missing columns: {', '.join(map(str, missing))}",
                "Check names, separator and header.",
            )
        positions = sorted({places[one] for one in usecols})
    if not positions:
        raise InputError("at least one column", "usecols that take none", "Change usecols.")
    return positions


def _dtypes(
    header: Sequence[str], positions: Sequence[int], names: Sequence[Any], dtype: Any
) -> dict[int, Any]:
    """The wanted types by position in the result."""
    if dtype is None:
        return {}
    if not isinstance(dtype, Mapping):
        return dict.fromkeys(range(len(names)), dtype)
    found = {}
    for key, value in dtype.items():
        by_position = isinstance(key, int) and key not in names
        places: Sequence[object] = positions if by_position else names
        if key not in places:
            kind = "index" if by_position else ""
            said = f"column {kind} to be set type".replace("  ", " ")
            raise InputError(
                f"dtype of the columns {', '.join(map(str, names))}",
                f"{key!r}: {said} is not in current dataframe",
                f"Positions are those in the file, which has {len(header)} columns.",
            )
        found[places.index(key)] = value
    return found


def _is_text(dtype: object) -> bool:
    if isinstance(dtype, np.dtype):
        return dtype.kind in "OU"
    return any(dtype is one or (isinstance(one, str) and dtype == one) for one in _TEXTS)


def _dtype(dtype: Any) -> Any:
    name = _SPARK_TYPES.get(dtype, dtype) if isinstance(dtype, str) else dtype
    try:
        return pd.api.types.pandas_dtype(name)
    except TypeError as exc:
        raise InputError(
            "dtype as pandas names it", repr(dtype), "Write 'int64', 'float64' or str, say."
        ) from exc


def _converted(column: pd.Series[Any], dtype: Any, name: str) -> pd.Series[Any]:
    numpy_kind = dtype.kind if isinstance(dtype, np.dtype) else ""
    if numpy_kind in "iub" and numpy_kind and column.isna().any():
        raise _cannot(name, dtype, "a missing value", "Use float64, or 'Int64'.")
    try:
        result = column.astype(dtype)
        # Plain casts cut fractions off, and wrap numbers that are too large.
        exact = numpy_kind not in tuple("iu") or bool((result == column.astype(float)).all())
    except (TypeError, ValueError, OverflowError) as exc:
        raise _cannot(
            name, dtype, str(exc), "Check the values, or read the column as str."
        ) from exc
    if not exact:
        raise _cannot(name, dtype, "a value that would change", "Use a wider type.")
    return result


def _cannot(name: str, dtype: object, received: str, remedy: str) -> InputError:
    return InputError(f"values of column {name!r} that fit {dtype}", received, remedy)


def _index_name(one: int | str, names: Sequence[Any]) -> Any:
    if one in names:
        return one
    if isinstance(one, int) and -len(names) <= one < len(names):
        return names[one]
    raise InputError(
        f"index_col among the columns {', '.join(map(str, names))}", repr(one), "Name one of them."
    )
