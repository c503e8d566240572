"""XShards: any Python data in parts, each part of which a plain function of yours works on.

Bring a function that works on one pandas DataFrame, and run it on a cluster::

    shards = XShards.partition({"x": features, "y": labels})
    scaled = shards.transform_shard(lambda part: {**part, "x": part["x"] / 255})
"""

from __future__ import annotations

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyspark import RDD
from pyspark.serializers import BatchedSerializer, CPickleSerializer
from pyspark.sql import DataFrame

from zoo.cluster.ranks.carried import folded
from zoo.cluster.session.lifecycle import active_session, nodes_and_cores
from zoo.cluster.settings import settings
from zoo.errors import ContractError, InputError
from zoo.orca.data.storage import locate, spark_path
from zoo.orca.data.xshards import files as shard_files
from zoo.orca.data.xshards.content import (
    class_name,
    concatenate,
    content_kind,
    select,
    shard_length,
    split_nested,
    take_rows,
)
from zoo.orca.data.xshards.frames import frame_to_rdd, rdd_to_frame
from zoo.orca.data.xshards.held_rdd import HeldRdd
from zoo.orca.data.xshards.jobs import (
    gather,
    map_shards,
    run_job,
    scatter_by_column,
    spread_evenly,
)
from zoo.orca.data.xshards.pickle_folder import refuse_open_folder

__all__ = ["SparkXShards", "XShards"]

_log = logging.getLogger(__name__)


class XShards(ABC):
    """Data in shards: any Python objects, each of which lies on one machine of a cluster."""

    @abstractmethod
    def transform_shard(self, func: Callable[..., Any], *args: Any) -> XShards:
        """Call a function for each shard, and make new shards of what it returns."""

    @abstractmethod
    def collect(self) -> list[Any]:
        """All shards, in order."""

    @abstractmethod
    def num_partitions(self) -> int:
        """How many partitions there are."""

    @staticmethod
    def partition(data: Any, num_shards: int | None = None) -> SparkXShards:
        """Cut local data into shards, along the first dimension, as `numpy.array_split` does.

        Args:
            data: An ndarray, or any nesting of lists, tuples and dicts with ndarrays as leaves.
                Each shard is nested in the same way.
            num_shards: How many shards; one for each core of the cluster when None.

        Raises:
            ContractError: The data holds something else, or arrays of different lengths.
            InputError: The number of shards is larger than that of rows, or no positive number.
        """
        context = active_session().sparkContext
        if num_shards is None:
            nodes, cores = nodes_and_cores(context)
            num_shards = nodes * cores
        count = _positive("num_shards", num_shards)
        return SparkXShards(context.parallelize(split_nested(data, count), count))

    @classmethod
    def load_pickle(
        cls,
        path: str | os.PathLike[str],
        minPartitions: int | None = None,  # noqa: N803 - old programs name it
        *,
        trusted: bool = False,
    ) -> SparkXShards:
        """Read shards that `SparkXShards.save_pickle` wrote, and run the code that is in them.

        Whoever could write to the folder runs code here and on the executors: load only what you
        trust as you trust a program. `XShards.load` runs nothing. A local folder is refused when
        every user of the machine may write there; on other storage nobody looks.

        Args:
            path: The folder.
            minPartitions: The least number of partitions, a hint to Hadoop.
            trusted: Do not look who may write there.

        Raises:
            InputError: There is no such folder, or everybody may write there.
        """
        place = locate(path)
        if not place.exists():
            raise InputError(
                "a folder that save_pickle wrote", f"{place}, where nothing is", "Check the path."
            )
        if isinstance(place, Path) and not trusted:
            refuse_open_folder(place)
        _log.warning("Loading the pickles in %s runs whatever code is in them.", place)
        context = active_session().sparkContext
        return SparkXShards(context.pickleFile(spark_path(place), minPartitions))

    @staticmethod
    def load(path: str | os.PathLike[str]) -> SparkXShards:
        """Read shards that `SparkXShards.save` wrote: the same shards in the same partitions.

        Args:
            path: The folder, on any file system that fsspec knows and all executors reach.

        Raises:
            InputError: There is nothing whole in the folder, or a file of it is damaged.
        """
        return SparkXShards(shard_files.load_rdd(active_session().sparkContext, locate(path)))

    @staticmethod
    def from_spark_df(frame: DataFrame) -> SparkXShards:
        """Make shards of pandas DataFrames from a Spark DataFrame.

        A partition becomes one shard, or shards of `OrcaContext._shard_size` rows.

        Args:
            frame: Any Spark DataFrame. `zoo.orca.data.xshards.frames` tells the types.
        """
        rdd, size = frame_to_rdd(frame), settings.shard_size
        if size is not None:
            rdd = rdd.flatMap(lambda frame: _cut(frame, size))
        return SparkXShards(rdd)


