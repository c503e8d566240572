"""Image datasets in parquet: the verbs that write and read them."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from zoo.cluster.session import active_session
from zoo.errors import ContractError, InputError, NotYetError
from zoo.orca.data.image.chunk_file import Record, check_block_size, write_chunk
from zoo.orca.data.image.dataloader import read_as_dataloader
from zoo.orca.data.image.dataset_folder import chunk_name, open_dataset
from zoo.orca.data.image.publish import published, should_write
from zoo.orca.data.image.schema import Schema, check_schema, encode
from zoo.orca.data.storage import local_path, spark_path

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from torch.utils.data import DataLoader

__all__ = ["ParquetDataset", "read_parquet", "write_parquet"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Format:
    """A kind of input: its writer as module:function, or None while it has none."""

    writer: str | None
    required: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)


_FORMATS = {
    "coco": _Format(None),
    "image_folder": _Format(
        "image_folder:write_from_directory", ("directory",), {"label_map": None}
    ),
    "imagenet": _Format(None),
    "mnist": _Format("mnist:write_mnist", ("image_file", "label_file")),
    "voc": _Format(None),
}


class ParquetDataset:
    """Datasets made of a program's own records."""

    @staticmethod
    def write(
        path: str,
        generator: Iterable[Record],
        schema: Schema,
        block_size: int = 1000,
        write_mode: str = "overwrite",
        **kwargs: Any,
    ) -> None:
        """Write records as a dataset, from the driver.

        A Python generator lives in one process, so this one writes, a few megabytes at a time,
        whatever the number of records. `write_parquet` writes with the whole cluster.

        Args:
            path: The folder that the dataset will be.
            generator: Dicts with exactly the schema's keys. The value of an IMAGE column is the
                path of a file, of an NDARRAY column an array or a number.
            schema: The columns.
            block_size: Records in a chunk.
            write_mode: "overwrite", "error" or "errorifexists", or "ignore".
            **kwargs: Accepted for older programs; has no effect but a warning.

        Raises:
            ContractError: A record has other keys than the schema.
            InputError: There is no record, one cannot be written, or the path cannot be used.
        """
        if kwargs:
            logger.warning("ParquetDataset.write ignores %s", sorted(kwargs))
        check_block_size(block_size)
        check_schema(schema)
        target = local_path(path)
        if not should_write(target, write_mode):
            return
        with published(target, write_mode, encode(schema)) as draft:
            records, chunks = iter(generator), 0
            for first in records:
                block = chain((first,), islice(records, block_size - 1))
                write_chunk(draft / chunk_name(chunks), schema, block)
                chunks += 1
            if not chunks:
                raise InputError("at least one record", "none", "Check the generator.")

    @staticmethod
    def read_as_tf(path: str) -> Any:
        """Read a dataset for TensorFlow.

        Raises:
            NotYetError: Always, in this version.
        """
        raise _tensorflow_later()

    @staticmethod
    def read_as_torch(path: str) -> DataLoader[Any]:
        """Read a dataset as a torch `DataLoader`; see `read_parquet` for its settings."""
        return read_as_dataloader(path)


def write_parquet(format: str, output_path: str, *args: Any, **kwargs: Any) -> None:
    """Write files of a known format as a dataset, with Spark tasks.

    Args:
        format: "image_folder" (needs `directory`; see `write_from_directory`) or "mnist" (needs
            `image_file` and `label_file`; see `write_mnist`).
        output_path: The folder that the dataset will be.
        *args: Refused: the formats take keywords.
        **kwargs: What the format's writer takes.

    Raises:
        InputError: The format is unknown, or its writer cannot use what it got.
        ContractError: A keyword that the format needs is missing.
        NotYetError: The format is known and has no writer yet.
    """
    chosen = _FORMATS.get(format)
    if chosen is None:
        raise InputError(f"a format of {sorted(_FORMATS)}", repr(format), "Choose one of them.")
    if chosen.writer is None:
        ready = sorted(name for name, known in _FORMATS.items() if known.writer)
        raise NotYetError(f"a format of {ready}", repr(format), "Use ParquetDataset.write for now.")
    for keyword in chosen.required:
        if keyword not in kwargs:
            raise ContractError(
                f"the keyword {keyword} for format {format!r}", str(sorted(kwargs)), "Add it."
            )
    if args:
        raise InputError("keywords after the output path", repr(args), "Name each argument.")
    module, function = chosen.writer.split(":")
    write: Callable[..., None] = getattr(
        importlib.import_module(f"zoo.orca.data.image.{module}"), function
    )
    write(output_path=output_path, **{**chosen.defaults, **kwargs})


def read_parquet(
    format: str,
    path: str,
    transforms: Callable[[dict[str, Any]], Any] | None = None,
    config: Mapping[str, Any] | None = None,
    batch_size: int = 1,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """Read a dataset.

    Args:
        format: "spark" for a Spark DataFrame with the schema's columns, where images are the
            files' bytes and arrays are what `decode_ndarray` takes; "dataloader" for a torch
            `DataLoader`, see `read_as_dataloader`.
        path: The folder of the dataset.
        transforms: For "dataloader": applied to each record.
        config: For "dataloader": `num_shards`, `rank` and `num_workers`.
        batch_size: For "dataloader": records in a batch.
        *args: Refused.
        **kwargs: For "dataloader": `decoders`.

    Raises:
        InputError: The format is unknown, or there is no whole dataset at the path.
        ContractError: `num_shards` and `rank` do not fit the dataset or each other.
        NotYetError: The format is "tf_dataset".
    """
    if args:
        raise InputError("keywords after batch_size", repr(args), "Name each argument.")
    if format == "spark":
        return _read_as_frame(path)
    if format == "dataloader":
        return read_as_dataloader(path, transforms, config, batch_size, **kwargs)
    if format == "tf_dataset":
        raise _tensorflow_later()
    raise InputError(
        "a format of ['dataloader', 'spark', 'tf_dataset']", repr(format), "Choose one of them."
    )


def _read_as_frame(path: str) -> DataFrame:
    dataset = open_dataset(path)
    frame = active_session().read.parquet(spark_path(dataset.path))
    # Spark makes a column of the folder names, too; the schema says which are the dataset's own.
    return frame.select(*(f"`{name.replace('`', '``')}`" for name in dataset.schema))


def _tensorflow_later() -> NotYetError:
    return NotYetError(
        "format 'dataloader' or 'spark'", "TensorFlow", "Read 'spark' and train on the frame."
    )
