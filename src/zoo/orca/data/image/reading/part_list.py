"""The parquet files of a dataset and their rows, from its manifest or from their footers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from zoo.errors import InputError
from zoo.orca.data.image.layout.dataset_folder import DatasetFolder
from zoo.orca.data.image.reading.part_file import OpenPart, Part, open_part
from zoo.orca.data.storage import Location

__all__ = ["list_parts"]


def list_parts(dataset: DatasetFolder, chunks: Iterable[int]) -> list[Part]:
    """Return the files of some chunks, in order, with their rows.

    A manifest tells the rows; datasets without one have only the footers, so each is read.

    Args:
        dataset: The dataset.
        chunks: The numbers of the chunks.

    Raises:
        InputError: There is no manifest, and a file is missing, damaged or lacks a column.
    """
    if dataset.manifest is not None:
        return _listed(dataset, list(chunks))
    names = list(dataset.schema)
    return [part for chunk in chunks for part in _counted(dataset.chunks[chunk], names)]


def _listed(dataset: DatasetFolder, chunks: list[int]) -> list[Part]:
    by_chunk: dict[str, list[Part]] = {}
    assert dataset.manifest is not None
    for file in dataset.manifest.files:
        part = Part(dataset.path / file.path, file.rows, file.bytes, file.footer_crc)
        by_chunk.setdefault(file.path.split("/")[0], []).append(part)
    return [part for chunk in chunks for part in by_chunk.get(dataset.chunks[chunk].name, ())]


def _counted(chunk: Location, names: list[str]) -> Iterator[Part]:
    files = sorted(_parquet_files(chunk), key=lambda file: file.name)
    if not files:
        raise InputError("a chunk with records", f"{chunk} without any", "Write the dataset again.")
    for file in files:
        opened = open_part(Part(file))
        opened.check_columns(names)
        yield Part(file, opened.metadata.num_rows, groups=_whole_groups(opened))


def _whole_groups(opened: OpenPart) -> tuple[tuple[int, int], ...]:
    if opened.index is not None:
        return ()
    groups = (opened.metadata.row_group(n) for n in range(opened.metadata.num_row_groups))
    return tuple((group.num_rows, group.total_byte_size) for group in groups)


def _parquet_files(chunk: Location) -> Iterator[Location]:
    try:
        for entry in chunk.iterdir():
            if entry.name.endswith(".parquet") and not entry.name.startswith((".", "_")):
                yield entry
    except OSError as exc:
        raise InputError(
            "a chunk's folder", f"{chunk} ({exc})", "Write the dataset again."
        ) from exc
