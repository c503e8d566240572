"""What each method of SparkXShards gives; one test for each rule that existing programs rely on."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from zoo.cluster.session.lifecycle import nodes_and_cores
from zoo.cluster.settings import settings
from zoo.orca.data import SharedValue, SparkXShards, XShards
from zoo.orca.data.ray_xshards import RayXShards

pytestmark = pytest.mark.spark


def shards_of(spark: SparkSession, *shards: Any, partitions: int | None = None) -> SparkXShards:
    return SparkXShards(spark.sparkContext.parallelize(shards, partitions or len(shards)))


def in_partitions(shards: SparkXShards) -> list[list[Any]]:
    return shards.rdd.glom().collect()


def frame(*values: Any, **others: Any) -> pd.DataFrame:
    return pd.DataFrame({"a": list(values), **others})


# partition


def test_partition_gives_nested_shards_in_order(spark: SparkSession) -> None:
    shards = XShards.partition({"x": np.arange(10), "y": (np.arange(10) * 2,)}, num_shards=4)
    parts = shards.collect()
    assert shards.num_partitions() == 4
    assert [part["x"].tolist() for part in parts] == [[0, 1, 2], [3, 4, 5], [6, 7], [8, 9]]
    assert all((part["x"] * 2 == part["y"][0]).all() for part in parts)


def test_partition_makes_a_shard_for_each_core(spark: SparkSession) -> None:
    nodes, cores = nodes_and_cores(spark.sparkContext)
    assert XShards.partition(np.arange(100)).num_partitions() == nodes * cores


@pytest.mark.parametrize("count", [0, -1, True, "2"])
def test_partition_wants_a_positive_number(spark: SparkSession, count: Any) -> None:
    with pytest.raises(ValueError, match="num_shards to be a positive whole number"):
        XShards.partition(np.arange(10), count)


def test_partition_into_more_shards_than_rows(spark: SparkSession) -> None:
    with pytest.raises(ValueError, match="number of shards"):
        XShards.partition(np.arange(3), 4)


# transform_shard, collect, SharedValue


def test_transform_shard_takes_arguments_and_shared_values(spark: SparkSession) -> None:
    scale = SharedValue(10)
    shards = XShards.partition(np.arange(4), 2).transform_shard(
        lambda part, scale, offset: part * scale.value + offset, scale, 1
    )
    assert np.concatenate(shards.collect()).tolist() == [1, 11, 21, 31]


def test_collect_keeps_the_order_of_partitions(spark: SparkSession) -> None:
    assert shards_of(spark, *range(9), partitions=4).collect() == list(range(9))


def test_first_and_take(spark: SparkSession) -> None:
    shards = shards_of(spark, "a", "b", "c")
    assert shards.first() == "a"
    assert shards.take(2) == ["a", "b"]
    with pytest.raises(ValueError, match="at least one shard"):
        SparkXShards(spark.sparkContext.emptyRDD()).first()


def test_shards_do_not_iterate_without_end(spark: SparkSession) -> None:
    with pytest.raises(TypeError, match="not iterable"):
        list(shards_of(spark, [1]))  # type: ignore[call-overload]


# repartition


@pytest.mark.parametrize("count", [2, 5, 12])
def test_repartition_spreads_rows_of_frames_evenly(spark: SparkSession, count: int) -> None:
    rows = pd.DataFrame({"i": np.arange(9, dtype=np.int16), "t": list("abcdefghi")})
    shards = shards_of(spark, rows[:7], rows[7:7], rows[7:]).repartition(count)
    parts = in_partitions(shards)
    sizes = [sum(map(len, part)) for part in parts]
    assert len(parts) == count
    assert all(len(part) <= 1 for part in parts)
    assert max(sizes) - min(sizes) <= 1
    pd.testing.assert_frame_equal(shards.concat_to_pdf(), rows)


def test_repartition_keeps_columns_where_there_are_no_rows(spark: SparkSession) -> None:
    empty = pd.DataFrame({"a": pd.Series([], dtype="int32")})
    shards = shards_of(spark, empty, empty, empty).repartition(2)
    assert in_partitions(shards)[1] == []
    pd.testing.assert_frame_equal(shards.collect()[0], empty)


def test_repartition_with_partitions_that_hold_nothing(spark: SparkSession) -> None:
    rdd = spark.sparkContext.parallelize(range(4), 4)
    holes = rdd.flatMap(lambda i: [] if i % 2 else [frame(i, i)])
    parts = in_partitions(SparkXShards(holes).repartition(4))
    assert [part[0]["a"].tolist() for part in parts] == [[0], [0], [2], [2]]


def test_repartition_joins_lists(spark: SparkSession) -> None:
    shards = shards_of(spark, [1, 2], [3], [], [4, 5], partitions=2)
    assert in_partitions(shards.repartition(2)) == [[[1, 2]], [[3, 4, 5]]]


def test_repartition_joins_arrays(spark: SparkSession) -> None:
    shards = XShards.partition(np.arange(12).reshape(6, 2), 3).repartition(2)
    assert [part[0].tolist() for part in in_partitions(shards)] == [
        [[0, 1], [2, 3], [4, 5]],
        [[6, 7], [8, 9], [10, 11]],
    ]


@pytest.mark.parametrize(
    "shards",
    [[{"x": 1}, {"x": 2}, {"x": 3}], [1, 2, 3], [np.float32(1)] * 3, [(1,), [2], (3,)]],
    ids=["dicts", "numbers", "scalars", "mixed"],
)
def test_repartition_moves_other_shards_whole(spark: SparkSession, shards: list[Any]) -> None:
    moved = shards_of(spark, *shards).repartition(2)
    assert moved.collect() == shards
    assert [len(part) for part in in_partitions(moved)] == [1, 2]


@pytest.mark.parametrize("count", [0, 2.5, None])
def test_repartition_wants_a_positive_number(spark: SparkSession, count: Any) -> None:
    with pytest.raises(ValueError, match="num_partitions to be a positive"):
        shards_of(spark, 1).repartition(count)


# partition_by


def test_partition_by_brings_equal_values_together(spark: SparkSession) -> None:
    shards = shards_of(
        spark, frame("x", "y", None, n=[1, 2, 3]), frame("y", "x", np.nan, n=[4, 5, 6]), frame()
    )
    parts = in_partitions(shards.partition_by("a", 3))
    where = {n: i for i, part in enumerate(parts) for rows in part for n in rows["n"]}
    assert len(parts) == 3
    assert (where[1], where[2], where[3]) == (where[5], where[4], where[6])


def test_partition_by_does_not_tell_whole_numbers_from_reals(spark: SparkSession) -> None:
    shards = shards_of(spark, frame(1, 2, 3), frame(1.0, 2.0, None))
    for part in in_partitions(shards.partition_by("a", 4)):
        for rows in part:
            assert set(rows["a"].value_counts()) <= {1, 2}
    assert len(shards.partition_by("a", 4).concat_to_pdf()["a"].dropna()) == 5


def test_partition_by_keeps_columns_dtypes_and_number(spark: SparkSession) -> None:
    rows = pd.DataFrame({"k": np.int16([1, 1]), "f": np.float32([1, 2]), "t": ["a", "b"]})
    shards = shards_of(spark, rows, rows).partition_by("k")
    parts = in_partitions(shards)
    assert [len(part) for part in parts].count(0) == 1
    pd.testing.assert_series_equal(shards.first().dtypes, rows.dtypes)


def test_partition_by_without_rows_keeps_the_columns(spark: SparkSession) -> None:
    shards = shards_of(spark, frame(), frame()).partition_by("a", 3)
    assert shards.num_partitions() == 3
    assert list(shards.first().columns) == ["a"]


@pytest.mark.parametrize("column", ["b", ["a"], ("a", "b"), None])
def test_partition_by_another_than_one_column(spark: SparkSession, column: Any) -> None:
    with pytest.raises(ValueError, match="one column"):
        shards_of(spark, frame(1)).partition_by(column)


def test_partition_by_wants_frames(spark: SparkSession) -> None:
    with pytest.raises(ValueError, match="DataFrames with one column 'a'.*in shard 1"):
        shards_of(spark, frame(1), {"a": [1]}).partition_by("a")


# unique, split, zip


def test_unique_gives_one_array(spark: SparkSession) -> None:
    shards = shards_of(spark, frame("x", "y", None), frame("z", "y", "y"))
    found = shards["a"].unique()
    assert isinstance(found, np.ndarray)
    assert found.tolist() == ["x", "y", None, "z"]


def test_unique_wants_series(spark: SparkSession) -> None:
    with pytest.raises(ValueError, match="shards that are Series; received pandas"):
        shards_of(spark, frame(1)).unique()


def test_split_takes_lists_and_tuples_apart(spark: SparkSession) -> None:
    one, two = shards_of(spark, [1, "a"], (2, "b")).split()
    assert (one.collect(), two.collect()) == ([1, 2], ["a", "b"])


@pytest.mark.parametrize("shard", [frame(1, 2), {"x": 1}, np.ones(2)])
def test_split_of_other_content_is_itself(spark: SparkSession, shard: Any) -> None:
    shards = shards_of(spark, shard, shard)
    assert shards.split() == [shards]


@pytest.mark.parametrize("other", [[1, 2, 3], 5])
def test_split_of_different_lengths(spark: SparkSession, other: Any) -> None:
    with pytest.raises(ValueError, match="same length in all shards"):
        shards_of(spark, [1, 2], other).split()


def test_zip_pairs_shard_by_shard(spark: SparkSession) -> None:
    left = shards_of(spark, *range(5), partitions=2)
    pairs = left.zip(left.transform_shard(str))
    assert pairs.collect() == [(i, str(i)) for i in range(5)]
    assert pairs.zip(left).transform_shard(len).collect() == [2] * 5


def test_zip_with_something_else(spark: SparkSession) -> None:
    with pytest.raises(AssertionError, match="other should be a SparkXShards"):
        shards_of(spark, 1).zip([1])  # type: ignore[arg-type]


def test_zip_with_other_partitions(spark: SparkSession) -> None:
    with pytest.raises(AssertionError, match="same number of partitions"):
        shards_of(spark, 1, 2).zip(shards_of(spark, 1, 2, partitions=1))


@pytest.mark.parametrize("eager", [True, False])
def test_zip_with_other_counts(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch, eager: bool
) -> None:
    left, right = (
        shards_of(spark, 1, 2, 3, partitions=2),
        shards_of(spark, 1, 2, 3, 4, partitions=2),
    )
    monkeypatch.setattr(settings, "eager_mode", eager)
    with pytest.raises(ValueError, match="same number of elements in each partition"):
        left.zip(right).collect()


# len, selection


def test_len_sums_lengths_with_one_for_what_has_none(spark: SparkSession) -> None:
    shards = shards_of(spark, frame(1, 2, 3), [1, 2], {"x": np.arange(9), "y": 1}, 7)
    assert len(shards) == 3 + 2 + 2 + 1


def test_len_of_no_shards(spark: SparkSession) -> None:
    assert len(SparkXShards(spark.sparkContext.emptyRDD())) == 0


def test_selection_of_keys_columns_and_positions(spark: SparkSession) -> None:
    assert shards_of(spark, {"x": 1}, {"x": 2})["x"].collect() == [1, 2]
    assert shards_of(spark, frame(5, 6))["a"].first().tolist() == [5, 6]
    assert shards_of(spark, [1, 2], (3, 4))[1].collect() == [2, 4]


def test_selection_without_the_key_fails_when_evaluated(spark: SparkSession) -> None:
    selected = shards_of(spark, {"x": 1})["y"]
    with pytest.raises(ValueError, match="Invalid key for this XShards"):
        selected.collect()


def test_selection_from_numbers_fails_when_evaluated(spark: SparkSession) -> None:
    selected = shards_of(spark, 1)["y"]
    with pytest.raises(AssertionError, match="No selection operation available for this XShards"):
        len(selected)


# the rest


def test_for_each_returns_exceptions_as_values(spark: SparkSession) -> None:
    results = shards_of(spark, 1, 0)._for_each(lambda shard, by: by // shard, 10).collect()
    assert results[0] == 10
    assert isinstance(results[1], ZeroDivisionError)


@pytest.mark.parametrize(
    ("shard", "name"),
    [(frame(1), "pandas.core.frame.DataFrame"), ([1], "list"), (np.ones(1), "numpy.ndarray")],
)
def test_class_name_of_the_first_shard(spark: SparkSession, shard: Any, name: str) -> None:
    assert shards_of(spark, shard)._get_class_name() == name


def test_head_reads_no_more_partitions_than_it_needs(spark: SparkSession) -> None:
    rdd = spark.sparkContext.parallelize(range(8), 8)
    shards = SparkXShards(rdd.map(lambda i: frame(*range(i)) if i < 5 else 1 / 0), transient=True)
    assert shards.head(2)["a"].tolist() == [0, 0]


def test_head_of_other_kinds(spark: SparkSession) -> None:
    assert shards_of(spark, [1], [2, 3], [4]).head(2) == [1, 2]
    with pytest.raises(ValueError, match="shards that have rows"):
        shards_of(spark, {"x": 1}).head()


def test_schema_of_frames(spark: SparkSession) -> None:
    schema = shards_of(spark, frame(1, b="x")).get_schema()
    assert list(schema["columns"]) == ["a", "b"]
    assert schema["dtypes"]["a"] == np.int64
    with pytest.raises(ValueError, match="DataFrames; received list"):
        shards_of(spark, [1]).get_schema()


def test_columns_dtypes_and_repr(spark: SparkSession) -> None:
    shards = shards_of(spark, frame(1, b=0.5), frame(2, b=1.5))
    assert list(shards.columns) == ["a", "b"]
    assert shards.dtypes.to_dict() == {"a": np.int64, "b": np.float64}
    assert repr(shards) == "SparkXShards(partitions=2)"


def test_every_method_of_ray_shards_waits_for_ray() -> None:
    names = [name for name in dir(RayXShards) if not name.startswith("_")]
    assert len(names) == 10
    shards = object.__new__(RayXShards)
    for name in names:
        method = getattr(shards, name)
        with pytest.raises(NotImplementedError, match="Ray"):
            method(*["argument"] * (method.__code__.co_argcount - (name != "from_spark_xshards")))
