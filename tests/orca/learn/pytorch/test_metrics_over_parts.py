"""Metrics of classifiers: the same, and the peer's, from frames, shards, loaders and ranks."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pyspark.sql import DataFrame, SparkSession
from sklearn import metrics as peer
from torch import nn

from zoo.orca.data import XShards
from zoo.orca.learn.metrics import (
    AUC,
    Accuracy,
    AveragePrecision,
    ConfusionMatrix,
    F1Score,
    LogLoss,
    Precision,
    Recall,
)
from zoo.orca.learn.pytorch import Estimator

pytestmark = pytest.mark.spark
ROWS = 1200


def _network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))


def _metrics() -> list[Any]:
    cut = [kind(from_logits=True) for kind in (Accuracy, Precision, Recall, F1Score, LogLoss)]
    torchmetrics = pytest.importorskip("torchmetrics")
    return [
        *cut,
        ConfusionMatrix(from_logits=True),
        AUC(),
        AveragePrecision(),
        torchmetrics.classification.BinaryAUROC(),
    ]


def _estimator(**given: Any) -> Any:
    return Estimator.from_torch(
        model=_network(),
        optimizer=lambda model, config: torch.optim.Adam(model.parameters(), lr=0.05),
        loss=nn.BCEWithLogitsLoss(),
        metrics=_metrics(),
        **given,
    )


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """One label in fifty is 1."""
    random = np.random.default_rng(5)
    y = (random.random(ROWS) < 0.02).astype(np.float32)
    x = (random.normal(size=(ROWS, 2)) + y[:, None]).astype(np.float32)
    return pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": y})


@pytest.fixture(scope="module")
def uneven(spark: SparkSession, rows: pd.DataFrame) -> DataFrame:
    parts = [rows[:9], rows[9:1100], rows[:0], rows[1100:]]
    schema = "a float, b float, y float"
    frames = [spark.createDataFrame(part, schema).coalesce(1) for part in parts]
    return frames[0].union(frames[1]).union(frames[2]).union(frames[3])


def _expected(rows: pd.DataFrame, model: nn.Module) -> dict[str, Any]:
    with torch.no_grad():
        logits = model(torch.from_numpy(rows[["a", "b"]].to_numpy())).double()
    chances, truth = logits.sigmoid().numpy(), rows["y"].to_numpy()
    found = chances > 0.5
    return {
        "Accuracy": peer.accuracy_score(truth, found),
        "Precision": peer.precision_score(truth, found, zero_division=0),
        "Recall": peer.recall_score(truth, found),
        "F1Score": peer.f1_score(truth, found),
        "LogLoss": peer.log_loss(truth, chances),
        "AUC": peer.roc_auc_score(truth, logits),
        "AveragePrecision": peer.average_precision_score(truth, logits),
        "BinaryAUROC": peer.roc_auc_score(truth, logits),
        "ConfusionMatrix": peer.confusion_matrix(truth, found).tolist(),
    }


def _assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    matrix = expected.pop("ConfusionMatrix")
    assert found["ConfusionMatrix"] == matrix
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


def test_frames_shards_and_loaders_give_the_values_of_the_peer(
    uneven: DataFrame, rows: pd.DataFrame
) -> None:
    est = _estimator()

    def loader(config: Any, batch_size: int) -> Any:
        x = torch.from_numpy(rows[["a", "b"]].to_numpy())
        data = torch.utils.data.TensorDataset(x, torch.from_numpy(rows["y"].to_numpy()))
        return torch.utils.data.DataLoader(data, batch_size=batch_size)

    shards = XShards.partition(
        {"x": rows[["a", "b"]].to_numpy(), "y": rows["y"].to_numpy()}, num_shards=3
    )
    named = {"feature_cols": ["a", "b"], "label_cols": ["y"]}
    for data, columns in ((uneven, named), (shards, {}), (loader, {})):
        found = est.evaluate(data, batch_size=64, **columns)
        _assert_same(found, _expected(rows, _network()))


def test_ranks_give_what_evaluate_gives(uneven: DataFrame, rows: pd.DataFrame) -> None:
    est = _estimator(workers_per_node=2)
    named = {"feature_cols": ["a", "b"], "label_cols": ["y"], "batch_size": 100}
    history = est.fit(uneven, epochs=2, validation_data=uneven, **named)
    validation = {name.removeprefix("val_"): value for name, value in history[-1].items()}
    _assert_same(validation, _expected(rows, est.get_model()))
