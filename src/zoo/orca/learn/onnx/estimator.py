"""The estimator of ONNX files: predict on arrays and on Spark data with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zoo.orca.data.tensors.plan import Decoder
from zoo.orca.learn.model_file_estimator import ModelFileEstimator, model_file
from zoo.orca.learn.onnx.runtime import opened, read_whole

if TYPE_CHECKING:
    from pyspark.ml import PipelineModel

__all__ = ["Estimator", "ONNXEstimator"]


class Estimator:
    """Makes estimators of ONNX files."""

    @staticmethod
    def from_onnx(
        *,
        model_path: Any,
        decoders: Mapping[str, Decoder] | None = None,
        preprocess: PipelineModel | None = None,
    ) -> ONNXEstimator:
        """Open a model file.

        Args:
            model_path: The `.onnx` file, on any file system that the driver reaches. Weights that
                lie in files beside it are read too, where it is a local one.
            decoders: For binary columns, a function from bytes to an array.
            preprocess: Fitted stages of `pyspark.ml` that every frame goes through first, such as
                `est.preprocess` of the estimator that trained the model.

        Raises:
            ContractError: There is no such file.
            InputError: ONNX Runtime cannot read or run it.
        """
        return ONNXEstimator(model_path, decoders, preprocess)


class ONNXEstimator(ModelFileEstimator):
    """Predicts with ONNX Runtime, on the cores that Spark gives to each task.

    Made by `Estimator.from_onnx`.
    """

    _open = staticmethod(opened)

    @staticmethod
    def _read(model_path: Any) -> bytes:
        return read_whole(model_file(model_path, ".onnx"))
