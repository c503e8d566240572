"""The estimator on XShards: the same weights as on a frame, results as the reference says."""

import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pyspark import cloudpickle
from pyspark.sql import SparkSession
from torch import nn

from zoo.errors import ColumnError, ContractError, InputError
from zoo.orca.data import SparkXShards, XShards
from zoo.orca.learn.metrics import MAE
from zoo.orca.learn.pytorch import Estimator

# Ranks cannot import a test module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.spark

RNG = np.random.default_rng(3)
X = RNG.normal(size=(60, 3)).astype(np.float32)
Y = (X @ np.array([1.0, -2.0, 0.5])).astype(np.float32)
FRAME = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "y": Y})
COLUMNS: dict[str, Any] = {"feature_cols": ["a", "b", "c"], "label_cols": ["y"]}


@pytest.fixture
def dicts(spark: SparkSession) -> SparkXShards:
    return XShards.partition({"x": X, "y": Y}, num_shards=4)


@pytest.fixture
def frames(spark: SparkSession) -> SparkXShards:
    parts = [FRAME[:1], FRAME[1:1], FRAME[1:40], FRAME[40:]]
    return SparkXShards(spark.sparkContext.parallelize(parts, 4))


def network(config: dict[str, Any]) -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))


def estimator(model: Any = network, **given: Any) -> Any:
    given = {"loss": nn.MSELoss(), "config": {"shuffle": False}, "metrics": [MAE()]} | given
    return Estimator.from_torch(
        model=model, optimizer=lambda m, c: torch.optim.SGD(m.parameters(), lr=0.1), **given
    )


def weights(est: Any) -> np.ndarray:
    parameters = est.get_model().state_dict().values()
    return torch.cat([p.reshape(-1) for p in parameters]).numpy()


def test_dict_shards_train_like_a_frame_of_them(dicts: SparkXShards) -> None:
    one, other = estimator(), estimator()
    stats = one.fit(dicts, epochs=2, batch_size=60)
    other.fit(FRAME, epochs=2, batch_size=60, **COLUMNS)
    np.testing.assert_allclose(weights(one), weights(other), rtol=1e-5)
    assert [s["num_samples"] for s in stats] == [60, 60]


def test_pandas_shards_train_like_a_frame_of_them(frames: SparkXShards) -> None:
    one, other = estimator(), estimator()
    one.fit(frames, epochs=2, batch_size=60, **COLUMNS)
    other.fit(FRAME, epochs=2, batch_size=60, **COLUMNS)
    np.testing.assert_allclose(weights(one), weights(other), rtol=1e-5)


def test_all_label_columns_are_used(frames: SparkXShards) -> None:
    both = frames.transform_shard(lambda df: df.assign(z=df["a"] - df["c"]))
    est = estimator(lambda config: nn.Linear(3, 2), loss=nn.MSELoss(), metrics=None)
    est.fit(both, epochs=80, batch_size=20, feature_cols=["a", "b", "c"], label_cols=["y", "z"])
    np.testing.assert_allclose(
        est.get_model().weight.detach(), [[1, -2, 0.5], [1, 0, -1]], atol=0.05
    )


@pytest.mark.parametrize("kind", [list, tuple])
def test_several_arrays_are_several_inputs(spark: SparkSession, kind: Any) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            assert first.shape[1:] == (2,)
            assert second.dtype == torch.int64
            return self.scale * (first.sum(1) + second)

    x = kind([X[:, :2], np.arange(60, dtype=np.int32)])
    shards = XShards.partition({"x": x, "y": Y}, num_shards=2)
    stats = estimator(lambda config: Two()).fit(shards, batch_size=30)
    assert stats[0]["batch_count"] == 2


def test_validation_and_evaluate_agree(dicts: SparkXShards) -> None:
    est = estimator()
    (stats,) = est.fit(dicts, batch_size=20, validation_data=dicts)
    result = est.evaluate(dicts, batch_size=7)
    assert result["num_samples"] == 60
    np.testing.assert_allclose(
        [result["val_loss"], result["MAE"]], [stats["val_loss"], stats["val_MAE"]], rtol=1e-5
    )


def test_evaluate_takes_so_many_batches(dicts: SparkXShards) -> None:
    assert estimator().evaluate(dicts, batch_size=8, num_steps=3)["num_samples"] == 24


