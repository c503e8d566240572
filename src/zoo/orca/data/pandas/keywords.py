"""The keywords that both `read_csv` and `read_json` take; and how readers refuse unknown ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from zoo.errors import InputError

__all__ = ["ColumnKeywords", "character", "column_keywords", "refuse_unknown"]

# What Spark's readers, or memory, call a keyword of pandas.
_MEANT = {
    "charset": "encoding",
    "columns": "names",
    "delim": "sep",
    "escape": "escapechar",
    "ignoreLeadingWhiteSpace": "skipinitialspace",
    "inferSchema": "dtype",
    "lineSep": "lineterminator",
    "mode": "on_bad_lines",
    "multiLine": "lines",
    "nanValue": "na_values",
    "nullValue": "na_values",
    "quote": "quotechar",
    "schema": "names",
    "separator": "sep",
    "types": "dtype",
}


@dataclass(frozen=True)
class ColumnKeywords:
    """Which columns the caller wants, in what form.

    Args:
        names: New names, or a schema in Spark's DDL.
        usecols: Positions or names of the wanted columns, or a function that tells by name.
        dtype: A type for all columns, or a mapping from name or position.
        index_col: Names or positions of the columns that become the index.
        squeeze: Make a Series of a single column.
    """

    names: tuple[Any, ...] | str | None = None
    usecols: Any = None
    dtype: Any = None
    index_col: tuple[int | str, ...] = ()
    squeeze: bool = False


def column_keywords(keywords: dict[str, Any]) -> ColumnKeywords:
    """Take the keywords of columns out of all keywords.

    Raises:
        InputError: A value is not one that the keyword can have.
    """
    return ColumnKeywords(
        names=_names(keywords.pop("names", None)),
        usecols=_usecols(keywords.pop("usecols", None)),
        dtype=keywords.pop("dtype", None),
        index_col=_index_col(keywords.pop("index_col", None)),
        squeeze=bool(keywords.pop("squeeze", False)),
    )


def refuse_unknown(
    keywords: Mapping[str, Any], known: Collection[str], other: Collection[str] = ()
) -> None:
    """Refuse keywords that are not known, whatever their value says, and tell which are.

    Args:
        keywords: What the caller gave.
        known: What there is.
        other: Keywords that only the pandas backend takes; None and False ask for nothing.

    Raises:
        InputError: One is there.
    """
    given = [name for name in keywords if name not in known]
    pandas_only = [name for name in given if name in other]
    asked = [
        name for name in pandas_only if not (keywords[name] is None or keywords[name] is False)
    ]
    unknown = [name for name in given if name not in pandas_only]
    if unknown:
        near = {name: _nearest(name, [*known, *other]) for name in unknown}
        meant = [f"{name} -> {found}" for name, found in near.items() if found]
        raise InputError(
            f"keywords of {', '.join(sorted({*known, *other}))}",
            f"unknown ones: {', '.join(unknown)}",
            f"Perhaps meant: {', '.join(meant)}." if meant else "Leave them out.",
        )
    if asked:
        raise InputError(
            "keywords that the spark backend knows",
            ", ".join(asked),
            "Leave them out, or set OrcaContext.pandas_read_backend = 'pandas'.",
        )


def _nearest(name: str, known: Collection[str]) -> str | None:
    plain = {one.lower().replace("_", ""): one for one in [*_MEANT, *known]}
    found = get_close_matches(name.lower().replace("_", ""), plain, 1)
    near = plain[found[0]] if found else None
    meant = _MEANT.get(near or "", near)
    return meant if meant in known else None


def character(name: str, value: object) -> str | None:
    """A keyword that is one character.

    Raises:
        InputError: It is not.
    """
    if value is not None and (not isinstance(value, str) or len(value) != 1):
        raise InputError(f"{name} as one character", repr(value), "Give one, such as '#'.")
    return value


def _names(names: object) -> tuple[str, ...] | str | None:
    if names is None or isinstance(names, str):
        return names
    if isinstance(names, (set, frozenset, Mapping)) or not hasattr(names, "__iter__"):
        received = type(names).__name__
        raise InputError("names as a list, or a schema as text", received, "Give a list.")
    listed = tuple(names)
    twice = sorted({str(name) for name in listed if listed.count(name) > 1})
    if twice:
        raise InputError("names that differ", f"duplicates: {', '.join(twice)}", "Rename them.")
    return listed


def _usecols(usecols: Any) -> Any:
    if usecols is None or callable(usecols):
        return usecols
    listed = tuple(usecols) if hasattr(usecols, "__iter__") and not isinstance(usecols, str) else ()
    for kind in (int, str):
        if listed and all(isinstance(one, kind) and one is not True for one in listed):
            return listed
    raise InputError(
        "usecols as a list of positions, a list of names, or a function of a name",
        repr(usecols),
        "Use one kind for all columns.",
    )


def _index_col(index_col: object) -> tuple[int | str, ...]:
    if index_col is None or index_col is False:
        return ()
    listed = tuple(index_col) if isinstance(index_col, (list, tuple)) else (index_col,)
    if any(not isinstance(one, (int, str)) or isinstance(one, bool) for one in listed):
        raise InputError("index_col as a name or a position", repr(index_col), "Give one.")
    return listed
