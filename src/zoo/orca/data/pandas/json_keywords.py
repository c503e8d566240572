"""The keywords of pandas' `read_json`, as the spark backend takes them."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zoo.errors import InputError
from zoo.orca.data.pandas.keywords import ColumnKeywords, column_keywords, refuse_unknown

__all__ = ["JsonKeywords", "json_keywords"]

_KNOWN = frozenset(
    {"compression", "dtype", "encoding", "encoding_errors", "index_col", "lines", "names"}
    | {"orient", "recursiveFileLookup", "schema", "squeeze", "usecols"}
)
_PANDAS_ONLY = frozenset(
    {"chunksize", "convert_axes", "convert_dates", "date_unit", "dtype_backend", "engine"}
    | {"keep_default_dates", "nrows", "precise_float", "storage_options", "typ"}
)


@dataclass(frozen=True)
class JsonKeywords:
    """What the caller asked for.

    Args:
        lines: Whether there is an object on each line; None if each file is to tell.
        columns: Which columns, in what form.
        schema: The columns and their types, or None.
        encoding: That of the text.
        errors: What becomes of bytes that are not of the encoding, as Python names it.
        compression: How the files are packed, or "infer".
    """

    lines: bool | None
    columns: ColumnKeywords
    schema: Any
    encoding: str
    errors: str
    compression: Any

    @property
    def cuttable(self) -> bool:
        """Whether a line break is one byte, and lies between two records."""
        return self.lines is not False and codecs.lookup(self.encoding).name.startswith("utf-8")


def json_keywords(keywords: Mapping[str, Any]) -> JsonKeywords:
    """Check the keywords of a call.

    Raises:
        InputError: A keyword is unknown, its value is not one that it can have, or only the
            pandas backend takes it.
    """
    refuse_unknown(keywords, _KNOWN, _PANDAS_ONLY)
    given = dict(keywords)
    lines, orient = given.get("lines"), given.get("orient")
    if lines not in (None, True, False):
        raise InputError("lines True or False", repr(lines), "Choose one of them.")
    # With lines pandas takes both for the same.
    if orient not in (None, "records") and not (lines and orient == "columns"):
        raise InputError(
            "orient='records'",
            repr(orient),
            "Set OrcaContext.pandas_read_backend = 'pandas' for the others.",
        )
    if isinstance(given.get("dtype"), bool):
        # Whether pandas is to look for numbers in texts; here values keep their type.
        del given["dtype"]
    encoding = given.get("encoding") or "utf-8"
    try:
        codecs.lookup(encoding)
    except (LookupError, TypeError) as exc:
        raise InputError("an encoding that Python knows", repr(encoding), "Name one.") from exc
    return JsonKeywords(
        lines,
        column_keywords(given),
        given.get("schema"),
        "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding,
        given.get("encoding_errors") or "strict",
        given.get("compression", "infer"),
    )
