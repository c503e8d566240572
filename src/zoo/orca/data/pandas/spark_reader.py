"""Parquet through Spark's reader, with the order of pandas; and what a path names for Spark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pyspark import RDD
from pyspark.errors import ParseException
from pyspark.sql import DataFrameReader
from pyspark.sql import types as T

from zoo.cluster.session.lifecycle import active_session
from zoo.errors import InputError
from zoo.orca.data.file_schema import without_foreign_classes
from zoo.orca.data.pandas.file_list import FileList, list_files
from zoo.orca.data.pandas.hadoop_place import HadoopPlace, place_for_spark, text_for_spark
from zoo.orca.data.pandas.keywords import refuse_unknown
from zoo.orca.data.pandas.ordered_scan import ordered_shards
from zoo.orca.data.pandas.parquet_footers import check_footers

__all__ = ["list_for_spark", "parquet_shards", "spark_schema"]

_File = Path | HadoopPlace
_Read = Callable[[], DataFrameReader]
_MISSING = "Path does not exist"
_OPTIONS = frozenset(
    {"basePath", "datetimeRebaseMode", "ignoreCorruptFiles", "ignoreMissingFiles"}
    | {"int96RebaseMode", "mergeSchema", "modifiedAfter", "modifiedBefore", "pathGlobFilter"}
    | {"recursiveFileLookup"}
)
_PANDAS_ONLY = frozenset(
    {"dtype_backend", "engine", "filesystem", "filters", "storage_options", "use_nullable_dtypes"}
)


def parquet_shards(
    file_path: object, columns: Sequence[str] | None, schema: object, options: Mapping[str, Any]
) -> RDD[Any]:
    """Read parquet files; see `read_parquet`.

    Raises:
        InputError: The path, the schema or an option cannot be used, a column is not there, or
            a file is damaged.
        UnfitForSparkError: Spark's reader would change what is in the files.
    """
    refuse_unknown(options, _OPTIONS, _PANDAS_ONLY)
    listed = list_for_spark(file_path, options)
    if _text(options.get("ignoreCorruptFiles")) != "true":
        check_footers(listed.files, exact=schema is None)
    read = _reader(listed, {"mergeSchema": len(listed.files) > 1, **options})
    given = None if schema is None else spark_schema(schema)
    full = given or without_foreign_classes(read().parquet(*_texts(listed.files))).schema
    chosen = list(full.names) if columns is None else list(columns)
    missing = [name for name in chosen if name not in full.names]
    if missing or not chosen:
        raise InputError(
            f"columns among {', '.join(full.names)}",
            ", ".join(map(str, missing)) or "none",
            "Check their names.",
        )
    return ordered_shards(listed.files, lambda texts: read().schema(full).parquet(*texts), chosen)


def list_for_spark(file_path: object, options: Mapping[str, Any]) -> FileList:
    """List the files that a path names; see `list_files`.

    Raises:
        InputError: A path is not there, or Spark cannot read it.
    """
    deep = _text(options.get("recursiveFileLookup")) == "true"
    listed = list_files(
        file_path,
        place_for_spark,
        missing=_MISSING,
        # As Spark does: subfolders that are named for the value of a column.
        enter=lambda name: deep or "=" in name,
    )
    for file in listed.files:
        # Hadoop's checksum of such a local file has a name that Hadoop cannot parse.
        if ":" in file.name and isinstance(file, Path):
            raise InputError(
                "names of files without a colon, for Spark",
                str(file),
                "Rename it, or set OrcaContext.pandas_read_backend = 'pandas'.",
            )
    return listed


def _reader(listed: FileList, options: Mapping[str, Any]) -> _Read:
    texts = {name: _text(value) for name, value in options.items() if value is not None}
    if listed.root is not None and "basePath" not in texts:
        texts["basePath"] = text_for_spark(listed.root)
    return lambda: active_session().read.options(**texts)


def _texts(files: Sequence[_File]) -> list[str]:
    return list(dict.fromkeys(map(text_for_spark, files)))


def _text(option: object) -> str:
    return str(option).lower() if isinstance(option, bool) else str(option)


def spark_schema(schema: object) -> T.StructType:
    """A schema that is one, or is written in Spark's DDL.

    Raises:
        InputError: It is neither.
    """
    if isinstance(schema, T.StructType):
        return schema
    try:
        if isinstance(schema, str):
            return cast("T.StructType", T.StructType.fromDDL(schema))
    except ParseException as exc:
        raise InputError(
            "a schema in Spark's DDL", f"{schema!r} ({exc})", "Write 'a INT, b STRING', say."
        ) from exc
    raise InputError("a StructType or a schema in Spark's DDL", repr(schema), "Give one.")
