"""OpenVINO's estimator: every kind of data, in order, and what a model file cannot do."""

from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pandas as pd
import pyarrow as pa
import pytest
from openvino import opset15 as ops
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from zoo.errors import ContractError, InputError
from zoo.orca.data import XShards
from zoo.orca.learn.openvino import Estimator
from zoo.orca.learn.openvino.estimator import OpenVINOEstimator
from zoo.orca.learn.preprocess import encode


def write(path: Path, batch: int, outputs: int = 1) -> OpenVINOEstimator:
    """2 * left + right, both of three numbers; and the sum of left."""
    left, right = (ops.parameter([batch, 3], np.float32, name=name) for name in ("left", "right"))
    made = [ops.add(ops.multiply(left, ops.constant(np.float32(2))), right)]
    made += [ops.reduce_sum(left, ops.constant(np.array([1])), keep_dims=True)] * (outputs > 1)
    openvino.save_model(openvino.Model(made, [left, right], "both"), str(path))
    return Estimator.from_openvino(model_path=str(path))


def alone(path: Path, batch: int = -1, width: int = 2) -> OpenVINOEstimator:
    """x + 1, of `width` numbers."""
    x = ops.parameter([batch, width], np.float32, name="x")
    graph = openvino.Model([ops.add(x, ops.constant(np.float32(1)))], [x], "one")
    openvino.save_model(graph, str(path))
    return Estimator.from_openvino(model_path=str(path))


def pair(rows: int) -> list[np.ndarray]:
    draw = np.random.default_rng(rows)
    return [draw.random((rows, 3)).astype(np.float32) for _ in range(2)]


@pytest.mark.parametrize("batch", [-1, 8])
@pytest.mark.parametrize("rows", [1, 7, 8, 9])
def test_arrays(tmp_path: Path, batch: int, rows: int) -> None:
    left, right = pair(rows)
    found = write(tmp_path / "m.xml", batch).predict([left, right], batch_size=4)
    np.testing.assert_allclose(found, 2 * left + right, rtol=1e-6)


def test_several_outputs_are_a_list(tmp_path: Path) -> None:
    left, right = pair(18)
    first, second = write(tmp_path / "m.xml", -1, outputs=2).predict((left, right))
    np.testing.assert_allclose(first, 2 * left + right, rtol=1e-6)
    np.testing.assert_allclose(second, left.sum(1, keepdims=True), rtol=1e-6)


def test_doubles_are_taken_and_unequal_lengths_are_not(tmp_path: Path) -> None:
    est = write(tmp_path / "m.xml", -1)
    found = est.predict([np.ones((2, 3)), np.ones((2, 3))])
    assert (found == 3).all()
    with pytest.raises(AssertionError, match="one length.*'left'"):
        est.predict([np.ones((2, 3)), np.ones((3, 3))])
    with pytest.raises(InputError, match="none for 'right'"):
        est.predict(np.ones((2, 3)))


@pytest.fixture
def frame(spark: SparkSession) -> DataFrame:
    whole = F.col("id").cast("double")
    return spark.range(0, 18, 1, 3).select("id", whole.alias("a"), (whole / 4).alias("b"))


@pytest.mark.spark
@pytest.mark.parametrize("batch", [-1, 4])
def test_frames_of_any_partitions(tmp_path: Path, frame: DataFrame, batch: int) -> None:
    est = alone(tmp_path / "m.xml", batch)
    scored = est.predict(frame, feature_cols=["a", "b"], batch_size=4)
    assert scored.columns == ["id", "a", "b", "prediction"]
    for row in scored.collect():
        assert row["prediction"].toArray().tolist() == [row["a"] + 1, row["b"] + 1]
    assert [row["id"] for row in scored.collect()] == [*range(18)]


@pytest.mark.spark
def test_two_inputs_from_arrays_and_from_numbers(tmp_path: Path, frame: DataFrame) -> None:
    est = write(tmp_path / "m.xml", -1)
    wide = frame.select("id", "a", F.array("a", "b", "a").alias("left"))
    scored = est.predict(wide, feature_cols=["left", ["a", "a", "a"]]).toPandas()
    for _, row in scored.iterrows():
        left = np.array(row["left"], np.float32)
        np.testing.assert_allclose(row["prediction"].toArray(), 2 * left + row["a"], rtol=1e-6)


@pytest.mark.spark
def test_pandas_and_arrow_come_back_as_themselves(tmp_path: Path, frame: DataFrame) -> None:
    est = alone(tmp_path / "m.xml")
    table = frame.toPandas()
    scored = est.predict(table, ["a", "b"])
    assert isinstance(scored, pd.DataFrame)
    np.testing.assert_allclose(np.stack(scored["prediction"]), table[["a", "b"]] + 1)
    arrow = est.predict(pa.Table.from_pandas(table), ["a", "b"])
    assert arrow["prediction"].to_pylist() == [list(p) for p in scored["prediction"]]


