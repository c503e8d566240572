"""The estimator of OpenVINO's model files: predict on arrays and on Spark data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zoo.errors import ContractError
from zoo.orca.data.tensors.plan import Columns, Decoder
from zoo.orca.learn.driver.snapshots import read_bytes
from zoo.orca.learn.model_file_estimator import ModelFileEstimator, model_file
from zoo.orca.learn.openvino.quantize import (
    CALIBRATION_ROWS,
    Measured,
    Metric,
    Quantized,
    quantize_model,
)
from zoo.orca.learn.openvino.runtime import joined_files, opened

if TYPE_CHECKING:
    from pyspark.ml import PipelineModel

__all__ = ["Estimator", "OpenVINOEstimator"]


class Estimator:
    """Makes estimators of OpenVINO's model files."""

    @staticmethod
    def from_openvino(
        *,
        model_path: Any,
        decoders: Mapping[str, Decoder] | None = None,
        preprocess: PipelineModel | None = None,
    ) -> OpenVINOEstimator:
        """Open a model file.

        Args:
            model_path: The `.xml` file, with the `.bin` file beside it, on any file system that
                the driver reaches.
            decoders: For binary columns, a function from bytes to an array.
            preprocess: Fitted stages of `pyspark.ml` that every frame goes through first, such as
                `est.preprocess` of the estimator that trained the model.

        Raises:
            ContractError: There is no such file.
            InputError: OpenVINO cannot read or run it.
        """
        return OpenVINOEstimator(model_path, decoders, preprocess)


class OpenVINOEstimator(ModelFileEstimator):
    """Predicts with a model of OpenVINO, on the cores that Spark gives to each task.

    Made by `Estimator.from_openvino`.
    """

    _open = staticmethod(opened)

    @staticmethod
    def _read(model_path: Any) -> bytes:
        xml = model_file(model_path, ".xml")
        weights = xml.with_suffix(".bin")
        if not weights.is_file():
            raise ContractError(
                "the weights beside the model", f"no file {str(weights)!r}",
                "Keep the .xml and the .bin file together, under the same name.",
            )  # fmt: skip
        return joined_files(read_bytes(xml), read_bytes(weights))

    def quantize(  # noqa: PLR0913 - two sets of rows, what to measure, and where it goes
        self,
        model_path: str,
        data: Any,
        *,
        feature_cols: Columns | None = None,
        label_cols: Columns | None = None,
        metric: str | Metric = "accuracy",
        limit: float = 0.01,
        calibration: Any = None,
        rows: int = 2_000,
    ) -> Quantized:
        """Write a model that computes in 8 bits, if that costs little.

        Ranges of numbers are taken from 300 rows, one at a time, in the layout in which this
        estimator predicts. Then the metric is computed with this model and with the new one.

        Args:
            model_path: The `.xml` file to write; the `.bin` file goes beside it.
            data: Rows with labels to measure on: a frame, or XShards.
            feature_cols: As in `predict`.
            label_cols: The column of the labels. Of XShards of dicts `["y"]`.
            metric: `"accuracy"`: the share of rows whose highest output, or of one output the
                nearest whole number, is the label. Or a function of outputs and labels, as arrays
                (lists of them where there are several), whose result is better when it is higher.
            limit: The most that the metric may fall. Otherwise nothing is written.
            calibration: Other rows to take the ranges from, such as training data; None takes the
                first of `data`.
            rows: Of `data` at most, to measure on.

        Returns:
            The metric before and after, and which model to use.

        Raises:
            InputError: There are no labels, or the metric is no number.
            MissingExtraError: The extra `quantization` is not installed.
        """
        if label_cols is None:
            raise ContractError(
                "label_cols, to measure what 8 bits cost", "None", "Name the column of the labels."
            )
        features, labels = self.first_rows(data, rows, feature_cols, label_cols)
        ranged = features
        if calibration is not None:
            ranged, _ = self.first_rows(calibration, CALIBRATION_ROWS, feature_cols)
        measured = Measured(features, labels, metric, limit)
        return quantize_model(self._blob, self.model_path, model_path, ranged, measured)
