"""The keywords of pandas' `read_csv`, as the spark backend takes them."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from zoo.errors import ContractError, InputError
from zoo.orca.data.pandas.keywords import (
    ColumnKeywords,
    character,
    column_keywords,
    refuse_unknown,
)

__all__ = ["CsvKeywords", "csv_keywords"]

_OURS = frozenset({"delimiter", "header", "sep"})
_COLUMNS = frozenset({"dtype", "index_col", "names", "squeeze", "usecols"})
_PARSER = frozenset(
    {"comment", "compression", "decimal", "doublequote", "encoding", "encoding_errors"}
    | {"escapechar", "false_values", "float_precision", "keep_default_na", "lineterminator"}
    | {"na_filter", "na_values", "on_bad_lines", "quotechar", "quoting", "skip_blank_lines"}
    | {"skipinitialspace", "skiprows", "thousands", "true_values"}
)
# Of how pandas works, not of what it reads; and `recursiveFileLookup`, which the listing takes.
_NO_MATTER = frozenset({"cache_dates", "low_memory", "memory_map", "recursiveFileLookup"})
# Each with the one value that says what is done anyway.
_ONLY = {"mangle_dupe_cols": True, "multiLine": True, "parse_dates": False}
_PANDAS_ONLY = frozenset(
    {"chunksize", "converters", "date_format", "date_parser", "dayfirst", "delim_whitespace"}
    | {"dialect", "dtype_backend", "engine", "infer_datetime_format", "iterator"}
    | {"keep_date_col", "nrows", "skipfooter", "storage_options", "verbose"}
)


@dataclass(frozen=True)
class CsvKeywords:
    """What the caller asked for.

    Args:
        sep: What separates the values: a character, or a pattern.
        header: 0 when the first line of each file names the columns, None when it is data.
        columns: Which columns, in what form.
        parser: What pandas' parser is given besides.
    """

    sep: str = ","
    header: Literal[0] | None = 0
    columns: ColumnKeywords = field(default_factory=ColumnKeywords)
    parser: Mapping[str, Any] = field(default_factory=dict)

    @property
    def wide(self) -> bool:
        """Whether the encoding has several bytes for each character."""
        name = codecs.lookup(self.parser.get("encoding", "utf-8")).name
        return name.startswith(("utf-16", "utf-32"))


def csv_keywords(keywords: Mapping[str, Any]) -> CsvKeywords:
    """Check the keywords of a call.

    Raises:
        InputError: A keyword is unknown, its value is not one that it can have, or only the
            pandas backend takes it.
        ContractError: `mangle_dupe_cols` is not True, or `parse_dates` not False.
    """
    rest = dict(keywords)
    for name, value in _ONLY.items():
        _only(rest, name, value)
    refuse_unknown(rest, _OURS | _COLUMNS | _PARSER | _NO_MATTER, _PANDAS_ONLY)
    rest = {name: value for name, value in rest.items() if name not in _NO_MATTER | _PANDAS_ONLY}
    columns = column_keywords(given := dict(rest))
    if rest.get("index_col") is False:
        # To pandas it says that a value too many at the end of all lines is no index.
        given["index_col"] = False
    sep = _separator(given)
    return CsvKeywords(
        sep, _header(given.pop("header", "infer"), columns.names), columns, _parser(given)
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


def _separator(keywords: dict[str, Any]) -> str:
    found = [keywords.pop(name) for name in ("sep", "delimiter") if name in keywords]
    given = [one for one in found if one is not None]
    if len(given) > 1 or (found and not given):
        raise InputError("one sep", f"{found}", "Give sep or delimiter, not both, and not None.")
    sep = given[0] if given else ","
    if not isinstance(sep, str) or not sep:
        raise InputError("sep as the text between two values", repr(sep), "Give one, such as ';'.")
    if len(sep) == 1 or sep == r"\s+":
        return sep
    try:
        # pandas takes longer ones for patterns. One that matches nothing at all, like "||", would
        # cut between any two letters, so it is meant as it stands.
        return re.escape(sep) if re.match(sep, "") else sep
    except re.error:
        return re.escape(sep)


def _parser(keywords: dict[str, Any]) -> dict[str, Any]:
    for name in ("comment", "escapechar", "lineterminator", "quotechar"):
        character(name, keywords.get(name))
    # None is a value of this one only: the file is not packed, whatever its name says.
    given = {n: value for n, value in keywords.items() if value is not None or n == "compression"}
    try:
        codecs.lookup(given.get("encoding", "utf-8"))
    except (LookupError, TypeError) as exc:
        raise InputError(
            "an encoding that Python knows", f"{given['encoding']!r} ({exc})", "Say 'utf-16', say."
        ) from exc
    if "on_bad_lines" in given and given["on_bad_lines"] not in ("error", "skip", "warn"):
        raise InputError(
            "on_bad_lines 'error', 'warn' or 'skip'", repr(given["on_bad_lines"]), "Choose one."
        )
    return given
