"""A piece of a JSON file as a frame. Values keep the type that they have in JSON."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from zoo.errors import InputError
from zoo.orca.data.pandas.columns import choose_columns
from zoo.orca.data.pandas.csv_text import Look
from zoo.orca.data.pandas.json_keywords import JsonKeywords
from zoo.orca.data.pandas.kinds import Kind, finished, kind_of
from zoo.orca.data.pandas.packing import packing
from zoo.orca.data.pandas.pieces import Lead, Piece

__all__ = ["JsonRecords", "JsonText"]

_BOM = b"\xef\xbb\xbf"


def _unzipped(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        (name,) = archive.namelist()
        return archive.read(name)


_UNPACK: Mapping[Any, Callable[[bytes], bytes]] = {
    None: lambda data: data,
    "bz2": bz2.decompress,
    "gzip": gzip.decompress,
    "xz": lzma.decompress,
    "zip": _unzipped,
}


@dataclass(frozen=True)
class JsonRecords:
    """Each line of JSON is a record, unless the file holds one list."""

    lines: bool | None

    def lead(self, head: bytes) -> Lead | None:
        """See `Records`."""
        in_list = head.removeprefix(_BOM).lstrip().startswith(b"[")
        return Lead() if self.lines or not in_list else None

    def open_at_end(self, data: bytes, inside: bool) -> bool | None:
        """See `Records`: a text in JSON holds no line break as such."""
        return False

    def first_end(self, data: bytes) -> int | None:
        """See `Records`."""
        return None


@dataclass(frozen=True)
class JsonText:
    """How to read pieces of JSON files."""

    keywords: JsonKeywords

    def look(self, pieces: Sequence[Piece]) -> list[Look]:
        """See what columns there are, and what they hold; pieces without a record say nothing.

        Raises:
            InputError: A piece does not hold JSON records.
        """
        looks = []
        for piece in pieces:
            records = self._records(piece)
            if records:
                names = tuple(dict.fromkeys(name for record in records for name in record))
                kinds = [_kind([record.get(name) for record in records]) for name in names]
                if self.keywords.schema is None:
                    # Only a schema makes dates of texts.
                    kinds = [Kind.OBJECTS if kind is Kind.DATES else kind for kind in kinds]
                looks.append(Look(piece.file, names, tuple(kinds)))
        return looks

    def read(
        self, pieces: Sequence[Piece], kinds: Mapping[str, Kind], texts: Collection[str]
    ) -> Any:
        """Read pieces into one frame.

        Args:
            pieces: Neighbours.
            kinds: The columns, and what they hold in all pieces.
            texts: Those whose values become text, whatever they are.
        """
        names = list(kinds)
        choice = choose_columns(names, self.keywords.columns)
        records = [record for piece in pieces for record in self._records(piece)]
        columns: dict[int, pd.Series[Any]] = {}
        for at, position in enumerate(choice.positions):
            name = names[position]
            values = [record.get(name) for record in records]
            if at in choice.texts or name in texts:
                values = [None if value is None else _text(value) for value in values]
            kind = Kind.OBJECTS if at in choice.wanted else kinds[name]
            columns[at] = _column(values, kind)
        return choice(pd.DataFrame(columns, index=pd.RangeIndex(len(records))))

    def _records(self, piece: Piece) -> list[dict[str, Any]]:
        text = self._decoded(piece)
        lines = self.keywords.lines
        if lines is None:
            lines = piece.start > 0 or not text.lstrip().startswith("[")
        try:
            if lines:
                found = [json.loads(line) for line in text.split("\n") if line.strip()]
            else:
                found = json.loads(text) if text.strip() else []
        except ValueError as exc:
            raise self._odd(piece, lines, str(exc)) from None
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise self._odd(piece, lines, "other values")
        return found

    def _decoded(self, piece: Piece) -> str:
        with piece.open() as stream:
            data = stream.read()
        packed = packing(piece.file, self.keywords.compression) if piece.stop is None else None
        if packed not in _UNPACK:
            raise InputError(
                f"compression as one of {', '.join(filter(None, _UNPACK))}",
                repr(packed),
                "Unpack the file, or set OrcaContext.pandas_read_backend = 'pandas'.",
            )
        try:
            return _UNPACK[packed](data).decode(self.keywords.encoding, self.keywords.errors)
        except UnicodeError as exc:
            encoding = self.keywords.encoding.removesuffix("-sig")
            raise InputError(
                f"text in {encoding}", f"{piece.file} ({exc})", "Say the encoding."
            ) from exc
        except (EOFError, OSError, ValueError, lzma.LZMAError, zipfile.BadZipFile) as exc:
            raise InputError("a packed file", f"{piece.file} ({exc})", "Check the file.") from exc

    def _odd(self, piece: Piece, lines: bool, received: str) -> InputError:
        return InputError(
            "a JSON object on each line" if lines else "one list of JSON objects",
            f"{received} in {piece.file}",
            f"Check the file, or try lines={not lines}; for other forms of JSON set "
            "OrcaContext.pandas_read_backend = 'pandas'.",
        )


def _kind(values: Sequence[Any]) -> Kind:
    known = [value for value in values if value is not None]
    kinds = set(map(type, known))
    if not known:
        return Kind.MISSING
    if kinds == {int}:
        low, high = min(known), max(known)
        if high < 1 << 63 and low >= -(1 << 63):
            whole = Kind.INTS if low < 0 else Kind.NATURALS
            return whole if len(known) == len(values) else Kind.WHOLES
        fits = low >= 0 and high < 1 << 64 and len(known) == len(values)
        return Kind.LARGE if fits else Kind.OBJECTS
    if kinds <= {int, float}:
        return Kind.REALS
    return kind_of(pd.Series(values, dtype=object))


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _column(values: list[Any], kind: Kind) -> pd.Series[Any]:
    if kind is Kind.REALS:
        return pd.Series(np.array(values, dtype="float64"))
    return finished(pd.Series(values, dtype=object), kind)
