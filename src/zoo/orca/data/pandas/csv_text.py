"""A piece of a CSV file through pandas' own parser."""

from __future__ import annotations

import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import unquote

import pandas as pd

from zoo.errors import InputError
from zoo.orca.data.pandas.columns import ColumnChoice, cannot_fit, choose_columns
from zoo.orca.data.pandas.csv_keywords import CsvKeywords
from zoo.orca.data.pandas.kinds import Kind, finished, kind_of
from zoo.orca.data.pandas.packing import packing
from zoo.orca.data.pandas.pieces import Piece

__all__ = ["CsvText", "Look", "first_rows"]

_HEAD = 4096
_DEFAULT_PARTITION = "__HIVE_DEFAULT_PARTITION__"


class Look(NamedTuple):
    """What a piece says of the columns.

    Attributes:
        file: Where it comes from.
        header: The columns of the file.
        kinds: What the wanted ones hold.
    """

    file: str
    header: tuple[str, ...]
    kinds: tuple[Kind, ...]


def first_rows(data: bytes, keywords: CsvKeywords) -> int:
    """How many rows of values the first lines of a file hold; 0 as well if a record is cut."""
    try:
        return len(_parsed(io.BytesIO(data), keywords, compression=None))
    except ValueError:
        return 0


def _parsed(stream: Any, keywords: CsvKeywords, **more: Any) -> pd.DataFrame:
    given: dict[str, Any] = {**keywords.parser, **more}
    # The other parser of pandas is for patterns, and for marks of several bytes.
    marks = keywords.sep if keywords.sep != r"\s+" else " "
    c_parser = len(marks) == 1 and (marks + given.get("quotechar", "")).isascii()
    engine = {"engine": "c", "low_memory": False} if c_parser else {"engine": "python"}
    reader: Callable[..., pd.DataFrame] = pd.read_csv
    return reader(stream, sep=keywords.sep, header=keywords.header, **engine, **given)


@dataclass(frozen=True)
class CsvText:
    """How to read pieces of CSV files.

    Args:
        keywords: What the caller asked for.
        root: The folder whose subfolders are named `column=value`, if there is one.
    """

    keywords: CsvKeywords
    root: str | None = None

    def look(self, pieces: Sequence[Piece]) -> list[Look]:
        """See what columns there are, and what they hold; pieces without any line say nothing.

        Raises:
            InputError: A piece is not such a text, or the keywords do not fit it.
        """
        looks = []
        for piece in pieces:
            header = self._header(piece)
            if header is not None:
                choice = choose_columns(header, self.keywords.columns)
                frame = self._frame(piece, header, choice, {})
                kinds = [
                    Kind.NO_ROWS if at in choice.wanted else kind_of(frame.iloc[:, at])
                    for at in range(frame.shape[1])
                ]
                looks.append(Look(piece.file, header, tuple(kinds)))
        return looks

    def read(self, pieces: Sequence[Piece], header: tuple[str, ...], kinds: Sequence[Kind]) -> Any:
        """Read pieces into one frame.

        Args:
            pieces: Neighbours.
            header: The columns of the files.
            kinds: What the wanted ones hold in all pieces.
        """
        choice = choose_columns(header, self.keywords.columns)
        typed = {at: kind for at, kind in enumerate(kinds) if at not in choice.wanted}
        frames = [
            _typed(self._frame(piece, header, choice, typed), typed)
            for piece in pieces
            # A file without a line has no columns either.
            if self._header(piece) is not None
        ]
        if not frames:
            nothing = pd.DataFrame(columns=range(len(choice.names)), dtype=object)
            frames = [_typed(nothing, typed)]
        whole = frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)
        return choice(whole)

    def _header(self, piece: Piece) -> tuple[str, ...] | None:
        """The columns of the file of a piece; None if it has none."""
        # pandas ends values at such bytes, in silence.
        if not self._packing(piece) and not self.keywords.wide and b"\0" in piece.head(_HEAD):
            raise InputError(
                "a text file",
                f"{piece.file} with zero bytes in it",
                "Check the path, or say the encoding, such as encoding='utf-16'.",
            )
        try:
            frame = self._parse(piece, nrows=1)
        except pd.errors.EmptyDataError:
            return None
        except InputError:
            raise
        except (TypeError, ValueError) as exc:
            raise InputError(
                "keywords that fit each other and the file",
                f"{dict(self.keywords.parser)} for {piece.file} ({exc})",
                "See pandas.read_csv.",
            ) from exc
        return (*map(str, frame.columns), *self._folders(piece))

    def _folders(self, piece: Piece) -> dict[str, str]:
        if self.root is None or not piece.file.startswith(self.root):
            return {}
        parts = piece.file[len(self.root) :].split("/")[:-1]
        pairs = [part.partition("=") for part in parts]
        return {unquote(name): unquote(value) for name, equals, value in pairs if equals}

    def _frame(
        self,
        piece: Piece,
        header: Sequence[str],
        choice: ColumnChoice,
        typed: Mapping[int, Kind],
    ) -> pd.DataFrame:
        """The wanted columns of a piece."""
        folders = self._folders(piece)
        width = len(header) - len(folders)
        inside = [at for at, position in enumerate(choice.positions) if position < width]
        dtypes = {at: choice.parsed_as(at) for at in inside}
        dtypes |= {at: _parsed_as(kind) for at, kind in typed.items() if at in dtypes}
        more: dict[str, Any] = {}
        if self.keywords.columns.usecols is not None:
            # pandas passes over lines that are too long when it is given these.
            more["usecols"] = [choice.positions[at] for at in inside] or [0]
        native = [self._native(header, choice.positions[at]) for at in inside]
        if isinstance(marks := self.keywords.parser.get("na_values"), Mapping):
            # They go by the names that the caller gives, the parser by those of the file.
            known = dict(zip(choice.names, native, strict=False))
            more["na_values"] = {known.get(name, name): mark for name, mark in marks.items()}
        wanted = {name: dtypes[at] for name, at in zip(native, inside, strict=True) if dtypes[at]}
        try:
            frame = self._parse(piece, dtype=wanted or None, **more)
        except (ValueError, TypeError, OverflowError) as exc:
            if not isinstance(exc, InputError):
                self._blame(piece, header, choice, dtypes, exc)
            raise
        if not isinstance(frame.index, pd.RangeIndex):
            raise InputError(
                f"lines of {width} values, as the first line of {piece.file}",
                "more values, of which pandas would make an index",
                "Check the separator, name all columns, or pass index_col=False.",
            )
        frame = frame[native]
        for at in range(len(inside), len(choice.positions)):
            value = list(folders.values())[choice.positions[at] - width]
            text = at in choice.texts or typed.get(at) is Kind.OBJECTS
            frame.insert(at, f"/{at}", _folder_value(value, text), allow_duplicates=True)
        return frame

    def _native(self, header: Sequence[str], position: int) -> Any:
        return header[position] if self.keywords.header == 0 else position

    def _blame(
        self,
        piece: Piece,
        header: Sequence[str],
        choice: ColumnChoice,
        dtypes: Mapping[int, Any],
        error: Exception,
    ) -> None:
        """Find the column that does not fit its type: pandas does not tell."""
        for at in choice.wanted & dtypes.keys():
            position = choice.positions[at]
            wanted = {self._native(header, position): dtypes[at]}
            try:
                self._parse(piece, usecols=[position], dtype=wanted)
            except (ValueError, TypeError, OverflowError) as exc:
                shown = f"{exc} in {piece.file}"
                remedy = "Check the values, or read the column as str."
                raise cannot_fit(choice.names[at], dtypes[at], shown, remedy) from error

    def _packing(self, piece: Piece) -> Any:
        if piece.stop is not None or piece.lead.data:
            return None
        return packing(piece.file, self.keywords.parser.get("compression", "infer"))

    def _parse(self, piece: Piece, **more: Any) -> pd.DataFrame:
        compression = self._packing(piece)
        head = more.get("nrows") == 1
        with _explained(piece.file, self.keywords), piece.open(head=head) as stream:
            frame = _parsed(stream, self.keywords, **{**more, "compression": compression})
        return frame.iloc[piece.lead.rows :].reset_index(drop=True) if piece.lead.rows else frame


