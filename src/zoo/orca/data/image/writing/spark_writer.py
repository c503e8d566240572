"""Chunks written by Spark tasks, all at once."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException

from zoo.cluster.ranks.carried import carry, folded, raise_carried
from zoo.cluster.session.lifecycle import active_session
from zoo.errors import ClusterError, InputError
from zoo.orca.data.image.dataset_schema import Schema, check_schema, encode
from zoo.orca.data.image.layout.dataset_folder import (
    FAILED,
    WRITING,
    chunk_name,
    entry_names,
    is_chunk,
)
from zoo.orca.data.image.layout.quarantine import BadRecord
from zoo.orca.data.image.on_error import OnError
from zoo.orca.data.image.writing.chunk_file import (
    ChunkResult,
    Record,
    check_block_size,
    is_older,
    kept_chunk,
    write_chunk,
)
from zoo.orca.data.image.writing.fingerprint import fingerprint
from zoo.orca.data.image.writing.publish import published, should_write
from zoo.orca.data.image.writing.verify import Screening, Verify
from zoo.orca.data.image.writing.write_progress import watched
from zoo.orca.data.image.writing.write_summary import not_shared, write_manifest
from zoo.orca.data.storage import Location, locate

if TYPE_CHECKING:
    from pyspark import SparkContext

__all__ = ["cut", "write_parts"]

_log = logging.getLogger(__name__)

Part = TypeVar("Part")
# A task takes several chunks, as its start costs as much as some hundred small files; few enough
# that its list of files is small and that no core waits long for the last task.
_CHUNKS_PER_TASK = 16
_TASKS_PER_SLOT = 4


@dataclass(frozen=True)
class _Job(Generic[Part]):
    """What every task knows."""

    folder: Location
    schema: Schema
    records_of: Callable[[Part], Iterable[Record | BadRecord]]
    screening: Screening


class _Failure(NamedTuple):
    """An error on its way to the driver, as `carry` packs it."""

    payload: bytes
    facts: dict[str, str]
    where: str


def cut(count: int, block_size: int) -> list[slice]:
    """Return the slices that cut `count` records into blocks; the last may be shorter.

    Raises:
        InputError: There is nothing to cut, or the block size is not a positive number.
    """
    check_block_size(block_size)
    if count < 1:
        raise InputError("at least one record", "none", "Check the input.")
    return [slice(at, min(at + block_size, count)) for at in range(0, count, block_size)]


@folded
def write_parts(
    path: str | os.PathLike[str],
    parts: Sequence[Part],
    records_of: Callable[[Part], Iterable[Record | BadRecord]],
    *,
    schema: Schema,
    write_mode: str,
    on_error: OnError = "fail",
    verify: Verify = "header",
) -> None:
    """Write a dataset with Spark tasks, each of them some chunks.

    Tasks make the records where they run: only the parts travel. On a cluster of several hosts
    what the parts name, and the output, must be on storage that all hosts and the driver share.

    A write that was killed, or that ran into a full disk, goes on when it is called again with the
    same parts, settings and target: chunks that are whole stay, unless one of their image files
    has changed since, which is asked of local files only. That needs a `records_of` of this
    library, and parts of plain values.

    Args:
        path: The folder that the dataset will be.
        parts: What the chunks are made of, such as file names; one part makes one chunk.
        records_of: A function that Spark can send to its workers, from a part to its records; a
            `BadRecord` stands for one that cannot be made.
        schema: The columns.
        write_mode: "overwrite", "error" or "errorifexists", or "ignore".
        on_error: What becomes of bad image files: "fail", "skip" or "quarantine".
        verify: What is asked of image files: "none", "header" or "decode".

    Raises:
        InputError: A record cannot be written, or the path cannot be used.
        ClusterError: No Spark session is active, the job failed, or tasks and driver see different
            storage.
    """
    check_schema(schema)
    screening = Screening(on_error, verify)
    target = locate(path)
    if not should_write(target, write_mode):
        return
    context = active_session().sparkContext
    name = fingerprint(encode(schema), records_of, screening, items=parts)
    with published(target, write_mode, encode(schema), name) as folder:
        _say_resumed(folder, len(parts))
        job = _Job(folder, schema, records_of, screening)
        with watched(folder, len(parts)):
            results = _run(context, job, parts)
        write_manifest(folder, results, screening, name)
    _log.info("%s is written", target)


def _run(context: SparkContext, job: _Job[Part], parts: Sequence[Part]) -> list[ChunkResult]:
    numbered = list(enumerate(parts))
    tasks = min(len(parts), _TASKS_PER_SLOT * context.defaultParallelism)
    tasks = max(tasks, -(-len(parts) // _CHUNKS_PER_TASK))
    try:
        rdd = context.parallelize(numbered, tasks).mapPartitions(partial(_write_some, job))
        done = sorted(rdd.collect(), key=lambda numbered_result: numbered_result[0])
    except (Py4JError, PySparkException) as exc:
        raise ClusterError(
            "a Spark job that writes every chunk",
            f"one that failed ({type(exc).__name__})",
            "Look at the cause above, then call it again.",
        ) from exc
    results = []
    for _, result in done:
        if isinstance(result, _Failure):
            raise_carried(*result)
        results.append(result)
    return results


def _write_some(
    job: _Job[Part], numbered: Iterator[tuple[int, Part]]
) -> Iterator[tuple[int, ChunkResult | _Failure]]:
    failed = job.folder / FAILED
    for index, part in numbered:
        if failed.exists():
            return
        try:
            result = _write_one(job, index, part)
        except Exception as exc:  # noqa: BLE001 - goes to the driver, which raises it
            # It would fail again: Spark need not retry it, nor write the chunks that still wait.
            with contextlib.suppress(OSError):
                failed.touch()
            yield index, _Failure(*carry(exc), f"chunk {index}, {socket.gethostname()}")
            return
        yield index, result


def _write_one(job: _Job[Part], index: int, part: Part) -> ChunkResult:
    if not (job.folder / WRITING).exists():
        raise not_shared(f"a task that does not find {job.folder}")
    folder = job.folder / chunk_name(index)
    kept = kept_chunk(folder, job.screening)
    if kept is not None and not is_older(folder, job.schema, job.records_of(part)):
        return kept
    return write_chunk(folder, job.schema, job.records_of(part), job.screening)


def _say_resumed(folder: Location, chunks: int) -> None:
    there = sum(is_chunk(name) for name in entry_names(folder))
    if there:
        _log.info("resuming: %d of %d chunks are there", there, chunks)