@pytest.mark.spark
def test_shards_longer_than_a_batch(tmp_path: Path, spark: SparkSession) -> None:
    est = write(tmp_path / "m.xml", 4, outputs=2)
    parts = [pair(rows) for rows in (7, 0, 1, 9)]
    shards = XShards.partition({"x": [np.concatenate(p) for p in zip(*parts, strict=True)]}, 3)
    found = est.predict(shards, batch_size=4).collect()
    for shard in found:
        left, right = shard["x"]
        first, second = shard["prediction"]
        np.testing.assert_allclose(first, 2 * left + right, rtol=1e-6)
        np.testing.assert_allclose(second, left.sum(1), rtol=1e-6)
    assert sum(len(shard["x"][0]) for shard in found) == 17


@pytest.mark.spark
def test_shards_of_tables(tmp_path: Path, frame: DataFrame) -> None:
    shards = XShards.partition({"x": np.zeros(1)}, 1).transform_shard(
        lambda _: pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    )
    (found,) = alone(tmp_path / "m.xml").predict(shards, ["a", "b"]).collect()
    np.testing.assert_array_equal(found["prediction"], [[2, 4], [3, 5]])
    assert len(found["x"]) == 2


@pytest.mark.spark
def test_the_input_is_named_when_columns_do_not_fit(tmp_path: Path, frame: DataFrame) -> None:
    est, two = alone(tmp_path / "m.xml"), write(tmp_path / "two.xml", -1)
    with pytest.raises(InputError, match=r"'x' \(float32 of shape \(\?, 2\)\)"):
        est.predict(frame, feature_cols=["id", "a", "b"])
    with pytest.raises(InputError, match="none for 'right'"):
        two.predict(frame, feature_cols=[["a", "a", "b"]])
    wide = frame.select(F.array("a", "b", "a").alias("v"))
    with pytest.raises(Exception, match="the input 'x'"):
        est.predict(wide, feature_cols=["v"]).collect()
    with pytest.raises(AssertionError, match="feature_cols must be provided"):
        est.predict(frame)
    with pytest.raises(InputError, match="a Spark DataFrame, XShards"):
        est.predict(lambda config, batch_size: None)


@pytest.mark.spark
def test_decoders_stages_and_nulls(tmp_path: Path, frame: DataFrame) -> None:
    made = encode(scale=["a", "b"]).fit(frame)
    path = str(tmp_path / "m.xml")
    alone(Path(path))
    est = Estimator.from_openvino(
        model_path=path,
        preprocess=made,
        decoders={"cell": lambda cell: np.frombuffer(cell, np.float32)},
    )
    scaled = est.predict(frame, feature_cols=["scaled"]).toPandas()
    found = np.stack([v.toArray() for v in scaled["prediction"]])
    np.testing.assert_allclose(found.mean(0), [1, 1], atol=1e-6)
    cells = pd.DataFrame({"cell": [np.float32([k, 1]).tobytes() for k in range(3)] + [None]})
    cells = cells.assign(a=1.0, b=2.0)
    said = est.predict(cells, feature_cols=["cell"], on_null="null")["prediction"]
    assert [None if p is None else list(p) for p in said] == [[1, 2], [2, 2], [3, 2], None]


@pytest.mark.spark
def test_workers_open_a_file_once(tmp_path: Path, frame: DataFrame) -> None:
    est = alone(tmp_path / "m.xml")
    narrow = frame.coalesce(1)

    def keys(marks: Any) -> Any:
        from zoo.orca.learn.driver import prediction

        return [*prediction._models]

    for columns in (["a", "b"], ["b", "a"], ["a", "a"]):
        est.predict(narrow, feature_cols=columns).collect()
    workers = frame.sparkSession.sparkContext.parallelize(range(40), 8)
    held = workers.mapPartitions(keys).collect()
    assert set(held).intersection([est._key]), "each call would have opened it anew"


def test_other_files_take_its_place(tmp_path: Path) -> None:
    est = alone(tmp_path / "a.xml")
    write(tmp_path / "b.xml", -1)
    assert est.load(str(tmp_path / "b.xml")) is est
    assert est.predict(pair(2)).shape == (2, 3)
    assert "b.xml" in repr(est)


@pytest.mark.parametrize("given", [3, None, "nowhere.xml", "m.bin", "x.onnx"])
def test_what_is_no_file_is_refused(tmp_path: Path, given: Any) -> None:
    alone(tmp_path / "m.xml")
    path = str(tmp_path / given) if isinstance(given, str) else given
    with pytest.raises(AssertionError, match="model"):
        Estimator.from_openvino(model_path=path)


def test_weights_have_to_be_there(tmp_path: Path) -> None:
    est = alone(tmp_path / "m.xml")
    (tmp_path / "m.bin").unlink()
    with pytest.raises(ContractError, match="the weights beside the model"):
        est.load(str(tmp_path / "m.xml"))
    assert est.predict(np.zeros((1, 2))).tolist() == [[1, 1]]


@pytest.mark.parametrize(
    "name",
    [
        "fit", "evaluate", "get_model", "save", "load_orca_checkpoint", "set_tensorboard",
        "get_train_summary", "get_validation_summary", "clear_gradient_clipping",
        "set_constant_gradient_clipping", "set_l2_norm_gradient_clipping",
    ],
)  # fmt: skip
def test_what_a_model_file_cannot_do(tmp_path: Path, name: str) -> None:
    est = alone(tmp_path / "m.xml")
    with pytest.raises(NotImplementedError, match=f"predict or load.*received {name}"):
        getattr(est, name)(1, 2)
