"""The spark backend for text: CSV through pandas' parser, JSON through Python's, in tasks.

Files are read twice: first to see what each piece holds, then, when the type of each column is
known for all, to make the shards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pyspark import RDD

from zoo.errors import InputError
from zoo.orca.data.pandas.columns import choose_columns
from zoo.orca.data.pandas.csv_keywords import csv_keywords
from zoo.orca.data.pandas.csv_records import csv_records
from zoo.orca.data.pandas.csv_text import CsvText, Look
from zoo.orca.data.pandas.hadoop_place import HadoopPlace
from zoo.orca.data.pandas.json_keywords import json_keywords
from zoo.orca.data.pandas.json_text import JsonRecords, JsonText
from zoo.orca.data.pandas.kinds import Kind, schema_kinds, settle
from zoo.orca.data.pandas.packing import packing
from zoo.orca.data.pandas.pieces import file_pieces
from zoo.orca.data.pandas.spark_reader import list_for_spark, spark_schema
from zoo.orca.data.xshards.jobs import map_shards, run_job

__all__ = ["csv_shards", "json_shards"]


def csv_shards(file_path: object, keywords: Mapping[str, Any]) -> RDD[Any]:
    """Read CSV files; see `read_csv`.

    Raises:
        InputError: The path or a keyword cannot be used, or the files have different columns.
        ContractError: A keyword has a value that the reference forbids.
    """
    wanted = csv_keywords(keywords)
    schema = _schema(wanted.columns.names)
    if schema is not None:
        wanted = replace(wanted, columns=replace(wanted.columns, names=tuple(schema)))
    listed = list_for_spark(file_path, keywords)
    text = CsvText(wanted, None if listed.root is None else f"{listed.root}/")
    records = csv_records(wanted)

    def cuttable(file: str) -> Any:
        packed = packing(file, wanted.parser.get("compression", "infer"))
        return None if packed else records

    pieces = file_pieces(listed.files, cuttable)
    looks = _looks(pieces, text.look)
    by_name = wanted.header == 0 and wanted.columns.names is None
    header = _common_header(looks, listed.files, by_name)
    choice = choose_columns(header, wanted.columns)
    kinds = [
        settle(name, {look.kinds[at] for look in looks}, (schema or {}).get(name))
        for at, name in enumerate(choice.names)
    ]
    return map_shards(pieces, text.read, header, kinds)


def json_shards(file_path: object, keywords: Mapping[str, Any]) -> RDD[Any]:
    """Read JSON files; see `read_json`.

    Raises:
        InputError: The path or a keyword cannot be used, or the files hold no JSON records.
    """
    wanted = json_keywords(keywords)
    schema = None if wanted.schema is None else schema_kinds(spark_schema(wanted.schema))
    listed = list_for_spark(file_path, keywords)
    text = JsonText(wanted)

    def cuttable(file: str) -> JsonRecords | None:
        packed = packing(file, wanted.compression)
        return None if packed or not wanted.cuttable else JsonRecords(wanted.lines)

    pieces = file_pieces(listed.files, cuttable)
    looks = _looks(pieces, text.look)
    if not looks:
        raise InputError(
            "JSON objects, one on each line or in one list",
            f"none in {file_path}",
            "Check the path.",
        )
    names = (
        dict.fromkeys(name for look in looks for name in look.header) if schema is None else schema
    )
    said = [dict(zip(look.header, look.kinds, strict=True)) for look in looks]
    kinds = {}
    for name in names:
        found = {one.get(name, Kind.MISSING) for one in said}
        kinds[name] = settle(name, found, (schema or {}).get(name))
    choose_columns(list(kinds), wanted.columns)
    texts = [name for name, kind in (schema or {}).items() if kind is Kind.OBJECTS]
    return map_shards(pieces, text.read, kinds, texts)


def _schema(names: object) -> Mapping[str, Kind] | None:
    return schema_kinds(spark_schema(names)) if isinstance(names, str) else None


def _looks(pieces: RDD[Any], look: Any) -> list[Look]:
    found = run_job(pieces.ctx, map_shards(pieces, look).collect)
    return [one for task in found for one in task]


def _common_header(
    looks: Sequence[Look], files: Sequence[Path | HadoopPlace], by_name: bool
) -> tuple[str, ...]:
    """The columns of all files.

    Raises:
        InputError: No file holds a line, or a file has other columns than the first.
    """
    if not looks:
        raise InputError(
            "a file with a line of values", f"none in {files[0]}", "There are no columns to read."
        )
    first = looks[0]
    for look in looks[1:]:
        same = len(look.header) == len(first.header)
        if (look.header != first.header) if by_name else not same:
            raise InputError(
                f"the same columns in all files: {_shown(first.header)} as in {first.file}",
                f"{_shown(look.header)} in {look.file}",
                "Read files of one kind at a time.",
            )
    return first.header


def _shown(header: Sequence[str]) -> str:
    shown = ", ".join(header)
    return f"{len(header)} columns ({shown[:200]}{'...' if len(shown) > 200 else ''})"
