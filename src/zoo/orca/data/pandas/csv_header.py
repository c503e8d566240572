"""The first line of CSV files, read on the driver: what the columns are, and whether files agree.

Spark puts values under columns by their position only. A file with other columns, or the same in
another order, would give wrong rows without a word, so it is refused before anything is read.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from zoo.errors import InputError
from zoo.orca.data.pandas.csv_keywords import CsvKeywords
from zoo.orca.data.pandas.hadoop_place import HadoopPlace, head_bytes

__all__ = ["FirstLine", "first_line", "first_lines"]

_FIRST, _MOST = 64 << 10, 16 << 20
_THREADS = 16
# Endings of the formats that Spark unpacks and the standard library does not.
_OTHER_PACKED = (".deflate", ".lz4", ".snappy", ".zst", ".zstd")
_SEPARATOR = "\x1f"


class FirstLine(NamedTuple):
    """The first line of a file that is neither blank nor a comment.

    Attributes:
        values: What stands in it: nothing when the file has no such line, None when it cannot be
            read here and Spark has to be asked.
        text: The line as it is.
    """

    values: tuple[str, ...] | None
    text: str = ""


_UNREADABLE = FirstLine(None)


def first_lines(files: Sequence[Path | HadoopPlace], keywords: CsvKeywords) -> list[FirstLine]:
    """The first line of each file."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(lambda file: first_line(file, keywords), files))


def first_line(file: Path | HadoopPlace, keywords: CsvKeywords) -> FirstLine:
    """The first line of a file that is neither blank nor a comment.

    Raises:
        InputError: The file is no text, or not in the encoding that is said.
    """
    if file.name.endswith(_OTHER_PACKED) or keywords.option("lineSep"):
        return _UNREADABLE
    size = _FIRST
    while True:
        data = head_bytes(file, size)
        whole = len(data) < size
        text = _text(_unpacked(data, file), file, keywords)
        found = _first(text, keywords, whole)
        if found is not None:
            return found
        if whole or size >= _MOST:
            return FirstLine(()) if whole else _UNREADABLE
        size *= 8


def _unpacked(data: bytes, file: Path | HadoopPlace) -> bytes:
    unpackers: dict[str, Callable[[], Any]] = {
        ".gz": lambda: zlib.decompressobj(31),
        ".bz2": bz2.BZ2Decompressor,
    }
    make = unpackers.get(Path(file.name).suffix)
    if make is None or not data:
        return data
    try:
        return bytes(make().decompress(data, _MOST))
    except (zlib.error, OSError) as exc:
        raise InputError("a packed file", f"{file} ({exc})", "Check the file.") from exc


def _text(data: bytes, file: Path | HadoopPlace, keywords: CsvKeywords) -> str:
    encoding = keywords.option("encoding", "charset")
    if encoding is None and b"\0" in data:
        raise InputError(
            "a text file",
            f"{file} with zero bytes in it",
            "Check the path, or say the encoding, such as encoding='UTF-16'.",
        )
    try:
        # The last character may be cut.
        return codecs.getincrementaldecoder(encoding or "utf-8-sig")().decode(data)
    except (UnicodeDecodeError, LookupError) as exc:
        raise InputError(
            f"text in {encoding or 'UTF-8'}",
            f"{file} ({exc})",
            "Say the encoding, such as encoding='ISO-8859-1'.",
        ) from exc


def _first(text: str, keywords: CsvKeywords, whole: bool) -> FirstLine | None:
    if not whole:
        text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1]
    lines = io.StringIO(text, newline="")
    # Without multiLine a quote that stays open ends with its line.
    several = keywords.option("multiLine") == "true"
    try:
        for line in [""] if several else lines:
            for values in _parsed(lines if several else [line], keywords):
                if _holds(values, keywords):
                    return FirstLine(tuple(values), line.rstrip("\r\n"))
    except csv.Error:
        return _UNREADABLE
    return None


def _holds(values: list[str], keywords: CsvKeywords) -> bool:
    comment = keywords.option("comment")
    blank = len(values) < 2 and not any(value.strip() for value in values)
    return not blank and not (comment and values[0].startswith(comment))


def _parsed(lines: Iterable[str], keywords: CsvKeywords) -> Iterator[list[str]]:
    sep = keywords.option("sep", "delimiter") or ","
    if len(sep) > 1:
        lines = (line.replace(sep, _SEPARATOR) for line in lines)
    quote, escape = keywords.option("quote"), keywords.option("escape")
    yield from csv.reader(
        lines,
        delimiter=sep if len(sep) == 1 else _SEPARATOR,
        quotechar=quote or None,
        quoting=csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE,
        escapechar=escape if quote and escape != quote else None,
        doublequote=escape == quote,
    )
