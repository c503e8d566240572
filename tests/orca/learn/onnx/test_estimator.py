"""ONNX's estimator, which is that of OpenVINO over another runtime."""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from zoo.errors import InputError
from zoo.orca.learn.onnx import Estimator
from zoo.orca.learn.onnx.estimator import ONNXEstimator


@pytest.fixture
def sums(tmp_path: Path) -> ONNXEstimator:
    """left + right, of 8 rows of two numbers."""
    shapes = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [8, 2]) for n in ("a", "b", "y")]
    graph = helper.make_graph(
        [helper.make_node("Add", ["a", "b"], ["y"])], "g", shapes[:2], shapes[2:]
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = tmp_path / "sums.onnx"
    path.write_bytes(made.SerializeToString())
    return Estimator.from_onnx(model_path=str(path))


@pytest.mark.parametrize("rows", [1, 7, 8, 9])
def test_arrays(sums: ONNXEstimator, rows: int) -> None:
    x = np.random.default_rng(rows).random((rows, 2)).astype(np.float32)
    np.testing.assert_array_equal(sums.predict([x, x]), 2 * x)


@pytest.mark.spark
def test_frames(sums: ONNXEstimator, spark: SparkSession) -> None:
    frame = spark.range(0, 21, 1, 3).select("id", F.col("id").cast("double").alias("x"))
    scored = sums.predict(frame, feature_cols=[["x", "x"], ["id", "x"]], batch_size=5)
    for row in scored.collect():
        assert row["prediction"].toArray().tolist() == [2 * row["x"], 2 * row["x"]]
    with pytest.raises(InputError, match="none for 'b'"):
        sums.predict(frame, feature_cols=[["x", "x"]])


def test_what_it_cannot_do(sums: ONNXEstimator, tmp_path: Path) -> None:
    with pytest.raises(NotImplementedError, match="predict or load"):
        sums.fit(None)
    with pytest.raises(AssertionError, match=r"ends in \.onnx"):
        Estimator.from_onnx(model_path=str(tmp_path / "other.onnx"))
