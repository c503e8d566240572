"""Rows to shards: one ordinary Spark job writes each partition as typed arrays on local disk.

The driver gets back one small row for each partition, never data. Cells that cannot become
numbers are counted by the tasks, and the sums become one error here.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark import SparkContext, TaskContext
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame

from zoo.cluster.host import host_key, scratch_root
from zoo.errors import ColumnError, InputError
from zoo.orca.data.decode import Flaw, add_flaw
from zoo.orca.data.plan import TensorPlan
from zoo.orca.data.rows import FrameRows, Pieces, Rows
from zoo.orca.data.shard import Shard, ShardWriter

__all__ = ["Ingested", "forget_ingested", "ingest", "raise_flaws", "restore", "with_shards"]

_log = logging.getLogger(__name__)
# For how long, and how often, the files of a failed job's last tasks are looked for.
_LATE_S, _LOOK_S = 60.0, 1.0
_RESULT = (
    "shard long, rows long, host string, path string, bytes long, checksum long, layout string, "
    "flaws string"
)


@dataclass(frozen=True)
class Ingested:
    """A frame as shards on the disks of the executors.

    Attributes:
        plan: The tensors, shapes and dtypes known.
        shards: One for each partition that has rows.
        seconds: What the Spark job took.
        application: The Spark application that owns them.
        kept: The rows are persisted in Spark, so later fits use these shards again.
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


class _Kept(NamedTuple):
    """Shards of rows that Spark holds persisted."""

    rows: Rows
    blocks: object
    plan: TensorPlan
    result: Ingested


_kept: list[_Kept] = []
_KEPT_RESULTS = 8


def ingest(data: Rows | DataFrame, plan: TensorPlan, *, batch_size: int | None = None) -> Ingested:
    """Write the planned columns of some rows as shards, or find them written.

    Args:
        data: Rows, or any Spark DataFrame, however partitioned.
        plan: From `plan_columns` or `plan_shards`.
        batch_size: Refuse fewer rows than this; None takes any that has rows.

    Raises:
        ColumnError: Cells are null, ragged, not decodable or NaN labels, with their number.
        InputError: There are no rows, or fewer than a batch.
    """
    source = FrameRows(data) if isinstance(data, DataFrame) else data
    application = source.context.applicationId
    _drop_stale(application)
    blocks = source.held_as()
    if blocks is not None and (found := _find_kept(source, blocks, plan)):
        _require_rows(found.rows, batch_size)
        return found
    start = time.perf_counter()
    rows = _run(source, plan)
    try:
        raise_flaws([Flaw(**f) for row in rows for f in json.loads(row["flaws"])])
        filled = [row for row in rows if row["rows"]]
        _require_rows(sum(row["rows"] for row in filled), batch_size)
        layout = _common_layout(plan, filled)
    except InputError:
        _remove(_shards(rows))
        raise
    result = Ingested(
        plan.resolved(layout),
        _shards(filled),
        time.perf_counter() - start,
        application,
        blocks is not None,
    )
    if blocks is not None:
        _kept.append(_Kept(source, blocks, plan, result))
        for entry in _kept[:-_KEPT_RESULTS]:
            forget_ingested(entry.result)
    _log.info("ingested %d rows in %.2f s", result.rows, result.seconds)
    return result


def forget_ingested(result: Ingested | None = None) -> None:
    """Drop kept shards: those of one result that turned out to be lost, or all."""
    for entry in [e for e in _kept if result is None or e.result is result]:
        _kept.remove(entry)
        _remove(entry.result.shards)


def restore(source: Rows, result: Ingested, lost: Collection[int]) -> Ingested:
    """Write shards that are gone once more, from the rows that Spark still knows how to make.

    Partitions whose shards are there are not read.

    Args:
        source: The rows that were ingested.
        result: Their shards.
        lost: The numbers (`Shard.index`) of those that are gone.

    Returns:
        All shards, with the new places.

    Raises:
        InputError: A partition has other rows than before, so training cannot go on with it.
    """
    start = time.perf_counter()
    before = {s.index: s for s in result.shards if s.index in lost}
    rows = _run(source, result.plan, only=frozenset(before))
    found = {s.index: s for s in _shards([row for row in rows if row["rows"]])}
    for index, old in before.items():
        new = found.get(index)
        if new is None or new.rows != old.rows:
            _remove(found.values())
            raise InputError(
                "the same rows when a partition is computed again",
                f"{new.rows if new else 0} rows instead of {old.rows} in partition {index}",
                "Its source has changed, or its query gives another result each time: write the "
                "frame to Parquet before training, and read it from there.",
            )
        if new.checksum != old.checksum:
            _log.warning(
                "partition %d came back with its rows in another order, or with other values: in "
                "this epoch some of them may be used twice and others not at all. Sort the frame "
                "or write it to Parquet before training to be exact.",
                index,
            )
    done = with_shards(result, tuple(found.get(s.index, s) for s in result.shards))
    _log.warning(
        "%d lost shards were computed again in %.2f s", len(found), time.perf_counter() - start
    )
    return done


def with_shards(result: Ingested, shards: tuple[Shard, ...]) -> Ingested:
    """The same rows with other places of their shards; later fits find them there too."""
    done = replace(result, shards=shards)
    for at, entry in enumerate(_kept):
        if entry.result is result:
            _kept[at] = entry._replace(result=done)
    return done


