"""Models in 8 bits, if that costs little."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pyspark.sql import SparkSession
from sklearn.datasets import load_digits
from torch import nn

from zoo.errors import ContractError, InputError
from zoo.orca.learn.openvino import Estimator, to_openvino
from zoo.orca.learn.openvino.estimator import OpenVINOEstimator

pytestmark = pytest.mark.slow  # NNCF loads
COLUMNS: dict[str, Any] = {"feature_cols": ["image"], "label_cols": ["label"]}


def digits() -> tuple[np.ndarray, np.ndarray]:
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    return (images[order] / 16).astype(np.float32).reshape(-1, 1, 8, 8), labels[order]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> OpenVINOEstimator:
    """A network that knows digits."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip
    images, labels = digits()
    x, y = torch.from_numpy(images[:1200]), torch.from_numpy(labels[:1200])
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for epoch in range(12):
        for pick in torch.randperm(1200, generator=torch.Generator().manual_seed(epoch)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[pick]), y[pick]).backward()
            optimizer.step()
    path = tmp_path_factory.mktemp("digits") / "floats.xml"
    return Estimator.from_openvino(model_path=to_openvino(model, path, sample=images[:8]))


def table(rows: slice) -> pd.DataFrame:
    images, labels = digits()
    return pd.DataFrame({"image": [i.tolist() for i in images[rows]], "label": labels[rows]})


@pytest.mark.spark
def test_accuracy_is_kept_and_told(
    spark: SparkSession, trained: OpenVINOEstimator, tmp_path: Path, capsys: Any
) -> None:
    check, path = spark.createDataFrame(table(slice(1200, 1797))), str(tmp_path / "int8.xml")
    ranges = table(slice(0, 100))
    done = trained.quantize(path, check, calibration=ranges, **COLUMNS)
    assert (done.is_int8, done.model_path, done.rows) == (True, path, 597)
    assert str(done) in capsys.readouterr().out
    images, labels = digits()
    for model, told in (
        (trained, done.before),
        (Estimator.from_openvino(model_path=path), done.after),
    ):
        found = model.predict(images[1200:], batch_size=64).argmax(1)
        assert told == pytest.approx((found == labels[1200:]).mean())
    assert done.before > 0.95
    assert done.before - done.after < 0.01
    assert "FakeQuantize" in Path(path).read_text()


@pytest.mark.spark
def test_a_model_that_falls_too_much_is_not_written(
    spark: SparkSession, trained: OpenVINOEstimator, tmp_path: Path
) -> None:
    values = iter([0.9, 0.85])
    given = {**COLUMNS, "metric": lambda outputs, labels: next(values)}
    done = trained.quantize(str(tmp_path / "m.xml"), table(slice(0, 20)), limit=0.04, **given)
    assert (done.before, done.after, done.is_int8) == (0.9, 0.85, False)
    assert done.model_path == trained.model_path
    assert "the model in floats is kept" in str(done)
    assert not [*tmp_path.iterdir()]


@pytest.mark.spark
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"label_cols": None}, "label_cols, to measure"),
        ({"metric": "mAP"}, "metric as 'accuracy' or a function"),
        ({"metric": lambda *_: float("nan")}, "a metric that is a number"),
        ({"label_cols": ["label", "label"]}, "one class as its label"),
    ],
)
def test_what_cannot_be_measured(
    spark: SparkSession, trained: OpenVINOEstimator, tmp_path: Path, given: Any, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        trained.quantize(str(tmp_path / "m.xml"), table(slice(0, 5)), **{**COLUMNS, **given})
    with pytest.raises(ContractError, match=r"ends in \.xml"):
        trained.quantize(str(tmp_path / "m.bin"), table(slice(0, 5)), **COLUMNS)