def _cut(frame: pd.DataFrame, size: int) -> list[pd.DataFrame]:
    starts = range(0, max(len(frame), 1), size)
    return [frame.iloc[at : at + size].reset_index(drop=True) for at in starts]


class SparkXShards(HeldRdd, XShards):
    """Shards that lie in an RDD of Spark, one shard an element.

    New shards are computed at once, unless `OrcaContext._eager_mode` is off, and held on local
    disks until other shards are made of them, or nothing refers to them any more.

    Args:
        rdd: The shards; also the attribute `rdd`.
        transient: Neither compute nor hold them.

    Raises:
        Exception: What a function that makes the shards raises, as its own type.
    """

    # xs[0], xs[1], ... never end, and Python would iterate so.
    __iter__ = None

    @folded
    def transform_shard(self, func: Callable[..., Any], *args: Any) -> SparkXShards:
        """Call `func(shard, *args)` for each shard, and make new shards of what it returns.

        Args:
            func: Runs on the executors. What it raises arrives here as its own type, with a note
                that names the shard.
            *args: What the function takes besides the shard, such as a `SharedValue`.
        """
        return self._replaced_by(map_shards(self.rdd, func, *args))

    @folded
    def collect(self) -> list[Any]:
        """All shards, in order."""
        return run_job(self.rdd.ctx, self.rdd.collect)

    @folded
    def first(self) -> Any:
        """The first shard.

        Raises:
            InputError: There is none.
        """
        shards = self.take(1)
        if not shards:
            raise InputError("at least one shard", "none", "Check what the shards are made of.")
        return shards[0]

    @folded
    def take(self, count: int) -> list[Any]:
        """The first shards."""
        return run_job(self.rdd.ctx, self.rdd.take, count)

    def num_partitions(self) -> int:
        """How many partitions there are."""
        return self.rdd.getNumPartitions()

    def repartition(self, num_partitions: int) -> SparkXShards:
        """Spread the content evenly over partitions; the order stays.

        DataFrames, lists and arrays are cut into rows and joined to one shard a partition; shards
        of any other kind move whole.

        Args:
            num_partitions: How many partitions there are to be.
        """
        count = _positive("num_partitions", num_partitions)
        partitions = gather(self.rdd, _facts)
        facts = [fact for shards in partitions for fact in shards]
        kinds = {kind for kind, _, _ in facts}
        by_rows = len(kinds) == 1 and kinds <= {"frame", "list", "array"}
        sizes = [sum(n for _, n, _ in shards) if by_rows else len(shards) for shards in partitions]
        empty = facts[0][2] if by_rows else None
        return self._replaced_by(spread_evenly(self.rdd, sizes, count, empty))

    def partition_by(self, cols: Any, num_partitions: int | None = None) -> SparkXShards:
        """Bring rows with an equal value of a column into the same partition.

        Args:
            cols: The label of one column. 1 and 1.0 are equal, and None and NaN.
            num_partitions: How many partitions there are to be; as many as now when None. Some
                may stay empty.

        Raises:
            InputError: The shards are no DataFrames, or lack the column; or its values can not
                be compared between processes.
        """
        if not pd.api.types.is_hashable(cols) or isinstance(cols, tuple):
            raise InputError("the label of one column", repr(cols), "Add a column that joins them.")
        wanted = self.num_partitions() if num_partitions is None else num_partitions
        count = _positive("num_partitions", wanted)
        facts = self._flat(_facts)
        rows = 0
        for number, (kind, length, empty) in enumerate(facts):
            if kind != "frame" or list(empty.columns).count(cols) != 1:
                shown = (
                    f"columns {list(empty.columns)}" if kind == "frame" else f"no frame ({kind})"
                )
                raise InputError(
                    f"DataFrames with one column {cols!r}", f"{shown} in shard {number}", _AS_FRAMES
                )
            rows += length
        empty = facts[0][2] if facts and not rows else None
        return self._replaced_by(scatter_by_column(self.rdd, cols, count, empty))

    def unique(self) -> np.ndarray:
        """The different values of all shards, which are Series: `xs["column"].unique()`.

        Raises:
            InputError: The shards are no Series.
        """
        found = self._flat(_unique_of)
        return np.asarray(concatenate(found).unique()) if found else np.empty(0)

    def split(self) -> list[SparkXShards]:
        """Take shards apart that are lists or tuples of one length.

        Returns:
            One `SparkXShards` for each position; this one alone when the shards are of other kinds.

        Raises:
            InputError: The lengths differ.
        """
        lengths = set(self._flat(_sequence_length))
        if lengths <= {None}:
            return [self]
        if len(lengths) > 1:
            shown = ", ".join(sorted("no list" if n is None else str(n) for n in lengths))
            raise InputError(
                "lists or tuples of the same length in all shards",
                f"lengths {shown}",
                "Use transform_shard to bring them to one length.",
            )
        width = lengths.pop() or 0
        parts = [SparkXShards(map_shards(self.rdd, select, i)) for i in range(width)]
        self._uncache()
        return parts

    def zip(self, other: SparkXShards) -> SparkXShards:
        """Pair the shards of two, one by one.

        Args:
            other: Shards in as many partitions, with as many shards in each.

        Raises:
            ContractError: The other is no SparkXShards, or has other partitions.
            InputError: A partition of the other has more or fewer shards.
        """
        if not isinstance(other, SparkXShards):
            raise ContractError(
                "that other should be a SparkXShards", class_name(other), _AS_SHARDS
            )
        if self.num_partitions() != other.num_partitions():
            raise ContractError(
                "two SparkXShards with the same number of partitions",
                f"{self.num_partitions()} and {other.num_partitions()}",
                "Repartition one of them.",
            )
        # Batches of one: Spark compares the numbers of batches.
        one_by_one = BatchedSerializer(CPickleSerializer(), 1)
        left, right = (xs.rdd._reserialize(one_by_one) for xs in (self, other))
        zipped = SparkXShards(left.zip(right))
        self._uncache()
        other._uncache()
        return zipped

    def __repr__(self) -> str:
        # No job: debuggers and logs ask for it at any time.
        ended = self.rdd.ctx._jsc is None
        parts = "of a session that has ended" if ended else f"partitions={self.num_partitions()}"
        return f"{type(self).__name__}({parts})"

    def __len__(self) -> int:
        return int(run_job(self.rdd.ctx, map_shards(self.rdd, shard_length).sum))

    def __getitem__(self, key: Any) -> SparkXShards:
        return SparkXShards(map_shards(self.rdd, select, key), transient=True)

    def head(self, n: int = 5) -> Any:
        """The first rows of shards that are DataFrames, Series, arrays or lists.

        Args:
            n: How many rows.
        """
        heads, count = map_shards(self.rdd, _head, n), self.num_partitions()
        parts: list[Any] = []
        done, step = 0, 1
        while done < count and sum(map(len, parts)) < n:
            chosen = list(range(done, min(done + step, count)))
            parts += run_job(self.rdd.ctx, self.rdd.ctx.runJob, heads, list, chosen)
            done, step = done + step, step * 4
        return take_rows(concatenate(parts), 0, n)

    def get_schema(self) -> dict[str, Any]:
        """The columns and dtypes of the first shard, which is a DataFrame.

        Raises:
            InputError: It is none.
        """
        frame = self.first()
        if not isinstance(frame, pd.DataFrame):
            raise InputError("shards that are DataFrames", class_name(frame), _AS_FRAMES)
        return {"columns": frame.columns, "dtypes": frame.dtypes}

    @property
    def columns(self) -> pd.Index[Any]:
        """The columns of the first shard; see `get_schema`."""
        found: pd.Index[Any] = self.get_schema()["columns"]
        return found

    @property
    def dtypes(self) -> pd.Series[Any]:
        """The dtypes of the first shard; see `get_schema`."""
        found: pd.Series[Any] = self.get_schema()["dtypes"]
        return found

    def concat_to_pdf(self) -> Any:
        """All rows of shards that are DataFrames, as one DataFrame here.

        Raises:
            InputError: The shards are of another kind.
        """
        return concatenate(self.collect())

    def to_spark_df(self) -> DataFrame:
        """Make a Spark DataFrame of shards that are DataFrames, without their index.

        Raises:
            InputError: The shards are no DataFrames, or differ in columns or types.
        """
        return rdd_to_frame(self.rdd, active_session())

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> SparkXShards:
        """Write the shards, and load them with `XShards.load`.

        DataFrames and Series become Parquet files, arrays and nestings of them become `.npz` files.
        Nothing in them is ever run.

        Args:
            path: The folder, on any file system that fsspec knows and all executors reach.
            overwrite: Replace shards that are saved there.

        Raises:
            InputError: The folder holds something, or a shard holds other things.
        """
        shard_files.save_rdd(self.rdd, locate(path), overwrite=overwrite)
        return self

    def save_pickle(self, path: str | os.PathLike[str], batchSize: int = 10) -> SparkXShards:  # noqa: N803 - old programs name it
        """Write shards of any kind as pickles, in a Hadoop sequence file.

        Loading a pickle runs the code that is in it. Whoever can write to the folder can run code
        where it is loaded; prefer `save` where the shards allow it.

        Args:
            path: A folder that does not exist yet.
            batchSize: How many shards are pickled together.

        Raises:
            InputError: The folder exists.
        """
        place = locate(path)
        if place.exists() or "," in str(place):
            # Hadoop takes what follows a comma for another path.
            raise InputError(
                "a folder that does not exist yet, without a comma in its path",
                str(place),
                "Name another.",
            )
        target = shard_files.hadoop_path(place)
        run_job(self.rdd.ctx, self.rdd.saveAsPickleFile, target, batchSize)
        return self

    def _for_each(self, func: Callable[..., Any], *args: Any) -> RDD[Any]:
        """What a function returns or raises for each shard."""

        def outcome(shard: Any) -> Any:
            try:
                return func(shard, *args)
            except Exception as exc:  # noqa: BLE001 - it is the result
                return exc

        return self.rdd.map(outcome)

    def _get_class_name(self) -> str:
        """The path of the class of the first shard."""
        return class_name(self.first())

    def _replaced_by(self, rdd: RDD[Any]) -> SparkXShards:
        made = SparkXShards(rdd)
        self._uncache()
        return made

    def _flat(self, function: Callable[[Any], Any]) -> list[Any]:
        return [value for shards in gather(self.rdd, function) for value in shards]


_AS_SHARDS = "Make shards of it, with XShards.partition for example."
_AS_FRAMES = "Use transform_shard to make DataFrames of them."


def _positive(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"{name} to be a positive whole number", repr(value), "Pass 4, say.")
    return int(value)


def _facts(shard: Any) -> tuple[str, int, Any]:
    """Kind, length, and the shard without its rows."""
    kind = content_kind(shard)
    return kind, shard_length(shard), None if kind == "other" else take_rows(shard, 0, 0)


def _unique_of(shard: Any) -> pd.Series[Any]:
    if not isinstance(shard, pd.Series):
        raise InputError(
            "shards that are Series", class_name(shard), 'Select a column: xs["column"].unique().'
        )
    return pd.Series(shard.unique())


def _sequence_length(shard: Any) -> int | None:
    return len(shard) if isinstance(shard, list | tuple) else None


def _head(shard: Any, count: int) -> Any:
    if content_kind(shard) == "other":
        raise InputError("shards that have rows", class_name(shard), "Use first or take.")
    return take_rows(shard, 0, count)
