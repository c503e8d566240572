import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.ml.linalg import SparseVector, Vectors, VectorUDT
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

from zoo.cluster.settings import settings
from zoo.errors import InputError
from zoo.orca.data import SparkXShards, XShards
from zoo.orca.data.xshards.frames import frame_to_rdd

pytestmark = pytest.mark.spark

NOON = dt.datetime(2020, 1, 2, 12, 30)
COLUMNS: dict[str, tuple[T.DataType, Any]] = {
    "whole": (T.IntegerType(), 7),
    "real.x": (T.FloatType(), 2.5),
    "yes`no": (T.BooleanType(), True),
    "text": (T.StringType(), "ä"),
    "day": (T.DateType(), NOON.date()),
    "time": (T.TimestampType(), NOON),
    "ntz": (T.TimestampNTZType(), NOON),
    "exact": (T.DecimalType(10, 2), Decimal("1.50")),
    "list": (T.ArrayType(T.IntegerType()), [1, 2]),
    "bytes": (T.BinaryType(), b"\x00"),
    "map": (T.MapType(T.StringType(), T.IntegerType()), {"a": 1}),
    "struct": (T.StructType([T.StructField("f", T.LongType())]), {"f": 3}),
    "dense": (VectorUDT(), Vectors.dense([1, 2])),
    "sparse": (VectorUDT(), Vectors.sparse(3, [1], [2.0])),
    "old": (T.TimestampType(), dt.datetime(1, 1, 2)),
}


@pytest.fixture(scope="module")
def kinds(spark: SparkSession) -> DataFrame:
    """A row with values and a row of nulls, each in a partition of its own."""
    schema = T.StructType([T.StructField(name, kind) for name, (kind, _) in COLUMNS.items()])
    rows = [tuple(value for _, value in COLUMNS.values()), (None,) * len(COLUMNS)]
    return spark.createDataFrame(spark.sparkContext.parallelize(rows, 2), schema).persist()


@pytest.fixture(scope="module")
def shards(kinds: DataFrame) -> list[pd.DataFrame]:
    return frame_to_rdd(kinds).collect()


def test_types_become_those_of_pandas(shards: list[pd.DataFrame]) -> None:
    dtypes = {name: str(dtype) for name, dtype in shards[0].dtypes.items()}
    assert dtypes == {
        **dict.fromkeys(COLUMNS, "object"),
        "whole": "int64", "real.x": "float64", "exact": "float64", "yes`no": "bool",
        **dict.fromkeys(("day", "time", "ntz"), "datetime64[ns]"),
    }  # fmt: skip


def test_values_survive(shards: list[pd.DataFrame]) -> None:
    cells = shards[0].iloc[0]
    plain = {name: cells[name] for name in ("whole", "real.x", "text", "bytes", "map", "struct")}
    assert plain == {name: COLUMNS[name][1] for name in plain}
    assert [cells[name] for name in ("day", "time", "ntz")] == [
        pd.Timestamp("2020-01-02"), pd.Timestamp(NOON), pd.Timestamp(NOON),
    ]  # fmt: skip
    assert (cells["exact"], cells["old"]) == (1.5, dt.datetime(1, 1, 2))


def test_arrays_and_dense_vectors_are_numpy_arrays(shards: list[pd.DataFrame]) -> None:
    cells = shards[0].iloc[0]
    assert cells["list"].tolist() == [1, 2]
    assert cells["dense"].tolist() == [1.0, 2.0]
    assert isinstance(cells["sparse"], SparseVector)


def test_nulls_are_those_of_pandas(shards: list[pd.DataFrame]) -> None:
    nulls = shards[1]
    assert nulls.isna().all(axis=None)
    assert nulls["whole"].dtype == np.float64
    assert all(nulls[name][0] is None for name in ("text", "yes`no", "list", "dense"))


def test_exact_types_stay_without_widening(kinds: DataFrame) -> None:
    shard = frame_to_rdd(kinds, widen=False).first()
    assert (str(shard["whole"].dtype), str(shard["real.x"].dtype)) == ("int32", "float32")
    assert (shard["exact"][0], shard["day"][0]) == (Decimal("1.50"), NOON.date())


def test_partitions_without_rows_keep_columns_and_dtypes(kinds: DataFrame) -> None:
    shards = frame_to_rdd(kinds.filter("whole = 7")).collect()
    assert [len(shard) for shard in shards] == [1, 0]
    usual = shards[0].dtypes.drop("old")  # a guess where there are no values
    pd.testing.assert_series_equal(shards[1].dtypes.drop("old"), usual)