def _typed(frame: pd.DataFrame, kinds: Mapping[int, Kind]) -> pd.DataFrame:
    """The columns by their place, those of a known kind in its type."""
    columns = {at: frame.iloc[:, at] for at in range(frame.shape[1])}
    columns |= {at: finished(columns[at], kind) for at, kind in kinds.items()}
    return pd.DataFrame(columns)


def _parsed_as(kind: Kind) -> Any:
    if kind in (Kind.OBJECTS, Kind.DATES):
        return str
    return None if kind is Kind.SOME_BOOLS else kind.value


def _folder_value(value: str, text: bool) -> Any:
    """What the name of a folder says of a column, as a cell of a file would."""
    if value in ("", _DEFAULT_PARTITION):
        return float("nan")
    if text:
        return value
    cell = io.StringIO('"{}"'.format(value.replace('"', '""')))
    return pd.read_csv(cell, header=None).iloc[0, 0]


@contextmanager
def _explained(file: str, keywords: CsvKeywords) -> Iterator[None]:
    """Say of errors of the parser which file they are about."""
    encoding = keywords.parser.get("encoding", "UTF-8")
    try:
        yield
    except UnicodeError as exc:
        raise InputError(
            f"text in {encoding}",
            f"{file} ({exc})",
            "Say the encoding, such as encoding='ISO-8859-1'.",
        ) from exc
    except pd.errors.ParserError as exc:
        raise InputError(
            "CSV with the same number of values on each line",
            f"{file} ({str(exc).strip()})",
            "Check separator and quotes, or pass on_bad_lines='skip'.",
        ) from exc
    except (EOFError, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as exc:
        raise _not_packed(file, exc) from exc
    except OSError as exc:
        # What the unpackers raise has no number, unlike errors of the file system.
        if exc.errno is None:
            raise _not_packed(file, exc) from exc
        raise


def _not_packed(file: str, error: Exception) -> InputError:
    return InputError("a packed file", f"{file} ({error})", "Check the file, or say compression.")
