import datetime
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyspark.ml.linalg import Vectors
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from zoo.errors import ColumnError, ContractError
from zoo.orca.data.frame import as_frame, pandas_to_arrow, select_columns

pytestmark = pytest.mark.spark


def roundtrip(spark, data):
    """The rows as Spark sees them."""
    return as_frame(data, spark).spark.toArrow().to_pydict()


def test_a_spark_frame_stays_what_it_is(spark):
    frame = spark.range(3)
    known = as_frame(frame, spark)
    assert known.spark is frame
    result = frame.withColumn("prediction", F.col("id"))
    assert known.restore(result) is result


@pytest.mark.parametrize("rows", [0, 1, 10, 25_000, 90_000])
def test_rows_keep_their_order(spark, rows):
    data = pd.DataFrame({"i": np.arange(rows), "x": np.arange(rows) / 4})
    for given in (data, pa.Table.from_pandas(data, preserve_index=False)):
        got = as_frame(given, spark).spark.toArrow()
        assert got.column("i").to_pylist() == list(range(rows))
        assert got.column("x").to_pylist() == [i / 4 for i in range(rows)]


@pytest.mark.parametrize("rows", [10, 9_000, 15_000, 100_000])
def test_frames_spread_over_the_slots_that_they_need(spark, rows):
    frame = as_frame(pd.DataFrame({"i": range(rows)}), spark).spark
    most = min(spark.sparkContext.defaultParallelism, -(-rows // 10_000))
    assert frame.rdd.getNumPartitions() == most


def test_tables_of_many_chunks_take_few_partitions(spark):
    table = pa.concat_tables([pa.table({"i": [i]}) for i in range(50)])
    frame = as_frame(table, spark).spark
    assert frame.rdd.getNumPartitions() == 1
    assert frame.toArrow().column("i").to_pylist() == list(range(50))


def test_numbers_of_every_kind(spark):
    kinds = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
    kinds += ["float16", "float32", "float64", "bool"]
    data = pd.DataFrame({kind: np.array([0, 1], dtype=kind) for kind in kinds})
    assert roundtrip(spark, data) == {kind: [0, 1] for kind in kinds}


def test_nullable_dtypes(spark):
    data = pd.DataFrame(
        {
            "i": pd.array([1, None, 3], "Int32"),
            "x": pd.array([0.5, None, 1.5], "Float32"),
            "b": pd.array([True, None, False], "boolean"),
            "s": pd.array(["a", None, "c"], "string"),
            "a": pd.array([1, None, 3], "int64[pyarrow]"),
        }
    )
    assert roundtrip(spark, data) == {
        "i": [1, None, 3],
        "x": [0.5, None, 1.5],
        "b": [True, None, False],
        "s": ["a", None, "c"],
        "a": [1, None, 3],
    }


def test_missing_values_are_nulls(spark):
    assert roundtrip(spark, pd.DataFrame({"x": [1.0, np.nan]})) == {"x": [1.0, None]}


def test_other_columns(spark):
    day = datetime.date(2024, 2, 29)
    data = pd.DataFrame(
        {
            "c": pd.Categorical(["a", "b"]),
            "d": [day, day],
            "n": [Decimal("1.50"), Decimal("2.25")],
            "b": [b"x", b"y"],
            "l": [[1, 2], [3]],
            "none": [None, None],
        }
    )
    got = roundtrip(spark, data)
    assert got == {
        "c": ["a", "b"],
        "d": [day, day],
        "n": [Decimal("1.50"), Decimal("2.25")],
        "b": [b"x", b"y"],
        "l": [[1, 2], [3]],
        "none": [None, None],
    }


def test_timestamps_keep_their_moment(spark):
    times = pd.to_datetime(["1960-01-01 00:00:00.123456", "2024-06-01 12:00:00.000001"])
    data = pd.DataFrame({"aware": times.tz_localize("Asia/Kolkata")})
    seconds = as_frame(data, spark).spark.select(F.unix_micros("aware").alias("m")).toArrow()
    assert seconds.column("m").to_pylist() == [t.value // 1000 for t in data["aware"]]


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 1, 2)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "bool", "float16"])
def test_cells_may_be_arrays(spark, shape, dtype):
    values = np.random.default_rng(0).integers(0, 2, (5, *shape)).astype(dtype)
    data = pd.DataFrame({"a": list(values)})
    assert roundtrip(spark, data)["a"] == values.tolist()


