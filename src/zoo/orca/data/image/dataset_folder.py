"""The layout of a dataset on disk, seen by those who read it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import InputError
from zoo.orca.data.image.schema import SchemaField, decode
from zoo.orca.data.storage import local_path

__all__ = ["METADATA", "DatasetFolder", "chunk_name", "is_dataset_entry", "open_dataset"]

METADATA = "_orca_metadata"
_CHUNK = re.compile(r"^chunk=(0|[1-9][0-9]*)$")


@dataclass(frozen=True)
class DatasetFolder:
    """A whole dataset: its place, its columns, and its chunk folders by their number."""

    path: Path
    schema: dict[str, SchemaField]
    chunks: tuple[Path, ...]


def chunk_name(index: int) -> str:
    """Return the folder name of a chunk."""
    return f"chunk={index}"


def is_dataset_entry(name: str) -> bool:
    """Say whether a file or folder of this name is part of a dataset, or a trace of Hadoop's."""
    return bool(_CHUNK.match(name)) or name in (METADATA, "_SUCCESS") or name.endswith(".crc")


def open_dataset(path: str | os.PathLike[str]) -> DatasetFolder:
    """Find the parts of a dataset.

    Raises:
        InputError: There is no whole dataset at the path.
    """
    folder = local_path(path)
    if not folder.is_dir():
        raise InputError("the folder of a dataset", str(folder), "Check the path.")
    metadata = folder / METADATA
    if not metadata.is_file():
        raise InputError(
            f"a dataset, with its file {METADATA}",
            f"{folder}, which has none: an unfinished write, or another kind of folder",
            "Write it again with write_parquet.",
        )
    schema = decode(metadata.read_text(encoding="utf-8").strip())
    return DatasetFolder(folder, schema, _chunks(folder))


def _chunks(folder: Path) -> tuple[Path, ...]:
    matches = (_CHUNK.match(entry.name) for entry in os.scandir(folder) if entry.is_dir())
    found = sorted(int(match.group(1)) for match in matches if match)
    if not found or found != list(range(len(found))):
        missing = min(set(range(len(found) + 1)) - set(found))
        raise InputError(
            f"chunk folders from {chunk_name(0)} on, without a gap",
            f"{folder}, which has {len(found)} and lacks {chunk_name(missing)}",
            "Copy or write the dataset again.",
        )
    return tuple(folder / chunk_name(index) for index in found)
