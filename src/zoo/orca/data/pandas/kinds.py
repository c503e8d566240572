"""What a column holds, so far as a piece of a file tells, and what all pieces make of it.

A column is to have one type in all shards: the one that pandas finds when it sees all values.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import types as T

from zoo.errors import InputError

__all__ = ["Kind", "finished", "kind_of", "schema_kinds", "settle", "unite"]

# A calendar day, and perhaps a time of day: nothing else is taken for a date.
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)?")


class Kind(Enum):
    """What the values of a column are."""

    NO_ROWS = "nothing"
    MISSING = "missing values"
    BOOLS = "bool"
    SOME_BOOLS = "bool with missing values"
    NATURALS = "int64, none negative"
    INTS = "int64"
    LARGE = "uint64"
    WHOLES = "whole numbers with missing values"
    REALS = "float64"
    DATES = "datetime64[ns]"
    OBJECTS = "object"


_INTS = {Kind.NATURALS, Kind.INTS}
_REALS = {*_INTS, Kind.WHOLES, Kind.REALS}
_BOOLS = {Kind.BOOLS, Kind.SOME_BOOLS}
_NOTHING = {Kind.NO_ROWS, Kind.MISSING}
_FITS: Mapping[Kind | None, set[Kind]] = {
    Kind.BOOLS: _NOTHING | _BOOLS,
    Kind.DATES: _NOTHING | {Kind.DATES},
    Kind.INTS: _NOTHING | _INTS | {Kind.WHOLES},
    Kind.REALS: _NOTHING | _REALS | {Kind.LARGE},
}
_DDL: Mapping[type[T.DataType], Kind] = {
    T.BooleanType: Kind.BOOLS,
    T.ByteType: Kind.INTS,
    T.DateType: Kind.DATES,
    T.DecimalType: Kind.REALS,
    T.DoubleType: Kind.REALS,
    T.FloatType: Kind.REALS,
    T.IntegerType: Kind.INTS,
    T.LongType: Kind.INTS,
    T.ShortType: Kind.INTS,
    T.StringType: Kind.OBJECTS,
    T.TimestampNTZType: Kind.DATES,
    T.TimestampType: Kind.DATES,
}


def kind_of(column: pd.Series[Any]) -> Kind:
    """What the values of a column are, as pandas has read them."""
    if not len(column):
        return Kind.NO_ROWS
    if column.isna().all():
        return Kind.MISSING
    if column.dtype == object:
        known = column.dropna()
        if all(isinstance(one, bool) for one in known):
            return Kind.SOME_BOOLS if len(known) < len(column) else Kind.BOOLS
        return Kind.DATES if _are_dates(known) else Kind.OBJECTS
    kind = column.dtype.kind
    if kind == "i":
        return Kind.INTS if (column < 0).any() else Kind.NATURALS
    if kind == "f":
        known = column.dropna()
        return Kind.WHOLES if (known == known.round()).all() else Kind.REALS
    return {"b": Kind.BOOLS, "u": Kind.LARGE}.get(kind, Kind.OBJECTS)


def _are_dates(known: pd.Series[Any]) -> bool:
    first = known.iloc[0]
    if not isinstance(first, str) or not _DATE.fullmatch(first):
        return False
    if not all(isinstance(one, str) and _DATE.fullmatch(one) for one in known):
        return False
    return bool(_dates(known).notna().all())


def _dates(texts: pd.Series[Any]) -> pd.Series[Any]:
    found = pd.to_datetime(texts, format="ISO8601", errors="coerce")
    return found.astype("datetime64[ns]")


def unite(kinds: Iterable[Kind]) -> Kind:
    """What values are that are of several kinds.

    Example:
        >>> unite([Kind.NATURALS, Kind.MISSING]).value
        'float64'
    """
    found = set(kinds) - {Kind.NO_ROWS}
    if not found:
        return Kind.OBJECTS
    missing = Kind.MISSING in found
    found -= {Kind.MISSING}
    if found <= _INTS and not missing:
        return Kind.INTS
    if found <= {Kind.NATURALS, Kind.LARGE} and not missing:
        return Kind.LARGE
    if found <= _REALS or (found <= {*_REALS, Kind.LARGE} and not found <= {*_INTS, Kind.LARGE}):
        return Kind.REALS
    if found <= _BOOLS:
        return Kind.BOOLS if found == {Kind.BOOLS} and not missing else Kind.SOME_BOOLS
    return Kind.DATES if found == {Kind.DATES} else Kind.OBJECTS


def finished(column: pd.Series[Any], kind: Kind) -> pd.Series[Any]:
    """Give a column of a piece the type that it has in all of them."""
    if kind is Kind.DATES:
        return _dates(column)
    wanted = np.dtype("object" if kind is Kind.SOME_BOOLS else kind.value)
    return column if column.dtype == wanted else column.astype(wanted)


def schema_kinds(schema: T.StructType) -> Mapping[str, Kind]:
    """The kinds of the columns of a schema.

    Raises:
        InputError: Two columns have one name, or a type has no counterpart.
    """
    kinds = {field.name: _DDL.get(type(field.dataType)) for field in schema}
    if len(kinds) < len(schema):
        twice = sorted({name for name in schema.names if schema.names.count(name) > 1})
        raise InputError("names that differ", f"duplicates: {', '.join(twice)}", "Rename them.")
    plain = {name: kind for name, kind in kinds.items() if kind is not None}
    if len(plain) < len(kinds):
        odd = ", ".join(sorted(kinds.keys() - plain.keys()))
        raise InputError(
            "a schema of numbers, texts, booleans, dates and times",
            f"other types for {odd}",
            "Leave the schema out: nested values come as they are.",
        )
    return plain


def settle(name: str, kinds: Collection[Kind], wanted: Kind | None) -> Kind:
    """The kind of a column of all pieces, of which the caller may have said what it is.

    Raises:
        InputError: Its values are something else.
    """
    odd = set(kinds) - _FITS[wanted] if wanted in _FITS else set()
    if wanted is not None and odd:
        raise InputError(
            f"values of column {name!r} that fit {wanted.value}, as the schema says",
            f"{' and '.join(sorted(kind.value for kind in odd))} among them",
            "Check the values and the schema.",
        )
    return unite(kinds if wanted is None else {*kinds, wanted})
