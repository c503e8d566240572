"""Image datasets in parquet: the verbs that write and read them."""

from __future__ import annotations

import importlib
import inspect
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from zoo.cluster.session.lifecycle import active_session
from zoo.errors import ContractError, InputError
from zoo.orca.data.file_schema import without_foreign_classes
from zoo.orca.data.image.dataset_schema import Schema, check_schema, encode
from zoo.orca.data.image.formats.image_folder import write_from_directory
from zoo.orca.data.image.formats.mnist import write_mnist
from zoo.orca.data.image.formats.voc import write_voc
from zoo.orca.data.image.layout.dataset_folder import chunk_name, open_dataset
from zoo.orca.data.image.layout.quarantine import BadRecord
from zoo.orca.data.image.on_error import OnError
from zoo.orca.data.image.writing.chunk_file import ChunkResult, check_block_size, write_chunk
from zoo.orca.data.image.writing.publish import published, should_write
from zoo.orca.data.image.writing.record_columns import Record
from zoo.orca.data.image.writing.verify import Screening, Verify
from zoo.orca.data.image.writing.write_summary import write_manifest
from zoo.orca.data.storage import locate, spark_path

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from torch.utils.data import DataLoader

# The writers have homes of their own; older programs import them from here.
__all__ = [
    "ParquetDataset",
    "read_parquet",
    "write_from_directory",
    "write_mnist",
    "write_parquet",
    "write_voc",
]

_log = logging.getLogger(__name__)


_HERE = "zoo.orca.data.image"


@dataclass(frozen=True)
class _Format:
    """A kind of input: its writer as module:function, and what that needs."""

    writer: str
    required: tuple[str, ...]
    defaults: Mapping[str, Any] = field(default_factory=dict)


_FORMATS = {
    "coco": _Format("formats.coco:write_coco", ("image_dir", "annotation_file")),
    "generator": _Format("parquet_dataset:_write_generator", ("generator", "schema")),
    "image_folder": _Format(
        "formats.image_folder:write_from_directory", ("directory",), {"label_map": None}
    ),
    "imagenet": _Format("formats.imagenet:write_imagenet", ("imagenet_path",)),
    "mnist": _Format("formats.mnist:write_mnist", ("image_file", "label_file")),
    "voc": _Format("formats.voc:write_voc", ("voc_root_path", "splits_names")),
}

_READERS = {
    "dataloader": "reading.dataloader:read_as_dataloader",
    "spark": "parquet_dataset:_read_as_frame",
    "tf_dataset": "reading.tf_reader:read_as_tf_dataset",
}
# What the verbs pass on themselves.
_FIXED = frozenset(("path", "output_path", "transforms", "config", "batch_size"))


class ParquetDataset:
    """Datasets made of a program's own records."""

    @staticmethod
    def write(
        path: str,
        generator: Iterable[Record | BadRecord],
        schema: Schema,
        block_size: int = 1000,
        write_mode: str = "overwrite",
        *,
        on_error: OnError = "fail",
        verify: Verify = "header",
        **kwargs: Any,
    ) -> None:
        """Write records as a dataset, from the driver.

        A Python generator lives in one process, so this one writes, a few megabytes at a time,
        whatever the number of records. `write_parquet` writes with the whole cluster.

        Args:
            path: The folder that the dataset will be, on any file system.
            generator: Dicts with exactly the schema's keys. The value of an IMAGE column is the
                path of a file, of an NDARRAY column an array or a number.
            schema: The columns.
            block_size: Records in a chunk.
            write_mode: "overwrite", "error" or "errorifexists", or "ignore".
            on_error: What becomes of image files that cannot be read or are no images: "fail",
                "skip" or "quarantine"; see `write_from_directory`.
            verify: What is asked of image files: "none", "header" or "decode".
            **kwargs: Accepted for older programs; has no effect but a warning.

        Raises:
            ContractError: A record has other keys than the schema.
            InputError: There is no record, one cannot be written, or the path cannot be used.
        """
        if kwargs:
            _log.warning("ParquetDataset.write ignores %s", sorted(kwargs))
        check_block_size(block_size)
        check_schema(schema)
        screening = Screening(on_error, verify)
        target = locate(path)
        if not should_write(target, write_mode):
            return
        with published(target, write_mode, encode(schema)) as folder:
            records = iter(generator)
            chunks: list[ChunkResult] = []
            for first in records:
                block = chain((first,), islice(records, block_size - 1))
                place = folder / chunk_name(len(chunks))
                chunks.append(write_chunk(place, schema, block, screening))
            if not chunks:
                raise InputError("at least one record", "none", "Check the generator.")
            write_manifest(folder, chunks, screening, None)

    @staticmethod
    def read_as_tf(path: str) -> Any:
        """Read a dataset as a `zoo.orca.data.tf.data.Dataset`.

        Raises:
            MissingExtraError: TensorFlow is not installed.
        """
        return _load("reading.tf_reader:read_as_tf")(path)

    @staticmethod
    def read_as_torch(path: str) -> DataLoader[Any]:
        """Read a dataset as a torch `DataLoader`; see `read_parquet` for its settings."""
        loader: DataLoader[Any] = _load("reading.dataloader:read_as_dataloader")(path)
        return loader


