"""Models that compute in 8 bits, made by NNCF, and what that costs."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from zoo.errors import InputError, load_extra
from zoo.orca.learn.openvino.files import graph_files, model_place, write_files
from zoo.orca.learn.openvino.runtime import joined_files, opened, read_graph
from zoo.orca.learn.openvino.silence import without_telemetry
from zoo.orca.learn.score.ports import OpenModel, Port
from zoo.orca.learn.score.predict import Outputs, joined, outputs_of

__all__ = ["CALIBRATION_ROWS", "Measured", "Metric", "Quantized", "load_nncf", "quantize_model"]

Metric = Callable[[Any, Any], float]
"""Of outputs and labels, as arrays or lists of them; better when it is higher."""

CALIBRATION_ROWS = 300
_BATCH = 32


@dataclass(frozen=True)
class Quantized:
    """What became of a model.

    Attributes:
        before: The metric of the model in floats.
        after: That of the model in 8 bits.
        rows: On which both were measured.
        limit: The most that it was allowed to fall.
        model_path: The model to use: that in 8 bits, or the one in floats where it fell by more.
        is_int8: Which of both it is.
    """

    before: float
    after: float
    rows: int
    limit: float
    model_path: str
    is_int8: bool

    def __str__(self) -> str:
        fell = f"{self.before:.4f} in floats, {self.after:.4f} in 8 bits, on {self.rows:,} rows"
        if self.is_int8:
            return f"{fell}: {self.model_path} is in 8 bits"
        return f"{fell}: it may fall by {self.limit:g}, so the model in floats is kept"


@dataclass(frozen=True)
class Measured:
    """Rows to measure on, and how.

    Attributes:
        features: An array for each input.
        labels: An array, or several.
        metric: `accuracy` or a function.
        limit: The most that it may fall.
    """

    features: Sequence[np.ndarray]
    labels: Sequence[np.ndarray]
    metric: str | Metric
    limit: float

    def value(self, model: OpenModel) -> float:
        """The metric of a model.

        Raises:
            InputError: It is no number.
        """
        rows = len(self.features[0])
        outputs = joined(outputs_of(model, [self.features], _BATCH), rows)
        labels = self.labels[0] if len(self.labels) == 1 else list(self.labels)
        metric = _accuracy if self.metric == "accuracy" else self.metric
        if not callable(metric):
            raise InputError(
                "metric as 'accuracy' or a function of outputs and labels", repr(self.metric),
                "Pass a function whose result is better when it is higher.",
            )  # fmt: skip
        value = float(metric(outputs, labels))
        if not math.isfinite(value):
            raise InputError("a metric that is a number", repr(value), "Check rows and labels.")
        return value


def _accuracy(outputs: Outputs, labels: Any) -> float:
    plain = isinstance(outputs, np.ndarray) and isinstance(labels, np.ndarray)
    if not plain or outputs.ndim > 2 or labels.size != len(outputs):  # type: ignore[union-attr]  # noqa: PLR2004
        raise InputError(
            "one output for each row, of scores of classes, and one class as its label",
            f"outputs {_shape(outputs)}, labels {_shape(labels)}",
            "Pass metric=f(outputs, labels) for anything else.",
        )
    scores = np.asarray(outputs)
    found = scores.argmax(1) if scores.ndim > 1 else np.rint(scores)
    return float((found == np.asarray(labels).reshape(-1)).mean())


def _shape(arrays: Any) -> str:
    return str(arrays.shape) if isinstance(arrays, np.ndarray) else f"{len(arrays)} arrays"


def quantize_model(
    blob: bytes, kept: str, path: Any, ranged: Sequence[np.ndarray], measured: Measured
) -> Quantized:
    """Write a model in 8 bits, if its metric is good enough.

    Args:
        blob: The model in floats.
        kept: Its file.
        path: Of the new one.
        ranged: Rows to take the ranges of numbers from.
        measured: Rows to measure on.

    Raises:
        InputError: The metric is no number, or NNCF cannot work on the model.
        MissingExtraError: NNCF is not installed.
    """
    place = model_place(path)
    load_nncf()
    floats = opened(blob)
    before = measured.value(floats)
    files = graph_files(_quantized(read_graph(blob), floats.inputs, ranged))
    after = measured.value(opened(joined_files(*files)))
    good = before - after <= measured.limit
    if good:
        write_files(place, files)
    rows = len(measured.features[0])
    done = Quantized(before, after, rows, measured.limit, str(path) if good else kept, good)
    tqdm.write(str(done))
    return done


def load_nncf() -> Any:
    """OpenVINO's toolkit for models of fewer bits.

    Raises:
        MissingExtraError: It is not installed.
    """
    with without_telemetry():
        return load_extra("nncf", "quantization")


def _quantized(graph: Any, inputs: Sequence[Port], arrays: Sequence[np.ndarray]) -> Any:
    nncf = load_nncf()
    with without_telemetry():
        items = _items(inputs, arrays)
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # bars
                return nncf.quantize(graph, nncf.Dataset(items), subset_size=len(items))
        except Exception as exc:  # noqa: BLE001 - whatever it is, there is no model
            raise InputError(
                "a model that NNCF can quantize", f"{type(exc).__name__}: {exc}",
                "Use the model in floats.",
            ) from exc  # fmt: skip


def _items(inputs: Sequence[Port], arrays: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
    """Rows one by one, which gives better ranges than batches; or as many as the model takes."""
    size = inputs[0].shape[0] or 1
    fitted = [port.fitted(array) for port, array in zip(inputs, arrays, strict=True)]
    rows = min(len(fitted[0]), CALIBRATION_ROWS)
    starts = range(0, max(1, rows - size + 1), size)
    return [[a[np.arange(start, start + size) % rows] for a in fitted] for start in starts]
