"""From a trained torch or Keras model to a file of OpenVINO, compared with the model."""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import openvino

from zoo.cluster.ranks.carried import folded
from zoo.errors import InputError
from zoo.orca.data.tensors.plan import Columns
from zoo.orca.learn.openvino.files import graph_files, model_place, write_files
from zoo.orca.learn.openvino.runtime import joined_files, opened
from zoo.orca.learn.openvino.silence import without_telemetry
from zoo.orca.learn.score.conversion import GivenModel, require_same

__all__ = ["to_openvino"]


@folded
def to_openvino(
    source: Any,
    path: str | os.PathLike[str],
    *,
    sample: Any,
    feature_cols: Columns | None = None,
    limit: float = 1e-3,
) -> str:
    """Write a trained model as OpenVINO's two files, with an open number of rows.

    What was made is run, and compared with the model: on all rows of the sample, and on one. Only
    then are there files.

    Args:
        source: A torch module, a Keras model, or an estimator that has trained one.
        path: The `.xml` file, on any file system; the `.bin` file goes beside it.
        sample: Two rows or more: an array, a list of one for each input, or, of an estimator, data
            such as a DataFrame, of which the first rows are taken. Other dimensions than the rows
            are fixed as they are here.
        feature_cols: Of such data; those of the last fit when None.
        limit: The largest difference, as a part of the largest output (of 1 if that is smaller).

    Returns:
        The path.

    Raises:
        InputError: The model cannot be converted, or what was made computes something else.
    """
    place = model_place(path)
    given = GivenModel.of(source, sample, feature_cols)
    with without_telemetry(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of exporters, about themselves
        try:
            graph = _graph(given)
        except Exception as exc:  # noqa: BLE001 - whatever it is, there is no model
            raise InputError(
                "a model that OpenVINO can convert", f"{type(exc).__name__}: {exc}",
                "Replace the layer it names, or try to_onnx of zoo.orca.learn.onnx.",
            ) from exc  # fmt: skip
    files = graph_files(graph)
    require_same(given, opened(joined_files(*files)), limit, ("the model", "OpenVINO"))
    write_files(place, files)
    return os.fspath(path)


def _graph(given: GivenModel) -> Any:
    graph = _of_torch(given) if given.is_torch else _of_keras(given)
    # Open are the rows alone: other sizes than those of the sample are compared with nothing.
    sizes = [openvino.PartialShape([-1, *array.shape[1:]]) for array in given.sample]
    graph.reshape(dict(enumerate(sizes)))
    return graph


def _of_torch(given: GivenModel) -> Any:
    torch: Any = sys.modules["torch"]
    example = tuple(torch.from_numpy(array) for array in given.sample)
    module, shapes = given.exportable()
    return openvino.convert_model(torch.export.export(module, example, dynamic_shapes=shapes))


def _of_keras(given: GivenModel) -> Any:
    with tempfile.TemporaryDirectory(prefix="zoo-export-") as folder:
        xml = Path(folder) / "model.xml"
        given.model.export(str(xml), format="openvino", verbose=False)
        # From memory: the folder goes.
        return openvino.Core().read_model(xml.read_bytes(), xml.with_suffix(".bin").read_bytes())
