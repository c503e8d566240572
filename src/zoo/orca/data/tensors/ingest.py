"""Rows to shards: one ordinary job writes each partition as typed arrays on local disk.

The driver gets back one small row for each partition, never data. Cells that cannot become
numbers are counted by the tasks, and the sums become one error here.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from zoo.cluster.host import host_key, scratch_folder
from zoo.errors import ClusterError, InputError
from zoo.orca.data.tensors.flaws import Flaw, raise_flaws, raise_weightless, tell_remarks
from zoo.orca.data.tensors.ingested import Holding, Ingested, remove_named, sweep
from zoo.orca.data.tensors.kept import KeptShards
from zoo.orca.data.tensors.plan import TensorPlan
from zoo.orca.data.tensors.rows import Job, Pieces, Rows, TaskPlace
from zoo.orca.data.tensors.tensor_shard import (
    TensorShard,
    TensorWriter,
    remove_tensors,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

__all__ = ["Ingested", "forget_ingested", "ingest", "restore", "with_shards"]

_log = logging.getLogger(__name__)
# For how long, and how often, the files of a failed job's last tasks are looked for.
_LATE_S, _LOOK_S = 60.0, 1.0
_RESULT = (
    "shard long, rows long, host string, path string, bytes long, checksum long, layout string, "
    "flaws string, remarks string, failure string"
)
_kept = KeptShards()


def ingest(data: Rows | DataFrame, plan: TensorPlan, *, batch_size: int | None = None) -> Ingested:
    """Write the planned columns of some rows as shards, or find them written.

    Args:
        data: Rows, or any Spark DataFrame, however partitioned.
        plan: From `plan_columns` or `plan_shards`.
        batch_size: Refuse fewer rows than this; None takes any that has rows.

    Returns:
        The shards, to be released when they are used no more.

    Raises:
        ColumnError: Cells are null, ragged, not decodable or NaN labels, with their number.
        InputError: There are no rows, or fewer than a batch.
        ClusterError: Shards found no room.
    """
    source = data if isinstance(data, Rows) else _rows_of(data)
    _kept.drop_stale(source.application)
    blocks = source.held_as()
    if blocks is not None and (found := _kept.find(source, blocks, plan)):
        try:
            _require_rows(found.rows, batch_size)
        except InputError:
            found.release()
            raise
        return found
    start = time.perf_counter()
    job = source.job(plan, partial(write_partition, tensors=len(plan.tensors)), _RESULT)
    rows = _written(source, job)
    holding = Holding(source)
    holding.add(_shards(rows))
    try:
        _raise_failures(rows)
        raise_flaws(_flaws(rows, "flaws"))
        filled = [row for row in rows if row["rows"]]
        count = sum(row["rows"] for row in filled)
        _require_rows(count, batch_size)
        remarks = _flaws(rows, "remarks")
        raise_weightless(remarks, count)
        layout = _common_layout(plan, filled)
    except BaseException:
        holding.leave()
        raise
    tell_remarks(remarks, count)
    seconds = time.perf_counter() - start
    shards = _shards(filled)
    result = Ingested(plan.resolved(layout), shards, seconds, source.application, job, holding)
    if blocks is not None:
        _kept.add(source, blocks, plan, result)
    _log.info("ingested %d rows in %.2f s", result.rows, result.seconds)
    return result


def _rows_of(frame: DataFrame) -> Rows:
    # Not at the top: whoever brings rows of another kind may have no Spark.
    from zoo.orca.data.tensors.frame_rows import FrameRows

    return FrameRows(frame)


def forget_ingested(result: Ingested | None = None) -> None:
    """Let later fits write the rows of a result anew, or those of all."""
    _kept.forget(result)


def restore(
    source: Rows, result: Ingested, lost: Collection[int], *, exact: bool = True
) -> Ingested:
    """Write shards that are gone once more, from the rows that the source still knows how to make.

    Partitions whose shards are there are not read.

    Args:
        source: The rows that were ingested.
        result: Their shards.
        lost: The numbers (`TensorShard.index`) of those that are gone.
        exact: Refuse rows that are not the same, in the same order; else say so and go on.

    Returns:
        All shards, with the new places.

    Raises:
        InputError: A partition has other rows than before, so training cannot go on with it.
    """
    start = time.perf_counter()
    before = {s.index: s for s in result.shards if s.index in lost}
    if not before:
        return result
    rows = _written(source, result.job, only=frozenset(before))
    found = {s.index: s for s in _shards(rows)}
    result.holding.add(found.values())
    try:
        _raise_failures(rows)
        for index, old in before.items():
            _require_same(old, found.get(index), exact)
    except BaseException:
        for shard in found.values():
            remove_tensors(shard.path)
        raise
    done = with_shards(result, tuple(found.get(s.index, s) for s in result.shards))
    _log.warning(
        "%d lost shards were computed again in %.2f s", len(found), time.perf_counter() - start
    )
    return done


def _require_same(old: TensorShard, new: TensorShard | None, exact: bool) -> None:
    rows = new.rows if new is not None else 0
    if rows != old.rows:
        raise InputError(
            "the same rows when a partition is computed again",
            f"{rows} rows instead of {old.rows} in partition {old.index}",
            "Its source has changed, or its query gives another result each time: write the "
            "frame to Parquet before training, and read it from there.",
        )
    if new is None or new.checksum == old.checksum:
        return
    if exact:
        raise InputError(
            "the same rows in the same order when a partition is computed again",
            f"others in partition {old.index}, so some rows would be used twice in this epoch and "
            "others not at all",
            "Its query gives another result each time (a shuffle, rand() without a seed): write "
            "the frame to Parquet before training, and read it from there. To go on all the same, "
            "use Recovery(recomputed='any').",
        )
    _log.warning(
        "partition %d came back with its rows in another order, or with other values: in this "
        "epoch some of them may be used twice and others not at all. Write the frame to Parquet "
        "before training to be exact.",
        old.index,
    )


def with_shards(result: Ingested, shards: tuple[TensorShard, ...]) -> Ingested:
    """The same rows with other places of their shards; later fits find them there too."""
    done = result.moved(shards)
    _kept.update(done)
    return done


def _written(
    source: Rows, job: Job, *, only: frozenset[int] | None = None
) -> list[Mapping[str, Any]]:
    name = f"zoo-shards-{uuid.uuid4().hex[:12]}"
    try:
        rows = job.run(name, only)
    except BaseException:
        threading.Thread(target=_sweep_late, args=(source, name), daemon=True).start()
        raise
    return sorted(rows, key=lambda row: int(row["shard"]))


def write_partition(pieces: Pieces, place: TaskPlace, *, tensors: int) -> Iterator[pa.RecordBatch]:
    """The task: write one shard, give back the row that describes it.

    Args:
        pieces: The rows.
        place: Its word is the beginning of the file's name.
        tensors: How many there are.
    """
    # No folder around all of them: one that a late task makes again would stay.
    path = scratch_folder() / f"{place.word}-{place.partition}-{place.attempt}"
    rows, size, checksum, failure = 0, 0, 0, ""
    try:
        with TensorWriter(path, tensors) as writer:
            for arrays in pieces:
                writer.append(arrays)
        rows, size, checksum = writer.rows, writer.bytes, writer.checksum
    except ClusterError as exc:
        failure = json.dumps([exc.expected, exc.received, exc.remedy])
    if pieces.flaws:
        rows = 0
        remove_tensors(path)
    values = [
        place.partition, rows, host_key(), str(path) if rows else "", size, checksum,
        json.dumps([(t.dtype, t.shape) for t in pieces.tensors]),
        json.dumps([asdict(f) for f in pieces.flaws.values()]),
        json.dumps([asdict(f) for f in pieces.remarks.values()]),
        failure,
    ]  # fmt: skip
    names = [part.split()[0] for part in _RESULT.split(", ")]
    yield pa.RecordBatch.from_pydict({n: [v] for n, v in zip(names, values, strict=True)})


def _raise_failures(rows: Iterable[Mapping[str, Any]]) -> None:
    for row in rows:
        if row["failure"]:
            raise ClusterError(*json.loads(row["failure"]))


def _flaws(rows: Iterable[Mapping[str, Any]], field: str) -> list[Flaw]:
    return [Flaw(**f) for row in rows for f in json.loads(row[field])]


def _require_rows(rows: int, batch_size: int | None) -> None:
    if not rows:
        raise InputError(
            "rows to work on", "a frame with zero rows", "Check the filters and joins before it."
        )
    if batch_size is not None and rows < batch_size:
        raise InputError(
            f"at least one batch of {batch_size} rows",
            f"{rows} rows in all",
            f"Use batch_size={rows} or smaller, or more data.",
        )


def _common_layout(plan: TensorPlan, parts: Sequence[Any]) -> list[tuple[str, tuple[int, ...]]]:
    """The dtypes and shapes that all partitions found.

    Raises:
        ColumnError: Some found others than most rows have.
    """
    found = [[(d, tuple(s)) for d, s in json.loads(part["layout"])] for part in parts]
    layout = []
    for k, spec in enumerate(plan.tensors):
        rows: Counter[tuple[str, tuple[int, ...]]] = Counter()
        for one, part in zip(found, parts, strict=True):
            rows[one[k]] += part["rows"]
        (usual, _), *others = rows.most_common()
        if others:
            (other, _), column = others[0], next(c for c in spec.columns if c.shaped)
            at, what = (1, "shapes") if usual[1] != other[1] else (0, "dtypes")
            odd = sum(n for _, n in others)
            raise_flaws([Flaw(column.name, "ragged", odd, f"{what} {usual[at]} and {other[at]}")])
        layout.append(usual)
    return layout


def _shards(rows: Iterable[Mapping[str, Any]]) -> tuple[TensorShard, ...]:
    fields = ("shard", "rows", "host", "path", "bytes", "checksum")
    return tuple(TensorShard(*(row[name] for name in fields)) for row in rows if row["rows"])


def _sweep_late(source: Rows, name: str) -> None:
    """Remove what tasks of a failed job wrote, also after its end: Spark lets them run out."""
    roots = sweep(source, [name])
    end = time.monotonic() + _LATE_S
    while time.monotonic() < end:
        time.sleep(_LOOK_S)
        for root in roots:
            remove_named(Path(root), name)
