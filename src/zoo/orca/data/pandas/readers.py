"""`read_csv`, `read_json` and `read_parquet`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyspark import RDD
from pyspark.sql.types import StructType

from zoo.cluster.ranks.carried import folded
from zoo.cluster.settings import settings
from zoo.errors import InputError, ZooError
from zoo.orca.data.pandas.pandas_reader import pandas_shards, parquet_keywords
from zoo.orca.data.pandas.parquet_reader import arrow_shards
from zoo.orca.data.pandas.spark_reader import list_for_spark, parquet_shards
from zoo.orca.data.pandas.text_reader import csv_shards, json_shards
from zoo.orca.data.xshards.spark_xshards import SparkXShards

__all__ = ["FilePath", "read_csv", "read_json", "read_parquet"]

_log = logging.getLogger(__name__)

# Options that say nothing to a reader that always does so.
_SAME_TO_ARROW = {"mergeSchema", "recursiveFileLookup"}

FilePath = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A file, a folder, a pattern, or a list of them."""


@folded
def read_csv(file_path: FilePath, **kwargs: Any) -> SparkXShards:
    """Read CSV files into shards of pandas DataFrames, one for each partition.

    Rows come in the order of the file, and files in the order of the list, or by name (with
    numbers by value) for a folder or a pattern. Names that start with `_` or `.` are hidden.

    Both backends read with pandas' own parser, so quotes, missing marks, encodings and packed
    files are what pandas takes them for. The spark backend besides

    - cuts large files into parts of 128 MB (`spark.sql.files.maxPartitionBytes`), between two
      records: a line break in quotes is none. Files that are packed, not in UTF-8 or an encoding
      of one byte a character, or have a `lineterminator` or a list of `skiprows`, stay whole, and
      so do those with quotes that are read with `comment`, `escapechar`, `skipinitialspace`,
      `doublequote=False` or a pattern for `sep`. On file systems of Hadoop so does a file that has
      a line break in quotes, and where more than 500 tasks are needed there, the order of rows
      is Spark's, as a warning says;
    - reads all values twice, to give a column one type in all shards and files: the type that
      pandas finds in a single file. Only what is a full date in every value, such as 2025-06-01
      or 2025-06-01 12:30, becomes datetime64[ns]; pass `dtype=str` to keep the text;
    - wants the same columns in the same order in all files. Empty files are passed over;
    - takes folders that are named `column=value` for values of a column.

    Keywords of the spark backend: `sep` or `delimiter` (one character, or a pattern; what makes no
    sense as one, such as "||", is text), `header` ("infer", 0, None; without a header columns are
    named "0", "1", ...), `names` (a list, or a schema in Spark's DDL such as "a INT, b STRING"),
    `usecols`, `dtype` (values that would change are an error), `index_col`, `squeeze`, and, as in
    pandas, `comment`, `compression`, `decimal`, `doublequote`, `encoding`, `encoding_errors`,
    `escapechar`, `false_values`, `float_precision`, `keep_default_na`, `lineterminator`,
    `na_filter`, `na_values`, `on_bad_lines`, `quotechar`, `quoting`, `skip_blank_lines`,
    `skipinitialspace`, `skiprows` (lines of each file), `thousands`, `true_values`.
    `recursiveFileLookup=True` looks into folders. `mangle_dupe_cols` can only be True: a second
    column `a` is `a.1`. `parse_dates` can only be False. `cache_dates`, `low_memory`, `memory_map`
    and `multiLine=True` change nothing. All others are refused.

    The pandas backend takes all keywords of `pandas.read_csv`.

    Args:
        file_path: A file, a folder, a pattern, or a list of them; plain paths, `file://`,
            `hdfs://`, `s3://` and whatever else the backend reaches.
        **kwargs: The keywords.

    Raises:
        InputError: A path is not there, a keyword is unknown or cannot be used, files do not
            agree in their columns, lines are longer than the first, or values do not fit `dtype`.
        ContractError: `mangle_dupe_cols` or `parse_dates` ask for what the spark backend lacks.
    """
    if settings.pandas_read_backend == "pandas":
        return _shards(lambda: pandas_shards(file_path, "csv", kwargs))
    return _shards(lambda: csv_shards(file_path, kwargs))


