"""The files that others predict with, and what 8 bits cost on the digits of scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pyspark.sql import functions as F
from sklearn.datasets import load_digits
from torch import nn

from scoring.job import Job, as_numbers, open_frame, pixels
from scoring.network import resnet
from scoring.ours import decoders
from zoo.orca import OrcaContext, stop_orca_context
from zoo.orca.learn.onnx import to_onnx
from zoo.orca.learn.openvino import Estimator, to_openvino
from zoo.orca.learn.pytorch import Estimator as TorchDoor

_TRAINED = 1_200


def write_models(job: Job) -> dict[str, float]:
    """The network as OpenVINO's files, in floats and in 8 bits, and as ONNX."""
    Path(job.folder, "models").mkdir()
    network, sample = resnet(), as_numbers(pixels(job)[:4])
    floats = to_openvino(network, job.model("floats.xml"), sample=sample)
    to_onnx(network, job.model("floats.onnx"), sample=sample)
    rows = open_frame(job).limit(300).withColumn("label", F.lit(0))
    est = Estimator.from_openvino(model_path=floats, decoders=decoders(job.shape))
    # Weights that nobody has trained tell no classes: here only the time counts.
    given = {"feature_cols": ["image"], "label_cols": ["label"]}
    est.quantize(job.model("int8.xml"), rows, metric=lambda *_: 1.0, **given)
    found = digits(job)
    stop_orca_context()
    return found


def digits(job: Job) -> dict[str, float]:
    """Accuracy on digits that were not trained on: torch, and 8 bits."""
    images, labels = load_digits(return_X_y=True)
    cells = list((images / 16).astype(np.float32).reshape(-1, 1, 8, 8))
    table = pd.DataFrame({"image": cells, "label": labels})
    table = table.sample(frac=1, random_state=0)
    spark = OrcaContext.get_spark_session()
    train, check = (
        spark.createDataFrame(part.assign(image=[c.tolist() for c in part["image"]]))
        for part in (table[:_TRAINED], table[_TRAINED:])
    )
    columns = {"feature_cols": ["image"], "label_cols": ["label"]}
    est = TorchDoor.from_torch(
        model=lambda config: nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, 10),
        ),
        optimizer=lambda model, config: torch.optim.Adam(model.parameters(), 1e-3),
        loss=nn.CrossEntropyLoss(), config={"seed": 0},
    )  # fmt: skip
    est.fit(train, epochs=15, batch_size=64, **columns)
    path = to_openvino(est, job.model("digits.xml"), sample=train)
    floats = Estimator.from_openvino(model_path=path)
    done = floats.quantize(job.model("digits8.xml"), check, calibration=train, limit=1.0, **columns)
    return {"floats": done.before, "int8": done.after, "rows": done.rows}