def _run(
    source: Rows, plan: TensorPlan, *, only: frozenset[int] | None = None
) -> list[Mapping[str, Any]]:
    name = f"zoo-shards-{uuid.uuid4().hex[:12]}"
    tensors = len(plan.tensors)

    def write(pieces: Pieces) -> Iterator[pa.RecordBatch]:
        task = TaskContext.get()
        if only is not None and task is not None and task.partitionId() not in only:
            return iter(())
        return write_partition(pieces, tensors, name)

    try:
        rows = source.run(plan, write, _RESULT)
    except BaseException:
        roots = _sweep(name)
        threading.Thread(target=_sweep_late, args=(name, roots), daemon=True).start()
        raise
    return sorted(rows, key=lambda row: int(row["shard"]))


def write_partition(pieces: Pieces, tensors: int, name: str) -> Iterator[pa.RecordBatch]:
    """The task: write one shard, give back the row that describes it."""
    task = TaskContext.get()
    assert task is not None
    # No folder around all of them: one that a late task makes again would stay.
    folder = scratch_root() / f"{name}-{task.partitionId()}-{task.taskAttemptId()}"
    with ShardWriter(folder, tensors) as writer:
        for arrays in pieces:
            writer.append(arrays)
    rows = writer.rows
    if pieces.flaws:
        rows = 0
        shutil.rmtree(folder, ignore_errors=True)
    values = [
        task.partitionId(), rows, host_key(), str(folder) if rows else "", writer.bytes,
        writer.checksum,
        json.dumps([(t.dtype, t.shape) for t in pieces.tensors]),
        json.dumps([asdict(f) for f in pieces.flaws.values()]),
    ]  # fmt: skip
    names = [part.split()[0] for part in _RESULT.split(", ")]
    yield pa.RecordBatch.from_pydict({n: [v] for n, v in zip(names, values, strict=True)})


_FLAWS = {
    "null": (
        "no nulls",
        "null",
        "Fill or drop them: df.fillna(0, ['{c}']) or df.dropna(subset=['{c}']), or inside arrays "
        "with pyspark.sql.functions.transform.",
    ),
    "nan": ("labels that are numbers", "NaN", "Drop them: df.dropna(subset=['{c}'])."),
    "ragged": (
        "one shape in all rows",
        "another shape",
        "Pad or cut the arrays to one length; for images give the decoder a size.",
    ),
    "inexact": (
        "numbers that the dtype of the tensor holds exactly",
        "others",
        "Keep whole numbers whole with decoders={{'{c}': 'int64'}} and an entry of their own in "
        "feature_cols; if rounding does no harm, cast the column in Spark.",
    ),
    "overflow": (
        "numbers that the dtype of the tensor can hold",
        "larger ones",
        "Scale them, or ask for decoders={{'{c}': 'float64'}}.",
    ),
    "layout": (
        "shards that all look like the first",
        "others",
        "Give every shard the same keys and the same number of arrays.",
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
        add_flaw(total, flaw)
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


def _shards(rows: Sequence[Any]) -> tuple[Shard, ...]:
    fields = ("shard", "rows", "host", "path", "bytes", "checksum")
    return tuple(Shard(*(row[name] for name in fields)) for row in rows)


def _find_kept(source: Rows, blocks: object, plan: TensorPlan) -> Ingested | None:
    """Kept shards of these rows and this plan, if they are still there."""
    for held in _kept:
        if (held.blocks, held.plan) == (blocks, plan) and held.rows.same(source):
            # The shards of other hosts are looked at by the ranks there.
            here = [s for s in held.result.shards if s.host == host_key()]
            if all(Path(s.path).is_dir() for s in here):
                return held.result
            forget_ingested(held.result)
            break
    return None


def _drop_stale(application: str) -> None:
    """Forget rows that Spark no longer holds, and those of an application that has ended."""
    for held in list(_kept):
        if held.result.application != application:
            _kept.remove(held)
        elif held.rows.held_as() != held.blocks:
            forget_ingested(held.result)


def _remove(shards: Iterable[Shard]) -> None:
    """Remove shards on this host at once, and on others by a job that visits every executor."""
    places = {(s.host, Path(s.path).parent, _name_of(s.path)) for s in shards if s.path}
    for host, root, name in places:
        if host == host_key():
            _remove_named(root, name)
    for name in {name for host, _, name in places if host != host_key()}:
        _sweep(name)


def _name_of(path: str) -> str:
    return Path(path).name.rsplit("-", 2)[0]


def _remove_named(root: Path, name: str) -> None:
    """All of a name, so also what copies of a task wrote whose result was not taken."""
    for path in root.glob(f"{name}-*"):
        shutil.rmtree(path, ignore_errors=True)


def _sweep(name: str) -> set[str]:
    """Remove what tasks wrote under this name, wherever they ran.

    Returns:
        The scratch directories of executors on this host.
    """
    # Not the active session: that of another thread is not seen in this one.
    context = SparkContext._active_spark_context
    if context is None:
        return set()
    slots = context.defaultParallelism

    def sweep(_: Iterable[int]) -> Iterator[tuple[str, str]]:
        _remove_named(scratch_root(), name)
        yield host_key(), str(scratch_root())

    try:
        places = context.parallelize(range(slots), slots).mapPartitions(sweep).collect()
    except (Py4JError, PySparkException) as exc:
        _log.warning("temporary shards %s stay until the application ends: %s", name, exc)
        return set()
    return {root for host, root in places if host == host_key()}


def _sweep_late(name: str, roots: Iterable[str]) -> None:
    """Remove what tasks of a failed job wrote after the sweep: Spark lets them run out."""
    end = time.monotonic() + _LATE_S
    while time.monotonic() < end:
        time.sleep(_LOOK_S)
        for root in roots:
            _remove_named(Path(root), name)
