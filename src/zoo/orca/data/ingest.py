"""Frame to shards: one ordinary Spark job writes each partition as typed arrays on local disk.

The driver gets back one small row for each partition, never data. Cells that cannot become
numbers are counted by the tasks, and the sums become one error here.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark import TaskContext
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from zoo.cluster.host import host_key, scratch_root
from zoo.errors import ColumnError, InputError
from zoo.orca.data.decode import CellError, Flaw, decode_tensor
from zoo.orca.data.plan import TensorPlan, TensorSpec
from zoo.orca.data.shard import Shard, ShardWriter

__all__ = ["Ingested", "forget_ingested", "ingest", "raise_flaws"]

_log = logging.getLogger(__name__)
_RESULT = "shard long, rows long, host string, path string, bytes long, layout string, flaws string"


@dataclass(frozen=True)
class Ingested:
    """A frame as shards on the disks of the executors.

    Attributes:
        plan: The tensors, shapes and dtypes known.
        shards: One for each partition that has rows.
        seconds: What the Spark job took.
        application: The Spark application that owns them.
        kept: The frame is persisted in Spark, so later fits use these shards again.
    """

    plan: TensorPlan
    shards: tuple[Shard, ...]
    seconds: float
    application: str
    kept: bool = False

    @property
    def rows(self) -> int:
        """Rows in all shards."""
        return sum(s.rows for s in self.shards)

    @property
    def bytes(self) -> int:
        """Size of all shards on disk."""
        return sum(s.bytes for s in self.shards)

    def release(self) -> None:
        """Remove the shards that lie on this host, unless they are kept."""
        if not self.kept:
            _remove(self.shards)


# Shards of frames that Spark holds persisted: (frame, plan asked for, result). A handful at most.
_kept: list[tuple[DataFrame, TensorPlan, Ingested]] = []
_KEPT_FRAMES = 8


def ingest(frame: DataFrame, plan: TensorPlan, *, batch_size: int | None = None) -> Ingested:
    """Write the planned columns of a frame as shards, or find them written.

    Args:
        frame: Any Spark DataFrame, however it is partitioned.
        plan: From `plan_columns`.
        batch_size: Refuse a frame with fewer rows than this; None takes any that has rows.

    Raises:
        ColumnError: Cells are null, ragged, not decodable or NaN labels, with their number.
        InputError: The frame has no rows, or fewer than a batch.
    """
    _drop_stale(frame.sparkSession.sparkContext.applicationId)
    persisted = _is_persisted(frame)
    for held, asked, result in _kept if persisted else []:
        if asked == plan and held.sameSemantics(frame) and _readable(result):
            _require_rows(result.rows, batch_size)
            return result
    start = time.perf_counter()
    rows = _run(frame, plan)
    try:
        raise_flaws([Flaw(**f) for row in rows for f in json.loads(row["flaws"])])
        filled = [row for row in rows if row["rows"]]
        _require_rows(sum(row["rows"] for row in filled), batch_size)
        layouts = [[(d, tuple(s)) for d, s in json.loads(row["layout"])] for row in filled]
        _require_one_layout(plan, layouts, [row["rows"] for row in filled])
    except InputError:
        _remove(_shards(rows))
        raise
    result = Ingested(
        plan.resolved(layouts[0]),
        _shards(filled),
        time.perf_counter() - start,
        frame.sparkSession.sparkContext.applicationId,
        persisted,
    )
    if persisted:
        _kept.append((frame, plan, result))
        del _kept[:-_KEPT_FRAMES]
    _log.info("ingested %d rows in %.2f s", result.rows, result.seconds)
    return result


def forget_ingested(result: Ingested | None = None) -> None:
    """Drop kept shards: those of one result that turned out to be lost, or all."""
    for entry in [e for e in _kept if result is None or e[2] is result]:
        _kept.remove(entry)
        _remove(entry[2].shards)


def _run(frame: DataFrame, plan: TensorPlan) -> list[Any]:
    name = f"zoo-shards-{uuid.uuid4().hex[:12]}"

    def write(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return write_partition(batches, plan, name)

    columns = [frame[f"`{c}`"] for c in plan.columns]
    try:
        rows = frame.select(*columns).mapInArrow(write, _RESULT).collect()
    except BaseException:
        _sweep(name)
        raise
    return sorted(rows, key=lambda row: row["shard"])


def write_partition(
    batches: Iterable[pa.RecordBatch], plan: TensorPlan, name: str
) -> Iterator[pa.RecordBatch]:
    """The task: write one shard, give back the row that describes it."""
    task = TaskContext.get()
    assert task is not None
    folder = scratch_root() / name / f"{task.partitionId():06d}-{task.taskAttemptId()}"
    at = {c: i for i, c in enumerate(plan.columns)}
    places = [[at[c.name] for c in t.columns] for t in plan.tensors]
    flaws: dict[tuple[str, str], Flaw] = {}
    tensors, cut = list(plan.tensors), len(plan.features)
    with ShardWriter(folder, len(tensors)) as writer:
        for batch in batches:
            if not batch.num_rows:
                continue
            arrays = []
            for k, spec in enumerate(tensors):
                try:
                    arrays.append(
                        decode_tensor(spec, [batch.column(i) for i in places[k]], label=k >= cut)
                    )
                except CellError as exc:
                    _count(flaws, exc.flaw)
            if flaws:
                continue
            for k, array in enumerate(arrays):
                if tensors[k].shape is None or tensors[k].dtype is None:
                    tensors[k] = _settled(tensors[k], array)
            writer.append(arrays)
    rows = 0 if flaws else writer.rows
    if flaws:
        shutil.rmtree(folder, ignore_errors=True)
    values = [
        task.partitionId(), rows, host_key(), str(folder) if rows else "", writer.bytes,
        json.dumps([(t.dtype, t.shape) for t in tensors]),
        json.dumps([asdict(f) for f in flaws.values()]),
    ]  # fmt: skip
    names = [part.split()[0] for part in _RESULT.split(", ")]
    yield pa.RecordBatch.from_pydict({n: [v] for n, v in zip(names, values, strict=True)})


def _settled(spec: TensorSpec, array: np.ndarray) -> TensorSpec:
    return TensorSpec(spec.columns, array.dtype.name, array.shape[1:])


def _count(flaws: dict[tuple[str, str], Flaw], flaw: Flaw) -> None:
    key = (flaw.column, flaw.kind)
    before = flaws.get(key)
    rows, example = (before.rows, before.example) if before else (0, "")
    flaws[key] = Flaw(flaw.column, flaw.kind, rows + flaw.rows, example or flaw.example)


_FLAWS = {
    "null": ("no nulls", "null", "Fill or drop them: df.fillna(0, ['{c}']) or df.dropna()."),
    "nan": ("labels that are numbers", "NaN", "Drop them: df.dropna(subset=['{c}'])."),
    "ragged": (
        "one shape in all rows",
        "another shape",
        "Pad or cut the arrays to one length; for images give the decoder a size.",
    ),
    "inexact": (
        "whole numbers that the float type holds exactly",
        "larger values",
        "Keep them whole: decoders={{'{c}': 'int64'}}.",
    ),
    "undecodable": (
        "cells that the decoder can read",
        "undecodable bytes",
        "Remove those rows, or correct the decoder.",
    ),
}


def raise_flaws(flaws: Sequence[Flaw]) -> None:
    """Raise one error for what the tasks found.

    Raises:
        ColumnError: Naming the column with the most bad rows, the rows, and the remedy.
    """
    total: dict[tuple[str, str], Flaw] = {}
    for flaw in flaws:
        _count(total, flaw)
    if not total:
        return
    worst, *others = sorted(total.values(), key=lambda f: -f.rows)
    expected, what, remedy = _FLAWS[worst.kind]
    shown = f" ({worst.example})" if worst.example else ""
    also = "".join(f"; also '{f.column}': {f.kind} in {f.rows}" for f in others)
    raise ColumnError(
        f"{expected} in column '{worst.column}'",
        f"{what} in {worst.rows} row{'s' if worst.rows != 1 else ''}{shown}{also}",
        remedy.format(c=worst.column),
    )


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


def _require_one_layout(
    plan: TensorPlan, layouts: Sequence[Sequence[tuple[str, tuple[int, ...]]]], rows: Sequence[int]
) -> None:
    for k, spec in enumerate(plan.tensors):
        odd = [n for lay, n in zip(layouts, rows, strict=True) if lay[k] != layouts[0][k]]
        if odd:
            other = next(lay[k] for lay in layouts if lay[k] != layouts[0][k])
            example = f"{layouts[0][k]} and {other}"
            raise_flaws([Flaw(spec.columns[0].name, "ragged", sum(odd), example)])


def _shards(rows: Sequence[Any]) -> tuple[Shard, ...]:
    return tuple(Shard(r["shard"], r["rows"], r["host"], r["path"], r["bytes"]) for r in rows)


def _readable(result: Ingested) -> bool:
    """Whether the shards of this host are there; those of others are looked at by their ranks."""
    here = host_key()
    if all(Path(s.path).is_dir() for s in result.shards if s.host == here):
        return True
    forget_ingested(result)
    return False


def _is_persisted(frame: DataFrame) -> bool:
    level = frame.storageLevel
    return level.useMemory or level.useDisk


def _drop_stale(application: str) -> None:
    """Forget frames that were unpersisted, and those of an application that has ended."""
    for entry in list(_kept):
        if entry[2].application != application:
            _kept.remove(entry)
        elif not _is_persisted(entry[0]):
            forget_ingested(entry[2])


def _remove(shards: Iterable[Shard]) -> None:
    """Remove shards on this host at once, and on others by a job that visits every executor."""
    folders = {(s.host, Path(s.path).parent) for s in shards if s.path}
    for host, folder in folders:
        if host == host_key():
            shutil.rmtree(folder, ignore_errors=True)
    for name in {folder.name for host, folder in folders if host != host_key()}:
        _sweep(name)


def _sweep(name: str) -> None:
    """Remove what tasks wrote under this name, wherever they ran."""
    session = SparkSession.getActiveSession()
    if session is None:
        return
    context = session.sparkContext
    slots = context.defaultParallelism
    try:
        context.parallelize(range(slots), slots).foreach(
            lambda _: shutil.rmtree(scratch_root() / name, ignore_errors=True)
        )
    except (Py4JError, PySparkException) as exc:
        _log.warning("temporary shards %s stay until the application ends: %s", name, exc)
