"""The pandas backend: every file is read by pandas, whole, in a Spark task."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import pandas as pd
import pyarrow.parquet as pq
from pyspark import RDD
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

from zoo.cluster.session.lifecycle import active_session
from zoo.errors import InputError
from zoo.orca.data.pandas.file_list import list_files
from zoo.orca.data.pandas.keywords import refuse_unknown
from zoo.orca.data.pandas.packing import packing
from zoo.orca.data.pandas.spark_reader import spark_schema
from zoo.orca.data.storage import locate
from zoo.orca.data.xshards.jobs import map_shards

__all__ = ["FileKind", "pandas_shards", "parquet_keywords"]

FileKind = Literal["csv", "json", "parquet"]
_READERS: dict[FileKind, Callable[..., Any]] = {
    "csv": pd.read_csv,
    "json": pd.read_json,
    "parquet": pd.read_parquet,
}
# What a reader calls its file, and the rest that pandas passes on to Arrow.
_FILE = ("filepath_or_buffer", "kwargs", "path", "path_or_buf", "source")
# Of these pandas makes an iterator.
_ITERATING = ("chunksize", "iterator")


def pandas_shards(file_path: object, kind: FileKind, keywords: Mapping[str, Any]) -> RDD[Any]:
    """Read files with pandas: one DataFrame for each partition, from neighbouring files.

    There are as many partitions as cores, or as files if those are fewer.

    Args:
        file_path: See `list_files`; any file system that fsspec knows and the tasks reach.
        kind: What the files are.
        keywords: Keywords of pandas' reader, and `squeeze` and `mangle_dupe_cols`, which pandas
            had before.

    Raises:
        InputError: The path is not there, or a keyword is unknown or does not make DataFrames.
    """
    wrong = [name for name in _ITERATING if keywords.get(name)]
    if wrong:
        raise InputError("keywords that give a DataFrame", ", ".join(wrong), "Leave them out.")
    rest = dict(keywords)
    squeeze = bool(rest.pop("squeeze", False))
    if rest.get("mangle_dupe_cols") is True:
        del rest["mangle_dupe_cols"]
    refuse_unknown(rest, _known(kind))
    files = [str(one) for one in list_files(file_path, locate, missing=_MISSING).files]
    context = active_session().sparkContext
    count = min(len(files), context.defaultParallelism)
    cuts = [i * len(files) // count for i in range(count + 1)]
    parts = [files[start:stop] for start, stop in zip(cuts[:-1], cuts[1:], strict=True)]
    return map_shards(context.parallelize(parts, count), _read_files, kind, rest, squeeze)


_MISSING = "No such file or directory"


def _known(kind: FileKind) -> set[str]:
    readers = [_READERS[kind], *([pq.read_table] if kind == "parquet" else [])]
    return {name for one in readers for name in inspect.signature(one).parameters}.difference(_FILE)


def parquet_keywords(
    columns: Sequence[str] | None, schema: StructType | str | None, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Keywords for pandas' `read_parquet`, which takes the schema as Arrow's."""
    keywords = {"columns": None if columns is None else list(columns), **options}
    if schema is not None:
        keywords["schema"] = to_arrow_schema(spark_schema(schema))
    return keywords


def _read_files(
    files: Sequence[str], kind: FileKind, keywords: Mapping[str, Any], squeeze: bool
) -> Any:
    frames = [_read_file(file, kind, keywords) for file in files]
    plain = all(isinstance(frame.index, pd.RangeIndex) for frame in frames)
    frame = frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=plain)
    return frame.squeeze("columns") if squeeze else frame


def _read_file(file: str, kind: FileKind, keywords: Mapping[str, Any]) -> Any:
    # It holds the file system, some of which close what they opened when they go.
    place = locate(file)
    if kind != "parquet":
        packed = packing(place.name, keywords.get("compression", "infer"))
        keywords = {**keywords, "compression": packed}
    try:
        with place.open("rb") as stream:
            return _READERS[kind](stream, **keywords)
    except Exception as exc:
        exc.add_note(f"While pandas read {file}.")
        raise