@folded
def read_json(file_path: FilePath, **kwargs: Any) -> SparkXShards:
    """Read JSON files into shards of pandas DataFrames, one for each partition.

    The spark backend reads one object from each line, or one list of objects from a file that
    begins with a bracket; `lines` says that all files are of the one kind or the other. Large
    files of lines are cut. Columns come in the order in which they are met first. Values keep
    their type: a text stays a text, also one of digits or a date, an object is a dict. Numbers
    with missing values are float64.

    Keywords of the spark backend: `lines`, `orient` ("records"), `encoding`, `encoding_errors`,
    `compression`, `schema` (the columns and their types, as a StructType or in Spark's DDL),
    `recursiveFileLookup`, and `names`, `usecols`, `dtype`, `index_col` and `squeeze` as in
    `read_csv`. The pandas backend takes the keywords of `pandas.read_json`: there, files of lines
    need `lines=True`.

    Args:
        file_path: As in `read_csv`.
        **kwargs: The keywords.

    Raises:
        InputError: A path is not there, a keyword is unknown or cannot be used, or what is in a
            file is no record.
    """
    if settings.pandas_read_backend == "pandas":
        return _shards(lambda: pandas_shards(file_path, "json", kwargs))
    return _shards(lambda: json_shards(file_path, kwargs))


@folded
def read_parquet(
    file_path: FilePath,
    columns: Sequence[str] | None = None,
    schema: StructType | str | None = None,
    **options: Any,
) -> SparkXShards:
    """Read parquet files into shards of pandas DataFrames, one for each partition.

    Columns that only some of several files have are filled with missing values, unless
    `mergeSchema=False` or a schema is given. What Spark's reader cannot read, such as half
    precision or types of other programs, is read by Arrow, with a warning. Only when more than 500
    tasks would be needed for whole files, the order of rows is Spark's; a warning says so.

    Args:
        file_path: As in `read_csv`.
        columns: Which columns, in which order; None for all.
        schema: The columns and their types, as a StructType or in Spark's DDL.
        **options: Options of Spark's reader, or keywords of `pandas.read_parquet`.

    Raises:
        InputError: A path or a column is not there, an option is unknown, the schema is none, or
            a file is damaged.
    """
    if settings.pandas_read_backend == "pandas":
        keywords = parquet_keywords(columns, schema, options)
        return _shards(lambda: pandas_shards(file_path, "parquet", keywords))
    try:
        return SparkXShards(parquet_shards(file_path, columns, schema, options))
    except ZooError:
        raise
    except Exception as exc:  # noqa: BLE001 - what Spark's reader cannot read another one may
        return _through_arrow(exc, file_path, columns, schema, options)


def _through_arrow(
    error: Exception,
    file_path: FilePath,
    columns: Sequence[str] | None,
    schema: StructType | str | None,
    options: Mapping[str, Any],
) -> SparkXShards:
    """Read Parquet files that Spark's reader has failed with.

    Raises:
        InputError: Arrow cannot read them, either.
    """
    listed = list_for_spark(file_path, options)
    said = " ".join(str(error).split())[:300]
    if schema is not None or listed.root is not None or options.keys() - _SAME_TO_ARROW:
        _warn_of(error)
        raise error
    try:
        shards = SparkXShards(arrow_shards(listed.files, columns))
    except InputError as exc:
        exc.add_note(f"Spark's reader said: {said}")
        raise exc from error
    _log.warning("Spark's reader cannot take %s (%s): Arrow has read it", file_path, said)
    return shards


def _shards(read: Callable[[], RDD[Any]]) -> SparkXShards:
    """Make shards; an error while their data is read comes with a hint."""
    try:
        return SparkXShards(read())
    except ZooError:
        # It says itself what to do.
        raise
    except Exception as exc:
        _warn_of(exc)
        raise


def _warn_of(error: Exception) -> None:
    backend = settings.pandas_read_backend
    other = "pandas" if backend == "spark" else "spark"
    _log.warning(
        "The %s backend failed to read: %s. Perhaps the other one can: set "
        "OrcaContext.pandas_read_backend = %r",
        backend,
        "; ".join([str(error), *getattr(error, "__notes__", [])]),
        other,
    )
