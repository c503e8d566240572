"""Files through Spark's readers, with the rows in the order of the files.

Spark hands out the splits of a scan by size, largest first. So each file that needs several
tasks is a scan of its own, neighbours that fit in one task share one, and the rows of a task that
read several files are put in their order there.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from pyspark import RDD
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from zoo.cluster.session.lifecycle import active_session
from zoo.orca.data.pandas.hadoop_place import (
    HadoopPlace,
    path_in_url,
    text_for_spark,
)
from zoo.orca.data.tensors.plan_columns import quoted
from zoo.orca.data.xshards.frames import frame_to_rdd

__all__ = ["group_files", "ordered_shards", "split_bytes", "task_bytes"]

_log = logging.getLogger(__name__)

# Planning takes about 30 ms a scan.
_MAX_SCANS = 500
_POSITION = "_zoo_position"
# Of two threads that read at once, the second would take the settings of the first for the user's.
_SETTINGS = threading.Lock()
# The part of a URL that is written in more than one way: file:/a and file:///a.
_HOST = "^[A-Za-z0-9+.-]+:(//[^/]*)?"


def split_bytes(sizes: Sequence[int], slots: int, largest: int, open_cost: int) -> int:
    """How many bytes a task gets, by the rule of Spark's own planner.

    Args:
        sizes: Bytes of the files.
        slots: Tasks that should at least have something to do.
        largest: Most bytes of a task.
        open_cost: Bytes that could be read in the time that opening a file takes.
    """
    share = sum(size + open_cost for size in sizes) // max(slots, 1)
    return min(largest, max(open_cost, share))


def group_files(sizes: Sequence[int], target: int, open_cost: int) -> list[range]:
    """Join neighbours that fit together in one task; a larger file stays alone.

    Example:
        >>> group_files([1, 1, 9, 1, 1, 1], target=4, open_cost=1)
        [range(0, 2), range(2, 3), range(3, 5), range(5, 6)]
    """
    groups: list[range] = []
    start, held = 0, 0
    for at, size in enumerate(sizes):
        if at > start and held + size > target:
            groups.append(range(start, at))
            start, held = at, 0
        held += size + open_cost
    return [*groups, range(start, len(sizes))] if sizes else groups


def ordered_shards(
    files: Sequence[Path | HadoopPlace],
    read: Callable[[list[str]], DataFrame],
    columns: Sequence[str],
) -> RDD[Any]:
    """Read files into one pandas DataFrame for each partition, in their order.

    Args:
        files: The files.
        read: From the texts of some files to the frame that Spark's reader gives; every call
            must give the same columns and types.
        columns: Which columns, in which order.
    """
    sizes = [int(file.stat().st_size) for file in files]
    session = active_session()
    target, open_cost = task_bytes(sizes)
    groups = _without_repeats(group_files(sizes, target, open_cost), files)
    if len(groups) > _MAX_SCANS:
        _log.warning(
            "%d files need %d scans to keep their order, and at most %d are made: the rows come "
            "in the order in which Spark hands out the files, largest first. Read fewer files at "
            "a time, or join them, to keep the order",
            len(files),
            len(groups),
            _MAX_SCANS,
        )
        frame = read([text_for_spark(file) for file in files])
        return frame_to_rdd(frame.select(*map(_column, columns)))
    mixed = any(len(group) > 1 for group in groups)
    with _splits_of(session, target):
        scans = [_scan([files[i] for i in group], read, columns, mixed) for group in groups]
        shards = frame_to_rdd(_union(scans))
    return shards.map(_in_order) if mixed else shards


def task_bytes(sizes: Sequence[int]) -> tuple[int, int]:
    """How many bytes a task gets, and the bytes that opening a file costs, as Spark is set."""
    session = active_session()
    largest = _bytes(session, "spark.sql.files.maxPartitionBytes")
    open_cost = _bytes(session, "spark.sql.files.openCostInBytes")
    wanted = session.conf.get("spark.sql.files.minPartitionNum", None)
    slots = int(wanted) if wanted else session.sparkContext.defaultParallelism
    return split_bytes(sizes, slots, largest, open_cost), open_cost


def _bytes(session: SparkSession, name: str) -> int:
    text = session.conf.get(name)
    jvm: Any = session.sparkContext._jvm
    return int(jvm.org.apache.spark.network.util.JavaUtils.byteStringAsBytes(text))


def _without_repeats(groups: list[range], files: Sequence[object]) -> list[range]:
    """Cut groups that hold a file twice: by its name alone its rows could not be placed."""
    cut: list[range] = []
    for group in groups:
        seen: set[str] = set()
        start = group.start
        for at in group:
            if str(files[at]) in seen:
                cut.append(range(start, at))
                start, seen = at, set()
            seen.add(str(files[at]))
        cut.append(range(start, group.stop))
    return cut


def _scan(
    files: Sequence[Path | HadoopPlace],
    read: Callable[[list[str]], DataFrame],
    columns: Sequence[str],
    mixed: bool,
) -> DataFrame:
    frame = read([text_for_spark(file) for file in files])
    wanted = [_column(name) for name in columns]
    if mixed:
        position = _position(frame, files) if len(files) > 1 else F.lit(1).cast("long")
        wanted.append(position.alias(_POSITION))
    return frame.select(*wanted)


def _position(frame: DataFrame, files: Sequence[Path | HadoopPlace]) -> Column:
    places = [file.path if isinstance(file, HadoopPlace) else str(file) for file in files]
    # Spark quotes paths in its own way; it is asked for it instead of guessing.
    urls = {path_in_url(url): re.sub(_HOST, "", url) for url in frame.inputFiles()}
    known = F.array(*[F.lit(urls.get(place, place)) for place in places])
    url = frame.metadataColumn("_metadata").getField("file_path")
    return F.array_position(known, F.regexp_replace(url, _HOST, ""))


def _column(name: str) -> Column:
    return F.col(quoted(name))


def _union(frames: list[DataFrame]) -> DataFrame:
    """Union in pairs of pairs: a chain of hundreds would overflow the planner's stack."""
    while len(frames) > 1:
        pairs = zip(frames[::2], [*frames[1::2], None], strict=False)
        frames = [one if two is None else one.union(two) for one, two in pairs]
    return frames[0]


@contextmanager
def _splits_of(session: SparkSession, target: int) -> Iterator[None]:
    """Let Spark plan scans with tasks of `target` bytes; it plans on this thread."""
    wanted = {
        "spark.sql.files.maxPartitionBytes": str(target),
        "spark.sql.files.minPartitionNum": "1",
    }
    with _SETTINGS:
        before = {name: session.conf.get(name, None) for name in wanted}
        try:
            for name, value in wanted.items():
                session.conf.set(name, value)
            yield
        finally:
            for name, old in before.items():
                if old is None:
                    session.conf.unset(name)
                else:
                    session.conf.set(name, old)


def _in_order(frame: pd.DataFrame) -> pd.DataFrame:
    position = frame.pop(_POSITION)
    if position.is_monotonic_increasing:
        return frame
    return frame.iloc[position.argsort(kind="stable")].reset_index(drop=True)
