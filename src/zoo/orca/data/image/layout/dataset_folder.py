"""The layout of a dataset on disk, seen by those who read it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from zoo.errors import InputError
from zoo.orca.data.image.dataset_schema import SchemaField, decode
from zoo.orca.data.image.layout.manifest import MANIFEST, Manifest
from zoo.orca.data.storage import Location, is_local, locate

__all__ = [
    "FAILED",
    "METADATA",
    "QUARANTINE",
    "WRITING",
    "DatasetFolder",
    "chunk_name",
    "entry_names",
    "is_chunk",
    "is_dataset_entry",
    "open_dataset",
]

METADATA = "_orca_metadata"
QUARANTINE = "_quarantine"
"""The folder that lists bad input files."""
WRITING = "_zoo_writing"
"""The file that a folder has while a dataset is written into it."""

FAILED = "_zoo_failed"
"""The file by which a task tells the others to stop."""

_OWN = frozenset((METADATA, MANIFEST, QUARANTINE, WRITING, FAILED, "_SUCCESS"))
_CHUNK = re.compile(r"^chunk=(0|[1-9][0-9]*)$")


@dataclass(frozen=True)
class DatasetFolder:
    """A whole dataset: its place, its columns, and its chunk folders by their number.

    The manifest is None for datasets that other programs wrote.
    """

    path: Location
    schema: dict[str, SchemaField]
    chunks: tuple[Location, ...]
    manifest: Manifest | None = None


def chunk_name(index: int) -> str:
    """Return the folder name of a chunk."""
    return f"chunk={index}"


def is_chunk(name: str) -> bool:
    """Say whether a folder of this name is a chunk."""
    return bool(_CHUNK.match(name))


def is_dataset_entry(name: str) -> bool:
    """Say whether a file or folder of this name is part of a dataset, or a trace of Hadoop's."""
    return is_chunk(name) or name in _OWN or name.endswith(".crc")


def entry_names(folder: Location) -> list[str]:
    """Return the names of what lies in a folder, in no special order."""
    if is_local(folder):
        return os.listdir(str(folder))
    return [entry.name for entry in folder.iterdir()]


def open_dataset(path: str | os.PathLike[str]) -> DatasetFolder:
    """Find the parts of a dataset, on any file system.

    Raises:
        InputError: There is no whole dataset at the path: no folder, an unfinished write, a chunk
            or a file that is lost or has another size than its manifest says.
    """
    folder = locate(path)
    if not folder.is_dir():
        raise InputError("the folder of a dataset", str(folder), "Check the path.")
    names = entry_names(folder)
    if METADATA not in names:
        raise InputError(
            f"a dataset, with its file {METADATA}",
            f"{folder}, which has none: an unfinished write, or another kind of folder",
            "Write it again with write_parquet.",
        )
    schema = decode(_read_text(folder / METADATA).strip())
    chunks = _chunks(folder, names)
    manifest = _manifest(folder) if MANIFEST in names else None
    if manifest is not None:
        _check_files(folder, manifest, len(chunks))
    return DatasetFolder(folder, schema, chunks, manifest)


def _read_text(file: Location) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise InputError("text", f"{file} with other bytes", "Write the dataset again.") from exc


def _chunks(folder: Location, names: list[str]) -> tuple[Location, ...]:
    matches = (_CHUNK.match(name) for name in names)
    found = sorted(int(match.group(1)) for match in matches if match)
    if not found or found != list(range(len(found))):
        missing = min(set(range(len(found) + 1)) - set(found))
        raise InputError(
            f"chunk folders from {chunk_name(0)} on, without a gap",
            f"{folder}, which has {len(found)} and lacks {chunk_name(missing)}",
            "Copy or write the dataset again.",
        )
    return tuple(folder / chunk_name(index) for index in found)


def _manifest(folder: Location) -> Manifest:
    try:
        return Manifest.decode(_read_text(folder / MANIFEST))
    except InputError as exc:
        received = f"{exc.received} in {folder / MANIFEST}"
        raise InputError(exc.expected, received, exc.remedy) from exc


def _check_files(folder: Location, manifest: Manifest, chunks: int) -> None:
    listed = {file.path.split("/")[0] for file in manifest.files}
    if listed != {chunk_name(index) for index in range(chunks)}:
        raise InputError(
            f"the {len(listed)} chunks that {MANIFEST} lists",
            f"{folder} with {chunks} chunks",
            "Copy or write the dataset again.",
        )
    if not is_local(folder):
        return  # each size would be a request; readers check what they open
    for file in manifest.files:
        size = _size(os.path.join(str(folder), file.path))
        if size != file.bytes:
            raise InputError(
                f"{file.bytes} bytes in {folder / file.path}",
                "no file" if size is None else f"{size} bytes",
                "The file was damaged or replaced: copy or write the dataset again.",
            )


def _size(path: str) -> int | None:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return None
