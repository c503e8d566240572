"""Trained models become OpenVINO's files that compute the same, or there are none."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from torch import nn

from zoo.errors import ContractError, InputError
from zoo.orca.learn.openvino import Estimator, to_openvino
from zoo.orca.learn.pytorch import Estimator as TorchDoor

pytestmark = pytest.mark.slow  # torch loads its exporter
IMAGES = np.random.default_rng(0).random((6, 3, 8, 8)).astype(np.float32)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Dropout(), nn.Linear(16, 5),
    )  # fmt: skip


class Both(nn.Module):
    """Two inputs of unequal kinds, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(10, 3)

    def forward(self, item: torch.Tensor, rest: torch.Tensor) -> Any:
        return self.items(item) + rest, rest.sum(1)


class BuiltIn(nn.Module):
    """Has the number of rows of its first call in it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(int(x.shape[0]), -1)[:, :2] * int(x.shape[0])


def test_a_module_with_any_number_of_rows(tmp_path: Path) -> None:
    model, path = network(), str(tmp_path / "made" / "m.xml")
    assert to_openvino(model, path, sample=IMAGES) == path
    assert sorted(p.name for p in (tmp_path / "made").iterdir()) == ["m.bin", "m.xml"]
    est = Estimator.from_openvino(model_path=path)
    for rows in (1, 2, 6):
        with torch.no_grad():
            wanted = model.eval()(torch.from_numpy(IMAGES[:rows])).numpy()
        np.testing.assert_allclose(est.predict(IMAGES[:rows]), wanted, rtol=1e-4, atol=1e-5)
    assert model.train().training


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    model, path = Both(), str(tmp_path / "m.xml")
    items, rest = np.arange(5), np.random.default_rng(0).random((5, 3))
    to_openvino(model, path, sample=[items, rest])
    vectors, sums = Estimator.from_openvino(model_path=path).predict([items, rest])
    table = model.items.weight.detach().numpy()
    np.testing.assert_allclose(vectors, table[items] + rest, rtol=1e-5)
    np.testing.assert_allclose(sums, rest.sum(1), rtol=1e-5)


@pytest.mark.parametrize("model", [BuiltIn(), nn.Linear(7, 2)])
def test_what_computes_something_else_leaves_no_file(tmp_path: Path, model: nn.Module) -> None:
    old = tmp_path / "m.xml"
    old.write_text("old")
    with pytest.raises(InputError, match="a converted model|can convert"):
        to_openvino(model, old, sample=IMAGES[:, 0, 0])
    assert [p.name for p in tmp_path.iterdir()] == ["m.xml"]
    assert old.read_text() == "old"


def test_the_limit_counts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="up to -1"):
        to_openvino(network(), tmp_path / "m.xml", sample=IMAGES, limit=-1.0)
    with pytest.raises(ContractError, match=r"ends in \.xml"):
        to_openvino(network(), tmp_path / "m.onnx", sample=IMAGES)
    assert not [*tmp_path.iterdir()]


@pytest.mark.spark
def test_an_estimator_and_a_frame(spark: SparkSession, tmp_path: Path) -> None:
    points = spark.range(0, 40, 1, 2).select(
        "id", F.rand(1).alias("x"), F.rand(2).alias("y"), (F.col("id") % 2).alias("label")
    ).persist()  # fmt: skip
    est = TorchDoor.from_torch(model=lambda c: nn.Linear(2, 3), loss=nn.CrossEntropyLoss())
    columns = ["x", "y"]
    est.fit(points, epochs=1, batch_size=8, feature_cols=columns, label_cols=["label"])
    path = to_openvino(est, tmp_path / "m.xml", sample=points)
    made = Estimator.from_openvino(model_path=path).predict(points, feature_cols=columns)
    wanted = {row["id"]: row["prediction"].toArray() for row in est.predict(points).collect()}
    for row in made.collect():
        np.testing.assert_allclose(row["prediction"].toArray(), wanted[row["id"]], rtol=1e-4)


KERAS = """
import json, os
from pathlib import Path
import numpy as np
import keras
from keras import layers
from zoo.orca.learn.openvino import Estimator, to_openvino
from zoo.orca.learn.onnx import Estimator as OnnxDoor, to_onnx

folder, told = Path(os.environ["MADE"]), {}
x = np.random.default_rng(0).random((6, 8, 8, 3)).astype("float32")
keras.utils.set_random_seed(0)
one = keras.Sequential([
    keras.Input((8, 8, 3)), layers.Conv2D(4, 3, activation="relu"), layers.BatchNormalization(),
    layers.MaxPooling2D(), layers.Flatten(), layers.Dropout(0.5), layers.Dense(5),
])
a, b = keras.Input((3,)), keras.Input((2,))
c = layers.Concatenate()([a, b])
two = keras.Model([a, b], [layers.Dense(4)(c), layers.Dense(1)(c)])
pair = [np.random.default_rng(k).random((5, n)) for k, n in ((1, 3), (2, 2))]
for name, model, sample in (("one", one, x), ("two", two, pair)):
    wanted = model(sample, training=False)
    wanted = [keras.ops.convert_to_numpy(w) for w in keras.tree.flatten(wanted)]
    for kind, door, convert, end in (
        ("openvino", Estimator.from_openvino, to_openvino, "xml"),
        ("onnx", OnnxDoor.from_onnx, to_onnx, "onnx"),
    ):
        if (name, kind, keras.backend.backend()) == ("one", "onnx", "tensorflow"):
            continue  # each such takes a process that imports torch
        path = convert(model, folder / f"{name}.{end}", sample=sample)
        found = door(model_path=path).predict(sample)
        found = found if isinstance(found, list) else [found]
        told[f"{name} {kind}"] = max(
            float(np.abs(f - w).max()) if f.shape == w.shape else 9.0
            for f, w in zip(found, wanted, strict=True)
        )
print(json.dumps(told))
"""


@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_keras_models(
    backend: str, tmp_path: Path, fresh_python: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = fresh_python(KERAS, KERAS_BACKEND=backend, MADE=str(tmp_path))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert len(told) == (3 if backend == "tensorflow" else 4)
    assert max(told.values()) < 1e-4, told