def test_order_of_partitions_and_rows_stays(spark: SparkSession) -> None:
    shards = frame_to_rdd(spark.range(0, 100_000, 1, 3)).collect()
    assert len(shards) == 3
    assert np.concatenate([shard["id"] for shard in shards]).tolist() == list(range(100_000))
    assert all(shard.index.equals(pd.RangeIndex(len(shard))) for shard in shards)


def test_cells_may_be_written_to(spark: SparkSession) -> None:
    shard = frame_to_rdd(spark.range(0, 10, 1, 1)).first()
    shard["id"].to_numpy()[0] = 5
    shard.loc[1, "id"] = 6
    assert shard["id"].tolist()[:2] == [5, 6]
    rows = spark.range(0, 2, 1, 1)
    shard = frame_to_rdd(rows.selectExpr("array(0.5, 1.5) AS a", "array(array(id)) AS b")).first()
    shard["a"][0][1] = shard["b"][1][0][0] = 9
    assert [cell.tolist() for cell in shard["a"]] == [[0.5, 9.0], [0.5, 1.5]]
    assert shard["b"][1][0].tolist() == [9]


def test_names_may_be_there_twice_or_not_at_all(spark: SparkSession) -> None:
    twice = frame_to_rdd(spark.range(2).selectExpr("id AS a", "id + 1 AS a")).collect()
    assert list(twice[0].columns) == ["a", "a"]
    assert all(shard.empty for shard in frame_to_rdd(spark.range(2).select()).collect())


@pytest.fixture
def new_york(spark: SparkSession) -> Iterator[None]:
    before = spark.conf.get("spark.sql.session.timeZone")
    spark.conf.set("spark.sql.session.timeZone", "America/New_York")
    yield
    spark.conf.set("spark.sql.session.timeZone", str(before))


def test_times_are_wall_clock_of_the_session(spark: SparkSession, new_york: None) -> None:
    frame = spark.sql("SELECT TIMESTAMP'2020-07-01 12:00:00 UTC' AS t")
    shards = XShards.from_spark_df(frame)
    assert shards.first()["t"][0] == pd.Timestamp("2020-07-01 08:00:00")
    assert shards.to_spark_df().collect() == frame.collect()


# from_spark_df


def test_a_partition_becomes_a_shard(spark: SparkSession) -> None:
    shards = XShards.from_spark_df(spark.range(0, 10, 1, 4))
    assert [len(shard) for shard in shards.collect()] == [2, 3, 2, 3]


def test_shard_size_cuts_partitions(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "shard_size", 3)
    shards = XShards.from_spark_df(spark.range(0, 10, 1, 2))
    assert shards.num_partitions() == 2
    assert [len(shard) for shard in shards.collect()] == [3, 2, 3, 2]
    assert all(shard.index[0] == 0 for shard in shards.collect())


# to_spark_df


def sent(spark: SparkSession, *shards: Any) -> SparkXShards:
    return SparkXShards(spark.sparkContext.parallelize(shards, len(shards)))


def test_types_survive_the_way_to_pandas_and_back(kinds: DataFrame) -> None:
    same = ["text", "time", "list", "bytes", "struct"]
    there = kinds.select(same)
    again = XShards.from_spark_df(there).to_spark_df()
    assert [field.dataType for field in again.schema] == [field.dataType for field in there.schema]
    assert again.collect() == there.collect()


def test_frames_become_a_spark_frame_without_index(spark: SparkSession) -> None:
    shards = sent(
        spark,
        pd.DataFrame({"a.b": [1, 2], "c`": ["x", None]}, index=[7, 8]),
        pd.DataFrame({"a.b": [], "c`": []}),
        pd.DataFrame({"a.b": [2.5], "c`": ["z"]}),
    )
    frame = shards.to_spark_df()
    assert frame.dtypes == [("a.b", "double"), ("c`", "string")]
    assert [tuple(row) for row in frame.collect()] == [(1.0, "x"), (2.0, None), (2.5, "z")]


def test_a_shard_of_other_columns_is_named(spark: SparkSession) -> None:
    shards = sent(spark, pd.DataFrame({"a": [1]}), pd.DataFrame({"b": [1]}))
    with pytest.raises(InputError, match="b in shard 1, which lacks"):
        shards.to_spark_df()


def test_shards_of_other_kinds_do_not_become_a_frame(spark: SparkSession) -> None:
    with pytest.raises(InputError, match="DataFrames; received builtins.dict") as caught:
        sent(spark, {"a": [1]}).to_spark_df()
    assert "shard 0 of partition 0" in caught.value.__notes__[0]


def test_many_rows_survive(spark: SparkSession) -> None:
    rows = spark.range(0, 200_000, 1, 3).selectExpr("id", "id / 2 AS half", "string(id) AS text")
    again = XShards.from_spark_df(rows).to_spark_df()
    assert again.dtypes == rows.dtypes
    assert again.toPandas().equals(rows.toPandas())
