"""From a trained torch or Keras model to an ONNX file, compared with the model."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from zoo.cluster.ranks.carried import folded
from zoo.errors import ContractError, InputError, load_extra
from zoo.orca.data.storage import locate
from zoo.orca.data.tensors.plan import Columns
from zoo.orca.learn.driver.keeper import write_whole
from zoo.orca.learn.onnx.runtime import opened
from zoo.orca.learn.onnx.torch_export import onnx_of
from zoo.orca.learn.score.conversion import GivenModel, require_same

__all__ = ["to_onnx"]

_LONGEST_S = 600


@folded
def to_onnx(
    source: Any,
    path: str | os.PathLike[str],
    *,
    sample: Any,
    feature_cols: Columns | None = None,
    limit: float = 1e-3,
) -> str:
    """Write a trained model as an ONNX file, with an open number of rows.

    What was made is run by ONNX Runtime, and compared with the model: on all rows of the sample,
    and on one. Only then is there a file. torch exports; a Keras model of another backend is opened
    on torch for that, in a process of its own.

    Args:
        source: A torch module, a Keras model, or an estimator that has trained one.
        path: The `.onnx` file, on any file system.
        sample: Two rows or more: an array, a list of one for each input, or, of an estimator, data
            such as a DataFrame, of which the first rows are taken. Other dimensions than the rows
            are fixed as they are here.
        feature_cols: Of such data; those of the last fit when None.
        limit: The largest difference, as a part of the largest output (of 1 if that is smaller).

    Returns:
        The path.

    Raises:
        InputError: The model cannot be converted, or what was made computes something else.
        MissingExtraError: `onnx` or `torch` is not installed.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path).endswith(".onnx"):
        raise ContractError("a path that ends in .onnx", repr(path), "Add the ending.")
    locate(path)
    load_extra("onnxscript", "onnx")
    load_extra("torch", "torch")
    given = GivenModel.of(source, sample, feature_cols)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter, about itself
            blob = onnx_of(given) if given.is_torch else None
        blob = blob or _on_torch(given)
    except Exception as exc:  # noqa: BLE001 - whatever it is, there is no model
        raise InputError(
            "a model that torch can export to ONNX", f"{type(exc).__name__}: {exc}",
            "Replace the layer it names, or try to_openvino of zoo.orca.learn.openvino.",
        ) from exc  # fmt: skip
    require_same(given, opened(blob), limit, ("the model", "ONNX Runtime"))
    write_whole(path, blob)
    return os.fspath(path)


def _on_torch(given: GivenModel) -> bytes:
    """A Keras model, exported by a process in which Keras computes with torch."""
    with tempfile.TemporaryDirectory(prefix="zoo-export-") as folder:
        model, rows, made = (Path(folder) / name for name in ("m.keras", "x.npz", "m.onnx"))
        given.model.save(model)
        np.savez(rows, *given.sample)
        command = [sys.executable, "-m", "zoo.orca.learn.onnx.torch_export"]
        done = subprocess.run(
            [*command, str(model), str(rows), str(made)],
            env={**os.environ, "KERAS_BACKEND": "torch", "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True, text=True, timeout=_LONGEST_S, check=False,
        )  # fmt: skip
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["no word"]
            raise RuntimeError(
                f"on Keras's torch backend: {lines[-1]} (layers of your own are not known there)"
            )
        return made.read_bytes()