def test_arrays_of_other_lengths_and_none_come_through(spark):
    data = pd.DataFrame({"a": [np.ones(2), np.ones(3), None, np.ones(0)]})
    assert roundtrip(spark, data)["a"] == [[1, 1], [1, 1, 1], None, []]


def test_the_index_is_not_a_column(spark):
    data = pd.DataFrame({"x": [1, 2]}, index=pd.Index([7, 9], name="key"))
    assert roundtrip(spark, data) == {"x": [1, 2]}


def test_labels_that_are_no_text_become_it(spark):
    assert roundtrip(spark, pd.DataFrame({0: [1], ("a", 1): [2]})) == {"0": [1], "('a', 1)": [2]}


def test_labels_may_have_any_form(spark):
    data = pd.DataFrame([[1, 2, 3]], columns=["a.b", "c`d", "e f"])
    frame = as_frame(data, spark).spark
    assert frame.columns == ["a.b", "c`d", "e f"]
    assert select_columns(frame, ["e f", "c`d"]).first().asDict() == {"c0": 3, "c1": 2}


def test_twin_labels_come_through(spark):
    data = pd.DataFrame([[1, 2]], columns=["a", "a"])
    assert as_frame(data, spark).spark.columns == ["a", "a"]


@pytest.mark.parametrize(
    "cells",
    [
        [1, "a"],
        [object(), object()],
        [np.ones(2), "a"],
        [{"a": 1}, 2],
        [[1], ["a"]],
        [2**70, 1],
        [1j, 2j],
    ],
)
def test_mixed_cells_are_refused_in_one_short_error(cells):
    data = pd.DataFrame({"good": [1, 2], "bad": pd.Series(cells, dtype=object)})
    with pytest.raises(ColumnError, match="cells of one type in column 'bad'") as caught:
        pandas_to_arrow(data)
    assert len(str(caught.value)) < 400
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "column",
    [
        pa.array([2**64 - 1], pa.uint64()),
        pa.array([(1, 2, 3)], pa.month_day_nano_interval()),
        pa.array([1], pa.time32("s")),
    ],
)
def test_types_that_spark_lacks_are_refused(spark, column):
    with pytest.raises(ColumnError, match="column 'odd'"):
        as_frame(pa.table({"i": [1], "odd": column}), spark)


def test_a_column_that_nobody_looks_at_may_hold_anything(spark):
    odd = [pd.Series(["x", 1]), pd.Series([object(), 2j]), pd.Series([[1], "a"])]
    for column in odd:
        data = pd.DataFrame({"a": [0.5, 1.5], "odd": column, "y": [1, 2]})
        frame = as_frame(data, spark, ["a", "y"])
        assert frame.spark.columns == ["a", "odd", "y"]
        assert frame.spark.select("a", "y").toArrow().to_pydict() == {"a": [0.5, 1.5], "y": [1, 2]}
        got = frame.restore(with_prediction(frame, F.col("a")))
        assert got["odd"].tolist() == column.tolist()


def test_a_column_of_a_table_that_nobody_looks_at_may_have_any_type(spark):
    table = pa.table({"a": [1], "odd": pa.array([1], pa.time32("s"))})
    frame = as_frame(table, spark, ["a"])
    assert frame.restore(with_prediction(frame, F.col("a"))).select(["a", "odd"]).equals(table)


def test_a_column_that_is_looked_at_is_still_refused(spark):
    with pytest.raises(ColumnError, match="cells of one type in column 'odd'"):
        as_frame(pd.DataFrame({"odd": ["x", 1]}), spark, ["odd"])


# Results


def with_prediction(frame, column):
    return frame.spark.withColumn("prediction", column)