def _write_generator(output_path: str, **kwargs: Any) -> None:
    ParquetDataset.write(output_path, **kwargs)


def write_parquet(format: str, output_path: str, *args: Any, **kwargs: Any) -> None:
    """Write files of a known format as a dataset, with Spark tasks.

    Args:
        format: "image_folder" (needs `directory`; see `write_from_directory`), "imagenet"
            (`imagenet_path`; see `write_imagenet`), "voc" (`voc_root_path` and `splits_names`; see
            `write_voc`), "coco" (`image_dir` and `annotation_file`; see `write_coco`), "mnist"
            (`image_file` and `label_file`; see `write_mnist`), or "generator" for a program's own
            records (`generator` and `schema`; see `ParquetDataset.write`).
        output_path: The folder that the dataset will be.
        *args: Refused: the formats take keywords.
        **kwargs: What the format's writer takes.

    Raises:
        InputError: The format or a keyword is unknown, or its writer cannot use what it got.
        ContractError: A keyword that the format needs is missing.
    """
    chosen = _FORMATS.get(format)
    if chosen is None:
        raise InputError(f"a format of {sorted(_FORMATS)}", repr(format), "Choose one of them.")
    for keyword in chosen.required:
        if keyword not in kwargs:
            raise ContractError(
                f"the keyword {keyword} for format {format!r}", str(sorted(kwargs)), "Add it."
            )
    if args:
        raise InputError("keywords after the output path", repr(args), "Name each argument.")
    write = _load(chosen.writer)
    _check_keywords(write if format != "generator" else ParquetDataset.write, format, kwargs)
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
            `DataLoader`, see `read_as_dataloader`; "tf_dataset" for a `tf.data.Dataset`, see
            `read_as_tf_dataset`.
        path: The folder of the dataset.
        transforms: Applied to each record; not for "spark".
        config: `num_shards`, `rank`, `num_workers` and so on; not for "spark".
        batch_size: Records in a batch; a `tf.data.Dataset` of one is of records, not of batches.
            Not for "spark".
        *args: Refused.
        **kwargs: What the format's reader takes besides.

    Raises:
        InputError: The format or a keyword is unknown, or there is no whole dataset at the path.
        ContractError: `num_shards` and `rank` do not fit the dataset or each other.
        MissingExtraError: torch or TensorFlow is needed and not installed.
    """
    if args:
        raise InputError("keywords after batch_size", repr(args), "Name each argument.")
    if format not in _READERS:
        raise InputError(f"a format of {sorted(_READERS)}", repr(format), "Choose one of them.")
    read = _load(_READERS[format])
    _check_keywords(read, format, kwargs)
    if format == "spark":
        _check_unused(transforms=transforms, config=config, batch_size=batch_size != 1)
        return read(path)
    size = None if format == "tf_dataset" and batch_size == 1 else batch_size
    return read(path, transforms=transforms, config=config, batch_size=size, **kwargs)


def _load(name: str) -> Callable[..., Any]:
    module, function = name.split(":")
    found: Callable[..., Any] = getattr(importlib.import_module(f"{_HERE}.{module}"), function)
    return found


def _check_keywords(function: Callable[..., Any], format: str, given: Mapping[str, Any]) -> None:
    """Refuse a misspelt keyword before any work is done, and say which there are."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(function).parameters.values()
    known = [p.name for p in parameters if p.kind in kinds and p.name not in _FIXED]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise InputError(
            f"keywords of {known} for format {format!r}", str(unknown), "Correct the names."
        )


def _check_unused(**given: Any) -> None:
    """Refuse settings that are given, as far as they would do nothing."""
    used = [name for name, value in given.items() if value]
    if used:
        raise InputError(
            "no settings beside the path for format 'spark'",
            str(used),
            "Leave them out, and work on the DataFrame; transform_images applies a pipeline.",
        )


def _read_as_frame(path: str) -> DataFrame:
    dataset = open_dataset(path)
    frame = without_foreign_classes(active_session().read.parquet(spark_path(dataset.path)))
    # Spark makes a column of the folder names, too; the schema says which are the dataset's own.
    return frame.select(*(f"`{name.replace('`', '``')}`" for name in dataset.schema))
