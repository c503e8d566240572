"""Digits: train with torch on Spark, score with OpenVINO, in floats and in 8 bits, and with ONNX.

    python examples/openvino_digits.py

What is converted is compared with the model that was trained; 8 bits are kept only where they cost
less than one point of accuracy.
"""

import tempfile

import pandas as pd
from pyspark.ml.functions import vector_to_array
from pyspark.sql import functions as F
from sklearn.datasets import load_digits
from torch import nn, optim

from zoo.orca import OrcaContext, init_orca_context, stop_orca_context
from zoo.orca.learn.onnx import Estimator as ONNX
from zoo.orca.learn.onnx import to_onnx
from zoo.orca.learn.openvino import Estimator as OpenVINO
from zoo.orca.learn.openvino import to_openvino
from zoo.orca.learn.pytorch import Estimator

COLUMNS = {"feature_cols": ["image"], "label_cols": ["label"]}


def network(config):
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


def tables(spark):
    images, labels = load_digits(return_X_y=True)
    cells = [(image / 16).reshape(1, 8, 8).tolist() for image in images]
    digits = pd.DataFrame({"image": cells, "label": labels}).sample(frac=1, random_state=0)
    return [spark.createDataFrame(part).persist() for part in (digits[:1200], digits[1200:])]


def accuracy(scored):
    scores = vector_to_array("prediction")
    right = F.array_position(scores, F.array_max(scores)) - 1 == F.col("label")
    return scored.agg(F.avg(right.cast("int"))).first()[0]


if __name__ == "__main__":
    init_orca_context(cores=2)
    train, check = tables(OrcaContext.get_spark_session())
    est = Estimator.from_torch(
        model=network,
        optimizer=lambda model, config: optim.Adam(model.parameters(), lr=0.003),
        loss=nn.CrossEntropyLoss(),
        config={"seed": 0},
    )
    est.fit(train, epochs=12, batch_size=64, **COLUMNS)

    folder = tempfile.mkdtemp()
    floats = to_openvino(est, f"{folder}/digits.xml", sample=train)
    scorer = OpenVINO.from_openvino(model_path=floats)
    done = scorer.quantize(f"{folder}/digits-int8.xml", check, calibration=train, **COLUMNS)
    file = to_onnx(est, f"{folder}/digits.onnx", sample=train)
    scorers = {
        "torch": est,
        "OpenVINO": scorer,
        "OpenVINO, 8 bits": OpenVINO.from_openvino(model_path=done.model_path),
        "ONNX Runtime": ONNX.from_onnx(model_path=file),
    }
    for name, each in scorers.items():
        scored = each.predict(check, feature_cols=["image"], batch_size=32)
        print(f"{name}: accuracy {accuracy(scored):.4f}")
    stop_orca_context()
