"""The library: the same frame through each of its estimators."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from contest import NOT_INSTALLED

from scoring.job import Job, as_numbers, open_frame, predict_frame
from zoo.orca import stop_orca_context


def decode(cell: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """A cell as the network takes it."""
    return as_numbers(np.frombuffer(cell, np.uint8).reshape(shape))


def decoders(shape: tuple[int, ...]) -> dict[str, Any]:
    return {"image": partial(decode, shape=shape)}


def through(job: Job, make: Callable[[], Any]) -> list[float]:
    """Seconds of an estimator."""
    frame, est = open_frame(job), make()
    given = {"feature_cols": ["image"], "batch_size": job.batch}
    try:
        return predict_frame(job, frame, lambda rows: est.predict(rows, **given))
    finally:
        stop_orca_context()


def with_torch(job: Job) -> list[float]:
    from torch import nn

    from scoring.network import resnet
    from zoo.orca.learn.pytorch import Estimator

    given = {"model": resnet(), "loss": nn.CrossEntropyLoss(), "decoders": decoders(job.shape)}
    return through(job, lambda: Estimator.from_torch(**given))


def with_keras(job: Job) -> list[float]:
    try:
        from zoo.orca.learn.tf2.estimator import Estimator
    except ImportError as exc:
        print(exc)
        sys.exit(NOT_INSTALLED)
    from scoring.network import keras_resnet

    def creator(config: dict[str, Any]) -> Any:
        model = keras_resnet(job.size)
        model.compile(loss="mse")
        return model

    read = decoders((job.size, job.size, 3))
    return through(job, lambda: Estimator.from_keras(model_creator=creator, decoders=read))


def with_openvino(job: Job) -> list[float]:
    return _openvino(job, "floats.xml")


def with_int8(job: Job) -> list[float]:
    return _openvino(job, "int8.xml")


def _openvino(job: Job, file: str) -> list[float]:
    from zoo.orca.learn.openvino import Estimator

    given = {"model_path": job.model(file), "decoders": decoders(job.shape)}
    return through(job, lambda: Estimator.from_openvino(**given))


def with_onnx(job: Job) -> list[float]:
    from zoo.orca.learn.onnx import Estimator

    given = {"model_path": job.model("floats.onnx"), "decoders": decoders(job.shape)}
    return through(job, lambda: Estimator.from_onnx(**given))
