"""The spark backend: Spark's readers, with the keywords and the order of pandas."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import unquote

from pyspark import RDD
from pyspark.errors import ParseException
from pyspark.sql import DataFrameReader
from pyspark.sql import types as T

from zoo.cluster.session import active_session
from zoo.errors import InputError
from zoo.orca.data.pandas.csv_columns import choose_columns, distinct_names
from zoo.orca.data.pandas.csv_header import FirstLine, first_lines
from zoo.orca.data.pandas.csv_keywords import (
    CsvKeywords,
    csv_keywords,
    option_text,
    refuse_pandas_only,
)
from zoo.orca.data.pandas.file_list import FileList, list_files
from zoo.orca.data.pandas.hadoop_place import HadoopPlace, place_for_spark, text_for_spark
from zoo.orca.data.pandas.ordered_scan import ordered_shards
from zoo.orca.data.xshards.jobs import map_shards

__all__ = ["csv_shards", "json_shards", "parquet_shards"]

_File = Path | HadoopPlace
_Read = Callable[[], DataFrameReader]
_MISSING = "Path does not exist"
_JSON_PANDAS_ONLY = frozenset(
    {"chunksize", "convert_axes", "convert_dates", "date_unit", "dtype", "dtype_backend"}
    | {"keep_default_dates", "nrows", "precise_float", "typ"}
)
# From narrow to wide; what is not here, or not like this, becomes text.
_NUMBERS: list[type[T.DataType]] = [T.IntegerType, T.LongType, T.DecimalType, T.DoubleType]


def csv_shards(file_path: object, keywords: Mapping[str, Any]) -> RDD[Any]:
    """Read CSV files; see `read_csv`.

    Raises:
        InputError: The path or a keyword cannot be used, or the files have different columns.
        ContractError: A keyword has a value that the reference forbids.
    """
    wanted = csv_keywords(keywords)
    schema = _schema(wanted.names) if isinstance(wanted.names, str) else None
    if schema is not None:
        wanted = replace(wanted, names=tuple(_ddl_names(schema)))
    listed = _list(file_path, wanted.options)
    found = _with_lines(listed, wanted)
    choice = choose_columns(found.header, wanted)
    read = _reader(listed, {**wanted.spark_options, "header": wanted.header == 0})
    kinds = _inferred(read, found, wanted) if schema is None else _kinds(schema)
    plain = _plain_names(found.header)
    full = T.StructType()
    for at, (name, kind) in enumerate(zip(plain, kinds, strict=True)):
        full.add(name, T.StringType() if at in choice.texts else kind)
    shards = ordered_shards(
        found.files,
        lambda texts: read().schema(full).csv(texts),
        [plain[at] for at in choice.positions],
    )
    return map_shards(shards, choice)


def json_shards(file_path: object, keywords: Mapping[str, Any]) -> RDD[Any]:
    """Read JSON files; see `read_json`.

    Raises:
        InputError: The path or a keyword cannot be used, or the files hold no JSON records.
    """
    options = dict(keywords)
    refuse_pandas_only(options, _JSON_PANDAS_ONLY)
    orient = options.pop("orient", None)
    if orient not in (None, "records"):
        raise InputError(
            "orient='records'",
            repr(orient),
            "Set OrcaContext.pandas_read_backend = 'pandas' for the others.",
        )
    if options.pop("lines", None) is False:
        options.setdefault("multiLine", True)
    given = _schema(options.pop("schema", None))
    listed = _list(file_path, options)
    read = _reader(listed, options)
    schema = given or read().json(_texts(listed.files)).schema
    if not {field.name for field in schema} - {"_corrupt_record"}:
        raise InputError(
            "a JSON object on each line",
            f"none in {file_path}",
            "Pass lines=False for files that hold one list of objects.",
        )
    return ordered_shards(
        listed.files, lambda texts: read().schema(schema).json(texts), schema.names
    )


def parquet_shards(
    file_path: object, columns: Sequence[str] | None, schema: object, options: Mapping[str, Any]
) -> RDD[Any]:
    """Read parquet files; see `read_parquet`.

    Raises:
        InputError: The path, the schema or an option cannot be used, or a column is not there.
    """
    listed = _list(file_path, options)
    read = _reader(listed, {"mergeSchema": len(listed.files) > 1, **options})
    full = _schema(schema) or read().parquet(*_texts(listed.files)).schema
    chosen = list(full.names) if columns is None else list(columns)
    missing = [name for name in chosen if name not in full.names]
    if missing or not chosen:
        raise InputError(
            f"columns among {', '.join(full.names)}",
            ", ".join(map(str, missing)) or "none",
            "Check their names.",
        )
    return ordered_shards(listed.files, lambda texts: read().schema(full).parquet(*texts), chosen)


def _list(file_path: object, options: Mapping[str, Any]) -> FileList:
    deep = any(
        name.lower() == "recursivefilelookup" and option_text(value) == "true"
        for name, value in options.items()
    )
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
    texts = {name: option_text(value) for name, value in options.items() if value is not None}
    if listed.root is not None and "basepath" not in {name.lower() for name in texts}:
        texts["basePath"] = text_for_spark(listed.root)
    return lambda: active_session().read.options(**texts)


def _texts(files: Sequence[_File]) -> list[str]:
    return list(dict.fromkeys(map(text_for_spark, files)))


def _schema(schema: object) -> T.StructType | None:
    if schema is None or isinstance(schema, T.StructType):
        return schema
    try:
        if isinstance(schema, str):
            return cast("T.StructType", T.StructType.fromDDL(schema))
    except ParseException as exc:
        raise InputError(
            "a schema in Spark's DDL", f"{schema!r} ({exc})", "Write 'a INT, b STRING', say."
        ) from exc
    raise InputError("a StructType or a schema in Spark's DDL", repr(schema), "Give one.")


def _kinds(schema: T.StructType) -> list[T.DataType]:
    return [field.dataType for field in schema]


def _ddl_names(schema: T.StructType) -> list[str]:
    twice = {name for name in schema.names if schema.names.count(name) > 1}
    if twice:
        raise InputError(
            "names that differ", f"duplicates: {', '.join(sorted(twice))}", "Rename them."
        )
    return list(schema.names)


class _CsvFiles(NamedTuple):
    """CSV files that hold lines, the first line of each, and the names of their columns."""

    files: list[_File]
    lines: list[FirstLine]
    header: list[str]


def _with_lines(listed: FileList, keywords: CsvKeywords) -> _CsvFiles:
    """Look at the first line of each file.

    Raises:
        InputError: No file holds a line, or a file has other columns than the first.
    """
    lines = [
        line if line.values is not None else _asked(file, keywords)
        for file, line in zip(listed.files, first_lines(listed.files, keywords), strict=True)
    ]
    held = [(file, line) for file, line in zip(listed.files, lines, strict=True) if line.values]
    if not held:
        raise InputError(
            "a file with a line of values",
            f"none in {listed.files[0]}",
            "There are no columns to read.",
        )
    first = held[0][1].values or ()
    by_name = keywords.header == 0 and keywords.names is None
    for file, line in held[1:]:
        found = line.values or ()
        if (found != first) if by_name else (len(found) != len(first)):
            raise InputError(
                f"the same columns in all files: {_shown(first)} as in {held[0][0]}",
                f"{_shown(found)} in {file}",
                "Read files of one kind at a time.",
            )
    names = distinct_names(first) if keywords.header == 0 else [str(i) for i in range(len(first))]
    names += _partition_columns(held[0][0], listed.root)
    return _CsvFiles([file for file, _ in held], [line for _, line in held], names)


def _partition_columns(file: _File, root: Any) -> list[str]:
    names: list[str] = []
    folder: Any = file.parent
    while root is not None and folder not in (root, folder.parent):
        name, equals, _ = folder.name.partition("=")
        names = [unquote(name), *names] if equals else names
        folder = folder.parent
    return names


def _shown(line: Sequence[str]) -> str:
    shown = ", ".join(line)
    return f"{len(line)} columns ({shown[:200]}{'...' if len(shown) > 200 else ''})"


def _asked(file: _File, keywords: CsvKeywords) -> FirstLine:
    options = {**keywords.spark_options, "header": "false"}
    rows = active_session().read.options(**options).csv(text_for_spark(file)).head(1)
    return FirstLine(tuple(value or "" for value in rows[0]) if rows else ())


def _plain_names(header: Sequence[str]) -> list[str]:
    """Names under which Spark reads: those of the file, which it compares, where it can."""
    if len({name.casefold() for name in header}) == len(header) and "_metadata" not in header:
        return list(header)
    return [f"_c{at}" for at in range(len(header))]


def _inferred(read: _Read, found: _CsvFiles, keywords: CsvKeywords) -> list[T.DataType]:
    """One type for each column, from all values of all files."""
    alike: dict[str, list[_File]] = {}
    for file, line in zip(found.files, found.lines, strict=True):
        # Spark takes a line for a header if it is, to the letter, the first of all lines.
        alike.setdefault(line.text if keywords.header == 0 else "", []).append(file)
    several = [_inferred_of(read, files, keywords, len(found.header)) for files in alike.values()]
    return [functools.reduce(_wider, kinds) for kinds in zip(*several, strict=True)]


def _inferred_of(
    read: _Read, files: Sequence[_File], keywords: CsvKeywords, width: int
) -> list[T.DataType]:
    reader = read().options(**{"inferSchema": "true", **keywords.spark_options})
    kinds = _kinds(reader.csv(_texts(files)).schema)
    if len(kinds) != width:
        raise InputError(
            f"{width} columns, as the first line has",
            f"{len(kinds)} that Spark finds in {files[0]}",
            "Check separator, quotes and encoding.",
        )
    return kinds


def _wider(one: T.DataType, two: T.DataType) -> T.DataType:
    if one == two:
        return one
    if type(one) not in _NUMBERS or type(two) not in _NUMBERS:
        return T.StringType()
    wider = max(_NUMBERS.index(type(one)), _NUMBERS.index(type(two)))
    return T.LongType() if wider == 1 else T.DoubleType()
