"""Where the records of CSV text end: a line break in quotes is none."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from zoo.orca.data.pandas.csv_keywords import CsvKeywords
from zoo.orca.data.pandas.csv_text import first_rows
from zoo.orca.data.pandas.pieces import Lead

__all__ = ["CsvRecords", "csv_records"]

# In these no other character has the byte of a line break, a quote or a separator in it.
_ONE_BYTE = ("ascii", "cp125", "iso8859", "koi8", "latin", "utf-8")
_MOST_LINES = 1000
# They change where a field, a line or a record ends.
_OTHER_RULES = ("comment", "escapechar", "skipinitialspace")


def csv_records(keywords: CsvKeywords) -> CsvRecords | None:
    """What tells the records of files that are read so; None if such files cannot be cut."""
    given = keywords.parser
    encoding = codecs.lookup(given.get("encoding") or "utf-8").name
    by_lines = isinstance(given.get("skiprows", 0), int) and "lineterminator" not in given
    if not encoding.startswith(_ONE_BYTE) or not by_lines:
        return None
    return CsvRecords(keywords)


@dataclass(frozen=True)
class CsvRecords:
    """The grammar of pandas' parser, as far as records go."""

    keywords: CsvKeywords

    @cached_property
    def _quote(self) -> bytes:
        given = self.keywords.parser
        return b"" if given.get("quoting") == 3 else given.get("quotechar", '"').encode()

    @cached_property
    def _simple(self) -> bool:
        """Whether quotes mean what they usually do."""
        given = self.keywords.parser
        plain = len(self.keywords.sep.encode()) == len(self._quote) == 1
        return plain and given.get("doublequote", True) and not any(map(given.get, _OTHER_RULES))

    @cached_property
    def _record(self) -> str:
        """A record without its line break, for `re`; it stops before quotes that stay open."""
        quote, sep = re.escape(self._quote.decode()), re.escape(self.keywords.sep)
        plain = rf"[^{sep}\r\n]*+"
        field = rf"(?:{quote}(?:[^{quote}]++|{quote}{quote})*+{quote}{plain}|(?!{quote}){plain})"
        return rf"(?:{field}{sep})*+{field}"

    def lead(self, head: bytes) -> Lead | None:
        """The lines through the first row of values."""
        lines = head.splitlines(keepends=True)
        first = self.keywords.parser.get("skiprows", 0) + 1
        # Whether the last line is whole is not known.
        for count in range(first, min(len(lines), first + _MOST_LINES)):
            data = b"".join(lines[:count])
            rows = data.endswith(b"\n") and first_rows(data, self.keywords)
            if rows:
                return Lead(data, rows)
        return None

    def open_at_end(self, data: bytes, inside: bool) -> bool | None:
        """See `Records`."""
        escape = str(self.keywords.parser.get("escapechar") or "").encode()
        if escape and escape in data:
            return None
        if not self._quote or (not inside and self._quote not in data):
            return inside
        if not self._simple:
            return None
        text = self._quote + data if inside else data
        clean, odd = _parity(text, self._quote[0], self.keywords.sep.encode()[0])
        if clean:
            return odd
        found = re.match(rf"(?:{self._record}[\r\n])*+{self._record}".encode(), text)
        return found is None or found.end() < len(text)

    def first_end(self, data: bytes) -> int | None:
        """See `Records`."""
        if not self._simple or self._quote not in data:
            return None
        found = re.match(rf"{self._record}(?:\r\n|\r|\n)".encode(), self._quote + data)
        return found.end() - 1 if found else None


def _parity(data: bytes, quote: int, sep: int) -> tuple[bool, bool]:
    """Whether all quotes stand at ends of fields or in pairs, and whether their number is odd.

    If they do, every second one closes what the one before has opened.
    """
    codes = np.frombuffer(data, np.uint8)
    at = np.flatnonzero(codes == quote)
    ends = np.zeros(256, bool)
    ends[[quote, sep, 10, 13]] = True
    opening, closing = at[::2], at[1::2]
    before = ends[codes[opening[opening > 0] - 1]]
    after = ends[codes[closing[closing < len(codes) - 1] + 1]]
    return bool(before.all() and after.all()), len(at) % 2 == 1
