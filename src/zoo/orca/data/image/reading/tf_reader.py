"""A dataset for TensorFlow: as a `tf.data.Dataset` here, or as shards on the workers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from zoo.cluster.session.lifecycle import active_session
from zoo.errors import InputError, load_extra
from zoo.orca.data.image.layout.dataset_folder import DatasetFolder, open_dataset
from zoo.orca.data.image.reading.column_arrays import TEXT, ColumnArrays, Shape, plan_arrays
from zoo.orca.data.image.reading.row_reader import check_names, iter_tables
from zoo.orca.data.image.reading.share import Share, say_unused, share_of, worker_count
from zoo.orca.data.tf.data import Dataset
from zoo.orca.data.tf.variable import VariableArrays
from zoo.orca.data.xshards.spark_xshards import SparkXShards

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["read_as_tf", "read_as_tf_dataset"]

_STEP = 128
"""Rows that go to TensorFlow at once: each step costs some 0.3 ms, and decoded images are large."""


def read_as_tf_dataset(  # noqa: PLR0913 - existing programs call it so
    path: str,
    *,
    output_types: Mapping[str, Any] | None = None,
    output_shapes: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    transforms: Callable[[dict[str, Any]], Any] | None = None,
    batch_size: int | None = None,
    columns: Sequence[str] | None = None,
    decoders: Mapping[str, Callable[[bytes], Any] | None] | None = None,
    shuffle: bool = False,
    shuffle_buffer: int = 1024,
    seed: int = 0,
) -> tf.data.Dataset:
    """Read a dataset, or one reader's share of it, as a `tf.data.Dataset` of dicts.

    IMAGE columns are the bytes of the files, for `tf.io.decode_jpeg` in a transform or with a
    decoder here; NDARRAY columns are arrays, SCALAR columns numbers or texts. Each record comes
    once. An error while reading ends the iteration with TensorFlow's own error, which holds the
    text of ours.

    Args:
        path: The folder of the dataset.
        output_types: Types of columns, where they are to be others than the schema's.
        output_shapes: Shapes of a record's values, where the schema or the decoder tells none.
        config: `num_shards`, `rank` and `balance` as for the torch loader, see `share_of`;
            `num_workers`, threads that decode. Other keys are left alone, with a
            warning.
        transforms: Applied to each record, as `tf.data.Dataset.map` does.
        batch_size: Records in a batch. None and 1 give single records without a batch axis, as
            this reader always did. In a batch, values whose shapes differ are a `RaggedTensor`.
        columns: The columns of a record; all when None.
        decoders: Decoders for IMAGE columns, other ones for NDARRAY columns; None as a decoder
            keeps the bytes.
        shuffle: Draw the order of the chunks, and records from a buffer; anew for each epoch.
        shuffle_buffer: Records in that buffer.
        seed: Decides the orders.

    Raises:
        InputError: There is no whole dataset at the path, or an argument does not fit it.
        ContractError: `num_shards` and `rank` do not fit the dataset or each other.
        MissingExtraError: TensorFlow is not installed.
    """
    tf = load_extra("tensorflow", "tensorflow")
    settings = {} if config is None else config
    say_unused(settings, ("num_workers",))
    if shuffle:
        _check_shuffle(shuffle_buffer, seed)
    dataset = open_dataset(path)
    share = share_of(dataset, settings)
    plans = plan_arrays(
        dataset.schema,
        check_names(dataset.schema, columns),
        decoders=decoders,
        dtypes={name: _numpy_type(name, given) for name, given in (output_types or {}).items()},
        shapes={name: _shape(name, given) for name, given in (output_shapes or {}).items()},
    )
    packers = {plan.name: _packer(plan) for plan in plans if not plan.stacks}
    steps = tf.data.Dataset.from_generator(
        _Steps(share, plans, packers, worker_count(settings), seed if shuffle else None),
        output_signature={plan.name: _signature(plan, packers.get(plan.name)) for plan in plans},
    )
    size = _checked_size(batch_size)
    records = _records(
        steps, packers, transforms, (shuffle_buffer, seed) if shuffle else None, size
    )
    count = share.rows if size is None else -(-share.rows // size)
    counted = records.apply(tf.data.experimental.assert_cardinality(count))
    return counted.prefetch(tf.data.AUTOTUNE)


def read_as_tf(path: str) -> Dataset:
    """Read a dataset as a `zoo.orca.data.tf.data.Dataset`, a shard for each chunk.

    A shard is a dict from column to array: bytes for IMAGE columns, arrays and numbers for
    others. Where the shapes of a column's values differ, it is an array of arrays.

    Raises:
        InputError: There is no whole dataset at the path.
        ClusterError: No Spark session is active.
    """
    dataset = open_dataset(path)
    chunks = range(len(dataset.chunks))
    numbers = active_session().sparkContext.parallelize(chunks, len(chunks))
    return Dataset.from_tensor_slices(SparkXShards(numbers.flatMap(partial(_load_chunk, dataset))))


def _load_chunk(dataset: DatasetFolder, number: int) -> list[dict[str, npt.NDArray[Any]]]:
    """The one shard of a chunk, or none when the chunk has no records."""
    share = share_of(dataset, {"num_shards": len(dataset.chunks), "rank": number})
    if not share.rows:
        return []
    plans = plan_arrays(dataset.schema, list(dataset.schema))
    tables = [[plan.read(table[plan.name]) for plan in plans] for table in iter_tables(share)]
    columns = zip(*tables, strict=True)
    return [
        {plan.name: np.concatenate(column) for plan, column in zip(plans, columns, strict=True)}
    ]


class _Steps:
    """Makes the dicts of arrays that TensorFlow cuts into records; each call is an epoch."""

    def __init__(
        self,
        share: Share,
        plans: Sequence[ColumnArrays],
        packers: Mapping[str, VariableArrays],
        threads: int,
        seed: int | None,
    ) -> None:
        self._share, self._plans, self._packers = share, plans, packers
        self._threads, self._seed = threads, seed
        self._epochs = itertools.count()

    def __call__(self) -> Iterator[dict[str, Any]]:
        share, columns = self._ordered(next(self._epochs)), [plan.name for plan in self._plans]
        with ThreadPoolExecutor(self._threads) if self._threads else nullcontext() as pool:
            for table in iter_tables(share, columns):
                for at in range(0, table.num_rows, _STEP):
                    rows = table.slice(at, _STEP)
                    yield {plan.name: self._values(plan, rows, pool) for plan in self._plans}

    def _values(self, plan: ColumnArrays, rows: pa.Table, pool: ThreadPoolExecutor | None) -> Any:
        values = plan.read(rows[plan.name], pool)
        packer = self._packers.get(plan.name)
        return values if packer is None else packer.pack(values)

    def _ordered(self, epoch: int) -> Share:
        if self._seed is None:
            return self._share
        stretches = self._share.stretches
        order = np.random.default_rng((self._seed, epoch)).permutation(len(stretches))
        return replace(self._share, stretches=tuple(stretches[n] for n in order))


def _records(
    steps: tf.data.Dataset,
    packers: Mapping[str, VariableArrays],
    transforms: Callable[[dict[str, Any]], Any] | None,
    shuffled: tuple[int, int] | None,
    batch_size: int | None,
) -> tf.data.Dataset:
    """Cut steps into records, and make of these what was asked for."""
    tf = load_extra("tensorflow", "tensorflow")
    if not packers and transforms is None and shuffled is None and batch_size is not None:
        return steps.rebatch(batch_size)
    records = steps.unbatch()
    if shuffled is not None:
        buffer, seed = shuffled
        records = records.shuffle(buffer, seed=seed, reshuffle_each_iteration=True)
    if packers:
        unpack = partial(_unpacked, packers)
        records = records.map(tf.autograph.experimental.do_not_convert(unpack))
    if transforms is not None:
        records = records.map(transforms, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    if batch_size is None:
        return records
    specs = tf.nest.flatten(records.element_spec)
    fixed = all(spec.shape.is_fully_defined() for spec in specs)
    return records.batch(batch_size) if fixed else records.ragged_batch(batch_size)


def _unpacked(packers: Mapping[str, VariableArrays], record: dict[str, Any]) -> dict[str, Any]:
    return {
        name: packers[name].unpack(*value) if name in packers else value
        for name, value in record.items()
    }


def _check_shuffle(buffer: int, seed: int) -> None:
    for name, value, least in (("shuffle_buffer", buffer, 1), ("seed", seed, 0)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise InputError(f"{name} as an int from {least}", repr(value), "Correct it.")


def _checked_size(batch_size: int | None) -> int | None:
    if batch_size is None or (isinstance(batch_size, int) and batch_size > 0):
        return None if batch_size == 1 else batch_size
    raise InputError("batch_size as a positive int or None", repr(batch_size), "Correct it.")


def _packer(plan: ColumnArrays) -> VariableArrays:
    if plan.dtype == TEXT:
        raise InputError(
            f"texts of one shape in column {plan.name!r}", f"shape {plan.shape}", "Leave it out."
        )
    return VariableArrays(plan.dtype, plan.shape)


def _signature(plan: ColumnArrays, packer: VariableArrays | None) -> Any:
    tf = load_extra("tensorflow", "tensorflow")
    if packer is not None:
        return packer.signature()
    dtype = tf.string if plan.dtype == TEXT else tf.as_dtype(plan.dtype)
    return tf.TensorSpec([None, *(plan.shape or ())], dtype)


def _numpy_type(name: str, given: Any) -> np.dtype[Any]:
    tf = load_extra("tensorflow", "tensorflow")
    try:
        dtype = tf.as_dtype(given)
    except TypeError as exc:
        raise InputError(
            f"a TensorFlow type for column {name!r}", repr(given), "Correct output_types."
        ) from exc
    return TEXT if dtype == tf.string else np.dtype(dtype.as_numpy_dtype)


def _shape(name: str, given: Any) -> Shape:
    tf = load_extra("tensorflow", "tensorflow")
    if given is None or (isinstance(given, tf.TensorShape) and given.rank is None):
        return None
    try:
        return tuple(tf.TensorShape([None if n in (None, -1) else n for n in given]).as_list())
    except (TypeError, ValueError) as exc:
        raise InputError(
            f"a shape for column {name!r}", repr(given), "Correct output_shapes."
        ) from exc
