"""The keywords of pandas' `read_csv`, checked and told apart from those that are Spark's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from zoo.errors import ContractError, InputError

__all__ = ["CsvKeywords", "csv_keywords", "refuse_pandas_only"]

# What pandas does with these changes the rows, and Spark would pass over the names in silence.
_PANDAS_ONLY = frozenset(
    {"chunksize", "converters", "date_format", "date_parser", "dayfirst", "decimal"}
    | {"delim_whitespace", "dialect", "doublequote", "dtype_backend", "false_values", "iterator"}
    | {"keep_default_na", "lineterminator", "na_values", "nrows", "on_bad_lines", "schema"}
    | {"skip_blank_lines", "skipfooter", "skipinitialspace", "skiprows", "thousands"}
    | {"true_values"}
)


@dataclass(frozen=True)
class CsvKeywords:
    """What the caller asked for.

    Args:
        sep: What separates the values.
        header: 0 when the first line of each file names the columns, None when it is data.
        names: New names, or a schema in Spark's DDL.
        usecols: Positions or names of the wanted columns, or a function that tells by name.
        dtype: A type for all columns, or a mapping from name or position.
        index_col: Names or positions of the columns that become the index.
        squeeze: Make a Series of a single column.
        comment: First character of the lines to skip.
        quotechar: What encloses values that hold a separator.
        escapechar: What takes the meaning from the quote after it; None for a second quote.
        options: Spark's own.
    """

    sep: str = ","
    header: Literal[0] | None = 0
    names: tuple[str, ...] | str | None = None
    usecols: tuple[int, ...] | tuple[str, ...] | Callable[[str], bool] | None = None
    dtype: Any = None
    index_col: tuple[int | str, ...] = ()
    squeeze: bool = False
    comment: str | None = None
    quotechar: str = '"'
    escapechar: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def spark_options(self) -> dict[str, str]:
        """The options of Spark's reader."""
        given = {
            "sep": self.sep,
            "quote": self.quotechar,
            # Two quotes stand for one, as pandas has it; Spark's own choice is a backslash.
            "escape": self.escapechar or self.quotechar,
            "comment": self.comment,
            **self.options,
        }
        return {name: option_text(value) for name, value in given.items() if value is not None}

    def option(self, *names: str) -> str | None:
        """The text of one of Spark's options, under any of its names."""
        found = {name.lower(): text for name, text in self.spark_options.items()}
        return next((found[name.lower()] for name in names if name.lower() in found), None)


def option_text(value: object) -> str:
    """An option in the form that Spark's readers take."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def csv_keywords(keywords: Mapping[str, Any]) -> CsvKeywords:
    """Check the keywords of a call.

    Raises:
        InputError: A value is not one that the keyword can have, or only pandas knows the keyword.
        ContractError: `mangle_dupe_cols` is not True, or `parse_dates` not False.
    """
    rest = dict(keywords)
    _only(rest, "mangle_dupe_cols", True)
    _only(rest, "parse_dates", False)
    refuse_pandas_only(rest, _PANDAS_ONLY)
    names = _names(rest.pop("names", None))
    sep = rest.pop("sep", None) or rest.pop("delimiter", None) or ","
    return CsvKeywords(
        sep=_separator(sep),
        header=_header(rest.pop("header", "infer"), names),
        names=names,
        usecols=_usecols(rest.pop("usecols", None)),
        dtype=rest.pop("dtype", None),
        index_col=_index_col(rest.pop("index_col", None)),
        squeeze=bool(rest.pop("squeeze", False)),
        comment=_character("comment", rest.pop("comment", None)),
        quotechar=_character("quotechar", rest.pop("quotechar", None)) or '"',
        escapechar=_character("escapechar", rest.pop("escapechar", None)),
        options=rest,
    )


def refuse_pandas_only(keywords: Mapping[str, Any], names: frozenset[str]) -> None:
    """Refuse keywords that Spark's readers would pass over in silence.

    Raises:
        InputError: One is there, and is not None.
    """
    found = sorted(name for name in names & keywords.keys() if keywords[name] is not None)
    if found:
        raise InputError(
            "keywords that the spark backend knows",
            ", ".join(found),
            "Leave them out, or set OrcaContext.pandas_read_backend = 'pandas'.",
        )


def _only(keywords: dict[str, Any], name: str, value: bool) -> None:
    given = keywords.pop(name, value)
    if given is not value:
        raise ContractError(
            f"{name}={value}", repr(given), "The spark backend can do nothing else; leave it out."
        )


def _header(header: object, names: object) -> Literal[0] | None:
    if header == "infer":
        return 0 if names is None else None
    if header is None:
        return None
    if header == 0 and not isinstance(header, bool):
        return 0
    raise InputError("header 'infer', 0 or None", repr(header), "Choose one of them.")


def _separator(sep: object) -> str:
    if not isinstance(sep, str) or sep.startswith("\\s"):
        raise InputError(
            "sep as the text between two values",
            repr(sep),
            "Patterns are for OrcaContext.pandas_read_backend = 'pandas'.",
        )
    return sep


def _character(name: str, value: object) -> str | None:
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
