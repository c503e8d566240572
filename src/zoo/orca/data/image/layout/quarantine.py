"""Bad input files of a write: a table of path and reason beside the dataset's chunks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from zoo.errors import InputError
from zoo.orca.data.image.layout.dataset_folder import QUARANTINE, chunk_name, open_dataset
from zoo.orca.data.storage import Location

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["BadRecord", "quarantine_file", "read_quarantine", "write_bad_records"]

_SCHEMA = pa.schema([("path", pa.string()), ("reason", pa.string())])


class BadRecord(NamedTuple):
    """Stands in a chunk's records for one that cannot be made.

    Attributes:
        path: Its image file.
        reason: What is wrong.
        error: Says it to who asked for an error, where more than the file is to blame.
    """

    path: str
    reason: str
    error: InputError | None = None


def quarantine_file(chunk: Location) -> Location:
    """Return the place where the bad files of a chunk folder are listed."""
    return chunk.parent / QUARANTINE / f"{chunk.name}.parquet"


def write_bad_records(stream: BinaryIO, bad: Sequence[BadRecord]) -> None:
    """Write bad records as a parquet file."""
    # The name of a file need not be text; what it was can still be seen.
    rows = ((one.path, one.reason) for one in bad)
    columns = [[_shown(text) for text in column] for column in zip(*rows, strict=True)]
    pq.write_table(pa.table(columns, schema=_SCHEMA), stream)


def read_quarantine(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Return the files that a write with `on_error="quarantine"` has left out.

    Args:
        path: The folder of the dataset.

    Returns:
        A frame with the columns `path` and `reason`, in the order of the input; empty when there
        was no bad file.

    Raises:
        InputError: There is no whole dataset at the path.
    """
    dataset = open_dataset(path)
    tables = [_SCHEMA.empty_table()]
    if (dataset.path / QUARANTINE).exists():
        for index in range(len(dataset.chunks)):
            place = dataset.path / QUARANTINE / f"{chunk_name(index)}.parquet"
            if place.exists():
                with place.open("rb") as stream:
                    tables.append(pq.read_table(stream))
    frame: pd.DataFrame = pa.concat_tables(tables).to_pandas()
    return frame


def _shown(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
