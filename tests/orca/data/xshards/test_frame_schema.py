from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from zoo.errors import InputError
from zoo.orca.data.xshards.frame_schema import (
    arrow_in_schema,
    columns_of,
    common_schema,
    spark_type,
)


def joined(*frames: pd.DataFrame) -> pa.Schema:
    return common_schema([columns_of(frame) for frame in frames], "UTC")


def kinds(*columns: Any) -> str:
    return str(joined(*(pd.DataFrame({"a": column}) for column in columns)).field("a").type)


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        (([1], [1.5]), "double"),
        (([1.5], [1], [2]), "double"),
        ((np.int8([1]), np.int32([1])), "int32"),
        (([None], ["a"]), "string"),
        (([np.nan], ["a"]), "string"),
        (([np.nan], [np.nan]), "double"),
        (([None], [None]), "string"),
        (([None], [True]), "bool"),
        (([pd.NaT], [pd.Timestamp("2020")]), "timestamp[us, tz=UTC]"),
        (([np.nan], [1]), "int64"),
        ((pd.Categorical(["a"]), ["b"]), "string"),
        (([[1]], [[1.5]]), "list<item: double>"),
        (([np.ones(2)], [np.ones(3)]), "list<item: double>"),
        (([{"x": 1}], [{"x": 2, "y": "b"}]), "struct<x: int64, y: string>"),
    ],
)
def test_types_of_shards_are_joined(columns: Any, kind: str) -> None:
    assert kinds(*columns) == kind


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        (pa.uint8(), pa.int16()),
        (pa.uint64(), pa.int64()),
        (pa.float16(), pa.float32()),
        (pa.dictionary(pa.int8(), pa.large_string()), pa.string()),
        (pa.list_(pa.uint16(), 3), pa.list_(pa.int32())),
        (pa.struct([("a", pa.float16())]), pa.struct([("a", pa.float32())])),
        (pa.map_(pa.large_string(), pa.uint8()), pa.map_(pa.string(), pa.int16())),
        (pa.timestamp("ns", "UTC"), pa.timestamp("us", "UTC")),
        (pa.duration("s"), pa.duration("us")),
        (pa.binary(4), pa.binary()),
    ],
)
def test_types_that_spark_lacks_become_wider(kind: pa.DataType, wanted: pa.DataType) -> None:
    assert spark_type(kind) == wanted


def test_types_without_a_common_one_name_shard_and_column() -> None:
    with pytest.raises(InputError, match="column 'a'.*string in shard 1, and int64 in others"):
        kinds([1], ["x"])


def test_columns_that_differ_name_shard_and_columns() -> None:
    with pytest.raises(InputError, match=r"a, b.*shard 1.*lacks \['b'\] and adds \['c'\]"):
        joined(pd.DataFrame({"a": [1], "b": [2]}), pd.DataFrame({"a": [1], "c": [2]}))


def test_order_of_columns_is_that_of_the_first_shard() -> None:
    schema = joined(pd.DataFrame({"a": [1], "b": ["x"]}), pd.DataFrame({"b": ["y"], "a": [2]}))
    table = arrow_in_schema(pd.DataFrame({"b": ["y"], "a": [2]}), schema)
    assert table.to_pydict() == {"a": [2], "b": ["y"]}


def test_shards_without_columns_say_nothing() -> None:
    schema = joined(pd.DataFrame(), pd.DataFrame({"a": [1]}))
    assert schema.names == ["a"]
    assert arrow_in_schema(pd.DataFrame(), schema).num_rows == 0
    with pytest.raises(InputError, match="without any"):
        joined(pd.DataFrame())


def test_a_name_may_be_there_twice() -> None:
    frame = pd.DataFrame([[1, "x"]], columns=["a", "a"])
    assert [str(kind) for kind in joined(frame, frame).types] == ["int64", "string"]


def test_shards_that_are_no_frames_are_refused() -> None:
    with pytest.raises(InputError, match="DataFrames; received builtins.dict"):
        columns_of({"a": 1})


def test_naive_times_are_wall_clock_of_the_session() -> None:
    frame = pd.DataFrame({"a": pd.to_datetime(["2020-01-01 12:00", None])})
    schema = common_schema([columns_of(frame)], "America/New_York")
    cells = arrow_in_schema(frame, schema)["a"].cast(pa.timestamp("us", "UTC")).to_pylist()
    assert str(cells[0]) == "2020-01-01 17:00:00+00:00"
    assert cells[1] is None


def test_times_that_the_zone_skips_or_repeats_are_no_error() -> None:
    frame = pd.DataFrame({"a": pd.to_datetime(["2020-03-08 02:30", "2020-11-01 01:30"])})
    schema = common_schema([columns_of(frame)], "America/New_York")
    assert arrow_in_schema(frame, schema)["a"].null_count == 0


def test_numbers_that_do_not_fit_name_the_column() -> None:
    schema = pa.schema([("a", pa.int64())])
    with pytest.raises(InputError, match="column 'a' that fit into int64"):
        arrow_in_schema(pd.DataFrame({"a": np.uint64([2**64 - 1])}), schema)