def test_pandas_comes_back_with_its_index_and_a_number(spark):
    data = pd.DataFrame({"x": [3, 1, 2], "s": ["a", "b", "c"]}, index=["r", "p", "q"])
    frame = as_frame(data, spark)
    got = frame.restore(with_prediction(frame, (F.col("x") * 2).cast("float")))
    expected = data.assign(prediction=np.array([6, 2, 4], np.float32))
    pd.testing.assert_frame_equal(got, expected)
    assert list(data.columns) == ["x", "s"]


def test_pandas_gets_vectors_and_arrays_as_numpy(spark):
    frame = as_frame(pd.DataFrame({"x": [3.0, 1.0]}, index=[5, 5]), spark)
    vector = F.udf(lambda x: Vectors.dense(x, -x), Vectors.dense(1).__UDT__)("x")
    got = frame.restore(with_prediction(frame, vector))["prediction"]
    assert [type(v) for v in got] == [np.ndarray] * 2
    np.testing.assert_array_equal(np.stack(got), [[3, -3], [1, -1]])
    nested = F.array(F.array("x", "x"), F.array("x", F.lit(0.0)))
    got = frame.restore(with_prediction(frame, nested))["prediction"]
    assert np.stack(got).shape == (2, 2, 2)


def test_a_table_comes_back_as_a_table(spark):
    table = pa.table(
        {"x": pa.array([3, 1], pa.uint8()), "c": pa.array(["a", "b"]).dictionary_encode()}
    )
    frame = as_frame(table, spark)
    got = frame.restore(with_prediction(frame, F.col("x") * 1.5))
    assert got.select(["x", "c"]).equals(table)
    assert got.column("prediction").to_pylist() == [4.5, 1.5]


def test_a_table_gets_vectors_as_lists(spark):
    frame = as_frame(pa.table({"x": [3.0, 1.0]}), spark)
    vector = F.udf(lambda x: Vectors.dense(x, -x), Vectors.dense(1).__UDT__)("x")
    got = frame.restore(with_prediction(frame, vector))
    assert got.column("prediction").to_pylist() == [[3, -3], [1, -1]]
    several = frame.restore(with_prediction(frame, F.array(vector, vector)))
    assert several.column("prediction").to_pylist() == [[[3, -3]] * 2, [[1, -1]] * 2]


def test_an_older_prediction_is_replaced(spark):
    data = pd.DataFrame({"prediction": [9, 9], "x": [1, 2]})
    for given in (data, pa.Table.from_pandas(data)):
        frame = as_frame(given, spark)
        got = frame.restore(with_prediction(frame, F.col("x") * 10))
        assert list(got["prediction"].to_numpy()) == [10, 20]


def test_empty_frames_come_back_with_the_column(spark):
    data = pd.DataFrame({"x": np.zeros(0)})
    for given in (data, pa.Table.from_pandas(data)):
        frame = as_frame(given, spark)
        for column in (F.col("x"), F.array("x"), F.array(F.array("x"))):
            assert len(frame.restore(with_prediction(frame, column))["prediction"]) == 0


def test_large_results_are_in_order(spark):
    data = pd.DataFrame({"i": np.arange(60_000)})
    frame = as_frame(data, spark)
    got = frame.restore(with_prediction(frame, F.col("i") + 1))
    assert (got["prediction"].to_numpy() == np.arange(1, 60_001)).all()


# What is no frame


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ([1, 2], "builtins.list"),
        ({"x": [1]}, "builtins.dict"),
        (np.ones(3), "numpy.ndarray"),
        (pd.Series([1]), "pandas"),
        (None, "NoneType"),
        (pa.record_batch({"x": [1]}), "Table.from_batches"),
    ],
)
def test_anything_else_is_refused_by_name(spark, data, named):
    with pytest.raises(ContractError, match="a Spark DataFrame, a pandas DataFrame") as caught:
        as_frame(data, spark)
    assert named in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_spark_connect_is_refused(spark):
    # The real class cannot be imported without grpc.
    remote = type("DataFrame", (DataFrame,), {"__module__": "pyspark.sql.connect.dataframe"})
    with pytest.raises(ContractError, match="Spark Connect"):
        as_frame(object.__new__(remote), spark)


def test_a_stream_is_refused(spark):
    with pytest.raises(ContractError, match="streaming"):
        as_frame(spark.readStream.format("rate").load(), spark)
