"""`read_csv`, `read_json` and `read_parquet`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

from pyspark import RDD
from pyspark.sql.types import StructType

from zoo.cluster.settings import settings
from zoo.errors import ZooError
from zoo.orca.data.pandas.pandas_reader import pandas_shards, parquet_keywords
from zoo.orca.data.pandas.spark_reader import csv_shards, json_shards, parquet_shards
from zoo.orca.data.xshards.spark_xshards import SparkXShards

__all__ = ["FilePath", "read_csv", "read_json", "read_parquet"]

logger = logging.getLogger(__name__)

FilePath = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A file, a folder, a pattern, or a list of them."""


def read_csv(file_path: FilePath, **kwargs: Any) -> SparkXShards:
    """Read CSV files into shards of pandas DataFrames, one for each partition.

    Rows come in the order of the file, and files in the order of the list, or by name (with
    numbers by value) for a folder or a pattern. Names that start with `_` or `.` are hidden.
    Only when more than 500 tasks would be needed for whole files, the order is Spark's; a
    warning says so.

    With the spark backend all files must have the same columns in the same order. Their types
    are found by reading all values once before: whole numbers become int64, reals float64, dates
    and times datetime64[ns], all else text. Files are read in parts of 128 MB
    (`spark.sql.files.maxPartitionBytes`), packed ones and those with `multiLine` in one. Empty
    files are passed over.

    Keywords of the spark backend: `sep`, `header` ("infer", 0, None), `names` (a list, or a
    schema in Spark's DDL such as "a INT, b STRING"), `usecols`, `dtype`, `index_col`, `squeeze`,
    `comment` (marks whole lines only), `quotechar`, `escapechar`. `mangle_dupe_cols` can only be
    True: a second column `a` is `a.1`. `parse_dates` can only be False: what looks like dates
    are dates. All others are options of Spark's reader, for example `multiLine=True` for values
    with line breaks in quotes, which otherwise end the row.

    The pandas backend takes all keywords of `pandas.read_csv`.

    Args:
        file_path: A file, a folder, a pattern, or a list of them; plain paths, `file://`,
            `hdfs://`, `s3://` and whatever else the backend reaches.
        **kwargs: The keywords.

    Raises:
        InputError: A path is not there, a keyword cannot be used, files do not agree in their
            columns, or values do not fit `dtype`.
        ContractError: `mangle_dupe_cols` or `parse_dates` ask for what the spark backend lacks.
    """
    if settings.pandas_read_backend == "pandas":
        return _shards(lambda: pandas_shards(file_path, "csv", kwargs))
    return _shards(lambda: csv_shards(file_path, kwargs))


def read_json(file_path: FilePath, **kwargs: Any) -> SparkXShards:
    """Read JSON files into shards of pandas DataFrames, one for each partition.

    The spark backend reads an object from each line; with `lines=False`, a list of objects from
    each file. Columns come in the order of the alphabet. `schema` is a StructType or Spark's
    DDL, other keywords are options of Spark's reader. The pandas backend takes the keywords of
    `pandas.read_json`: there, files of lines need `lines=True`.

    Args:
        file_path: As in `read_csv`.
        **kwargs: The keywords.

    Raises:
        InputError: A path is not there, a keyword cannot be used, or there is no JSON in it.
    """
    if settings.pandas_read_backend == "pandas":
        return _shards(lambda: pandas_shards(file_path, "json", kwargs))
    return _shards(lambda: json_shards(file_path, kwargs))


def read_parquet(
    file_path: FilePath,
    columns: Sequence[str] | None = None,
    schema: StructType | str | None = None,
    **options: Any,
) -> SparkXShards:
    """Read parquet files into shards of pandas DataFrames, one for each partition.

    Columns that only some of several files have are filled with missing values, unless
    `mergeSchema=False` or a schema is given.

    Args:
        file_path: As in `read_csv`.
        columns: Which columns, in which order; None for all.
        schema: The columns and their types, as a StructType or in Spark's DDL.
        **options: Options of Spark's reader, or keywords of `pandas.read_parquet`.

    Raises:
        InputError: A path or a column is not there, or the schema is none.
    """
    if settings.pandas_read_backend == "pandas":
        keywords = parquet_keywords(columns, schema, options)
        return _shards(lambda: pandas_shards(file_path, "parquet", keywords))
    return _shards(lambda: parquet_shards(file_path, columns, schema, options))


def _shards(read: Callable[[], RDD[Any]]) -> SparkXShards:
    """Make shards; an error while their data is read comes with a hint."""
    try:
        return SparkXShards(read())
    except ZooError:
        # It says itself what to do.
        raise
    except Exception as exc:
        backend = settings.pandas_read_backend
        other = "pandas" if backend == "spark" else "spark"
        logger.warning(
            "The %s backend failed to read: %s. Perhaps the other one can: set "
            "OrcaContext.pandas_read_backend = %r",
            backend,
            "; ".join([str(exc), *getattr(exc, "__notes__", [])]),
            other,
        )
        raise
