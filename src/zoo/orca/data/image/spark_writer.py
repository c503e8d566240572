"""Chunks written by Spark tasks, all at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from zoo.cluster.session import active_session
from zoo.errors import ClusterError, InputError, ZooError
from zoo.orca.data.image.chunk_file import Record, check_block_size, write_chunk
from zoo.orca.data.image.dataset_folder import chunk_name
from zoo.orca.data.image.publish import published, should_write
from zoo.orca.data.image.schema import Schema, check_schema, encode
from zoo.orca.data.storage import local_path

__all__ = ["cut", "write_parts"]

logger = logging.getLogger(__name__)

Part = TypeVar("Part")
_FAILED = "_failed"


class _Written(NamedTuple):
    """What a task tells the driver: its rows, or why it has none."""

    rows: int
    error: ZooError | None = None


def cut(count: int, block_size: int) -> list[slice]:
    """Return the slices that cut `count` records into blocks; the last may be shorter.

    Raises:
        InputError: There is nothing to cut, or the block size is not a positive number.
    """
    check_block_size(block_size)
    if count < 1:
        raise InputError("at least one record", "none", "Check the input.")
    return [slice(at, min(at + block_size, count)) for at in range(0, count, block_size)]


def write_parts(
    path: str,
    parts: Sequence[Part],
    records_of: Callable[[Part], Iterable[Record]],
    *,
    schema: Schema,
    write_mode: str,
) -> None:
    """Write a dataset with one Spark task for each chunk.

    Tasks make the records where they run: only the parts travel. On a cluster of several hosts
    what the parts name, and the output, must be on storage that all hosts and the driver share.

    Args:
        path: The folder that the dataset will be.
        parts: What the chunks are made of, such as file names; one part makes one chunk.
        records_of: A function that Spark can send to its workers, from a part to its records.
        schema: The columns.
        write_mode: "overwrite", "error" or "errorifexists", or "ignore".

    Raises:
        InputError: A record cannot be written, or the path cannot be used.
        ClusterError: No Spark session is active, or tasks and driver see different storage.
    """
    check_schema(schema)
    target = local_path(path)
    if not should_write(target, write_mode):
        return
    context = active_session().sparkContext
    with published(target, write_mode, encode(schema)) as draft:
        task = partial(_write_part, draft, schema, records_of)
        numbered = list(enumerate(parts))
        written = context.parallelize(numbered, len(numbered)).map(task).collect()
        for result in written:
            if result.error is not None:
                raise result.error
        _check_shared(draft, len(parts))
    rows = sum(result.rows for result in written)
    logger.info("wrote %d records in %d chunks to %s", rows, len(parts), target)


def _write_part(
    draft: Path,
    schema: Schema,
    records_of: Callable[[Part], Iterable[Record]],
    numbered: tuple[int, Part],
) -> _Written:
    index, part = numbered
    failed = draft / _FAILED
    if not draft.is_dir():
        return _Written(0, _not_shared(f"a task that does not find {draft}"))
    if failed.exists():
        return _Written(0)
    try:
        return _Written(write_chunk(draft / chunk_name(index), schema, records_of(part)))
    except ZooError as exc:
        # A bad record stays bad: Spark need not retry it, nor write the chunks that still wait.
        failed.touch()
        return _Written(0, exc)


def _check_shared(draft: Path, chunks: int) -> None:
    for index in range(chunks):
        if not (draft / chunk_name(index)).is_dir():
            raise _not_shared(f"{chunk_name(index)} written where the driver does not see it")


def _not_shared(received: str) -> ClusterError:
    return ClusterError(
        "an output folder on storage that all hosts share",
        received,
        "Write to a folder that every host mounts.",
    )
