"""Which columns of a file the shards have, under which names and types. No Spark in here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from zoo.errors import InputError
from zoo.orca.data.pandas.keywords import ColumnKeywords

__all__ = ["ColumnChoice", "cannot_fit", "choose_columns"]

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
        texts: Places in the result whose values stay the text that they are in the file.
        dtypes: The other types that the caller wants, by place in the result.
        index: Names of the columns that become the index.
        squeeze: Make a Series of a single column.
    """

    positions: tuple[int, ...]
    names: tuple[str, ...]
    texts: frozenset[int]
    dtypes: Mapping[int, Any]
    index: tuple[str, ...] = ()
    squeeze: bool = False

    @property
    def wanted(self) -> frozenset[int]:
        """Places in the result of which the caller has said the type."""
        return self.texts | self.dtypes.keys()

    def parsed_as(self, place: int) -> Any:
        """The type as which pandas' parser is to read a column; None to let it find out."""
        if place in self.texts:
            return str
        dtype = self.dtypes.get(place)
        if not isinstance(dtype, np.dtype):
            return dtype
        if dtype.kind in "mM":
            return str
        # The parser wraps what is too large for a narrower one, in silence.
        return None if dtype.kind in "iu" and dtype != np.int64 else dtype

    def __call__(self, frame: pd.DataFrame) -> Any:
        """Give a frame its names, types and index.

        Raises:
            InputError: A value cannot become the type that was asked for.
        """
        columns = [frame.iloc[:, i] for i in range(frame.shape[1])]
        for at, dtype in self.dtypes.items():
            columns[at] = _converted(columns[at], dtype, self.names[at])
        frame = pd.DataFrame(dict(enumerate(columns)), index=frame.index)
        frame.columns = pd.Index(self.names, dtype=object)
        if self.index:
            frame = frame.set_index(list(self.index))
        return frame.squeeze("columns") if self.squeeze else frame


def choose_columns(header: Sequence[str], keywords: ColumnKeywords) -> ColumnChoice:
    """Apply names, usecols, dtype and index_col to the columns of a file.

    Args:
        header: The columns of the file: distinct names, or numbers as text without a header.
        keywords: What the caller asked for; names as a list.

    Raises:
        InputError: The keywords do not fit the columns, or each other.
    """
    positions, names = _named(header, keywords)
    dtypes = _dtypes(header, positions, names, keywords.dtype)
    texts = {at for at, dtype in dtypes.items() if _is_text(dtype)}
    wanted = {at: _dtype(dtype) for at, dtype in dtypes.items() if not _is_text(dtype)}
    return ColumnChoice(
        tuple(positions),
        tuple(names),
        frozenset(texts),
        wanted,
        tuple(_index_name(one, names) for one in keywords.index_col),
        keywords.squeeze,
    )


def _named(header: Sequence[str], keywords: ColumnKeywords) -> tuple[list[int], list[str]]:
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
    if column.dtype == dtype:
        return column
    numpy_kind = dtype.kind if isinstance(dtype, np.dtype) else ""
    if numpy_kind in "iub" and numpy_kind and column.isna().any():
        raise cannot_fit(name, dtype, "a missing value", "Use float64, or 'Int64'.")
    try:
        result = column.astype(dtype)
        # Plain casts cut fractions off, and wrap numbers that are too large.
        exact = numpy_kind not in tuple("iu") or bool((result == column.astype(float)).all())
    except (TypeError, ValueError, OverflowError) as exc:
        raise cannot_fit(
            name, dtype, str(exc), "Check the values, or read the column as str."
        ) from exc
    if not exact:
        raise cannot_fit(name, dtype, "a value that would change", "Use a wider type.")
    return result


def cannot_fit(name: object, dtype: object, received: str, remedy: str) -> InputError:
    """The error of a column whose values are not what the caller wants."""
    return InputError(f"values of column {name!r} that fit {dtype}", received, remedy)


def _index_name(one: int | str, names: Sequence[Any]) -> Any:
    if one in names:
        return one
    if isinstance(one, int) and -len(names) <= one < len(names):
        return names[one]
    raise InputError(
        f"index_col among the columns {', '.join(map(str, names))}", repr(one), "Name one of them."
    )