def test_predict_gives_every_shard_its_prediction(dicts: SparkXShards) -> None:
    est = estimator()
    shards = est.predict(dicts, batch_size=4).collect()
    with torch.no_grad():
        expected = est.get_model()(torch.from_numpy(X)).numpy()
    assert [sorted(shard) for shard in shards] == [["prediction", "x", "y"]] * 4
    assert [len(shard["prediction"]) for shard in shards] == [15] * 4
    got = np.concatenate([shard["prediction"] for shard in shards])
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    np.testing.assert_array_equal(np.concatenate([shard["x"] for shard in shards]), X)


def test_predict_on_pandas_shards_gives_dicts(frames: SparkXShards) -> None:
    shards = estimator().predict(frames, feature_cols=["a", "b", "c"]).collect()
    assert [sorted(shard) for shard in shards] == [["prediction", "x"]] * 4
    assert [len(shard["prediction"]) for shard in shards] == [1, 0, 39, 20]
    assert len(shards[2]["x"]) == 3
    np.testing.assert_array_equal(shards[3]["x"][1], X[40:, 1])


def test_predict_needs_only_x(spark: SparkSession) -> None:
    (shard,) = estimator().predict(XShards.partition({"x": X}, num_shards=1)).collect()
    assert shard["prediction"].shape == (60,)


def test_several_outputs_are_a_list_of_arrays(spark: SparkSession) -> None:
    class Two(nn.Linear):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return super().forward(x), x.sum(1, keepdim=True)

    shards = XShards.partition({"x": X}, num_shards=3)
    first, *_ = estimator(lambda config: Two(3, 2)).predict(shards).collect()
    assert [a.shape for a in first["prediction"]] == [(20, 2), (20,)]


def test_shards_of_unequal_size_do_not_hang(spark: SparkSession) -> None:
    cuts = [(0, 1), (1, 1), (1, 50), (50, 60)]
    parts = [{"x": X[a:b], "y": Y[a:b]} for a, b in cuts]
    shards = SparkXShards(spark.sparkContext.parallelize(parts, 4))
    stats = estimator(workers_per_node=2).fit(shards, epochs=2, batch_size=7)
    assert [s["num_samples"] for s in stats] == [60, 60]


# What is refused, before ranks start.


def refused(data: Any, error: type[Exception], text: str, **given: Any) -> None:
    with pytest.raises(error, match=text):
        estimator().fit(data, batch_size=4, **given)


def test_pandas_shards_need_feature_cols(frames: SparkXShards) -> None:
    refused(frames, AssertionError, "feature_cols must be provided")
    refused(frames, AssertionError, "label_cols must be provided", feature_cols=["a"])


def test_missing_column_is_named(frames: SparkXShards) -> None:
    refused(frames, ColumnError, "'nope'", feature_cols=["nope"], label_cols=["y"])


def test_dicts_without_x(spark: SparkSession) -> None:
    refused(XShards.partition({"z": X}, num_shards=2), ContractError, "key x should in each shard")


def test_shards_that_are_no_dicts(spark: SparkSession) -> None:
    shards = SparkXShards(spark.sparkContext.parallelize([X, X], 2))
    refused(shards, AssertionError, "each shard should be an dict")


def test_shards_that_differ(spark: SparkSession) -> None:
    parts = [{"x": X, "y": Y}, {"x": X[:, :2], "y": Y}]
    shards = SparkXShards(spark.sparkContext.parallelize(parts, 2))
    refused(shards, ColumnError, r"60 rows.*\(3,\) and \(2,\)")


def test_x_that_is_no_array(spark: SparkSession) -> None:
    shards = SparkXShards(spark.sparkContext.parallelize([{"x": [1, 2], "y": Y}], 1))
    refused(shards, ValueError, "numpy array")


def test_validation_of_another_kind(dicts: SparkXShards) -> None:
    refused(dicts, AssertionError, "train data and validation data", validation_data=FRAME)


def test_no_rows(spark: SparkSession) -> None:
    empty = SparkXShards(spark.sparkContext.parallelize([{"x": X[:0], "y": Y[:0]}], 1))
    refused(empty, InputError, "zero rows")
