"""An estimator of a model file: it predicts on Spark data, and trains nothing."""

from __future__ import annotations

import os
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np
from pyspark import SparkContext

from zoo.cluster.ranks.carried import folded
from zoo.errors import ContractError, NotYetError
from zoo.orca.data.storage import Location, locate
from zoo.orca.data.tensors.plan import Columns, Decoder
from zoo.orca.learn.driver.inputs import Inputs
from zoo.orca.learn.driver.prediction import require_predictable
from zoo.orca.learn.driver.scoring import Scoring, first_rows
from zoo.orca.learn.driver.stages import Stages
from zoo.orca.learn.estimator import require_count
from zoo.orca.learn.score.ports import OpenModel
from zoo.orca.learn.score.predict import Faults, Outputs, SentModel, outputs_of

if TYPE_CHECKING:
    from pyspark.ml import Pipeline, PipelineModel

__all__ = ["ModelFileEstimator", "model_file"]


def model_file(path: Any, ending: str) -> Location:
    """The place of a model file.

    Raises:
        ContractError: It is no text, has another ending, or is not there.
    """
    if not isinstance(path, str | os.PathLike):
        raise ContractError(
            "model_path as a text", type(path).__name__, f"Pass the path of the {ending} file."
        )
    place = locate(path)
    if not place.name.endswith(ending) or not place.is_file():
        raise ContractError(
            f"the path of a model file that exists and ends in {ending}", repr(os.fspath(path)),
            "Check the path; it is read on the driver.",
        )  # fmt: skip
    return place


def _refused(name: str, instead: str) -> Callable[..., NoReturn]:
    def refuse(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotYetError("predict or load: a model file does not train", name, instead)

    refuse.__name__, refuse.__doc__ = name, f"Raises `NotYetError`. {instead}"
    return refuse


_TRAIN = "Train with zoo.orca.learn.pytorch or a Keras estimator, and convert the model."


class ModelFileEstimator(ABC):
    """Predicts with a model file.

    The file is read on the driver and travels to the executors with the tasks; each worker process
    opens it once, for all calls. A model that was made for a fixed number of rows gets this number,
    whatever comes.

    Args:
        model_path: The file.
        decoders: For columns by name, as in `Estimator.from_torch`.
        preprocess: Fitted stages of `pyspark.ml` that every frame goes through first.
    """

    def __init__(
        self,
        model_path: Any,
        decoders: Mapping[str, Decoder] | None = None,
        preprocess: PipelineModel | Pipeline | None = None,
    ) -> None:
        self._decoders, self._stages = dict(decoders or {}), Stages(preprocess)
        self.load(model_path)

    @staticmethod
    @abstractmethod
    def _read(model_path: Any) -> bytes:
        """The model as it travels."""

    @staticmethod
    @abstractmethod
    def _open(blob: bytes, threads: int = 0) -> OpenModel:
        """The model at work in this process, with so many threads; 0 for one on each core."""

    def load(self, model_path: Any) -> Self:
        """Take another model file in the place of this one.

        Raises:
            ContractError: There is no such file.
            InputError: It cannot be read.
        """
        blob = self._read(model_path)
        self._model, self._blob, self.model_path = self._open(blob), blob, os.fspath(model_path)
        self._key = uuid.uuid4().hex
        return self

    def __repr__(self) -> str:
        inputs = ", ".join(map(str, self._model.inputs))
        return f"<{type(self).__name__} of {self.model_path!r}: {inputs}>"

    @folded
    def predict(
        self,
        data: Any,
        feature_cols: Columns | None = None,
        batch_size: int = 4,
        *,
        on_null: str = "error",
        on_error: str = "raise",
    ) -> Any:
        """Predict.

        Args:
            data: A numpy array, or a list of one for each input of the model, which are predicted
                here on the driver; a Spark DataFrame, streaming ones included, XShards, a pandas
                DataFrame or a `pyarrow.Table`.
            feature_cols: Columns of a frame, one for each input in the order of the file; with one
                input, several are put side by side. A list inside the list does that explicitly.
            batch_size: Rows that the model sees at once; what is predicted does not depend on it.
            on_null: `"null"`: rows of frames with a null among their features get a prediction
                that is null.
            on_error: `"null"`: so do rows that fail in any way.

        Returns:
            Of arrays the output, with a row for each of theirs, or a list of the outputs. Of other
            data the same kind with `prediction`, as estimators that train give it.

        Raises:
            InputError: Data does not fit an input of the model, which is named.
        """
        require_count("batch_size", batch_size)
        batch_size = self._model.whole_calls(batch_size)
        arrays = [data] if isinstance(data, np.ndarray) else data
        if isinstance(arrays, list | tuple) and all(isinstance(a, np.ndarray) for a in arrays):
            return self._of_arrays(arrays, batch_size)
        faults = Faults.of(on_null, on_error)
        require_predictable(data, faults)
        sent = SentModel(self._blob, partial(self._open, threads=_task_cores()), self._key)
        scoring = Scoring(sent, self._model, batch_size, faults, kinds=self._model.kinds())
        return scoring.predict(data, feature_cols, self._inputs())

    def first_rows(
        self,
        data: Any,
        rows: int = 32,
        feature_cols: Columns | None = None,
        label_cols: Columns | None = None,
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The first rows of data as the arrays that the model receives, and their labels.

        Args:
            data: As in `predict`, but no arrays.
            rows: At most.
            feature_cols: As in `predict`.
            label_cols: Columns of labels; of XShards of dicts `["y"]` takes those under `y`.
        """
        require_count("rows", rows)
        require_predictable(data, Faults())
        return first_rows(data, (feature_cols, label_cols), self._inputs(), rows)

    def shutdown(self, force: bool = False) -> None:  # noqa: B027 - there is nothing to do
        """Nothing to do: no workers outlive a call. Kept for programs that call it."""

    fit = _refused("fit", _TRAIN)
    evaluate = _refused("evaluate", "Predict, and compare the column with the labels in Spark.")
    get_model = _refused("get_model", "Read the file with the runtime itself.")
    save = _refused("save", "Copy the model file.")
    load_orca_checkpoint = _refused("load_orca_checkpoint", "load(model_path) takes a model file.")
    set_tensorboard = _refused("set_tensorboard", _TRAIN)
    get_train_summary = _refused("get_train_summary", _TRAIN)
    get_validation_summary = _refused("get_validation_summary", _TRAIN)
    clear_gradient_clipping = _refused("clear_gradient_clipping", _TRAIN)
    set_constant_gradient_clipping = _refused("set_constant_gradient_clipping", _TRAIN)
    set_l2_norm_gradient_clipping = _refused("set_l2_norm_gradient_clipping", _TRAIN)

    def _of_arrays(self, arrays: list[np.ndarray] | tuple[np.ndarray, ...], size: int) -> Outputs:
        if len({a.shape[:1] for a in arrays}) != 1 or any(not a.ndim for a in arrays):
            raise ContractError(
                "arrays of one length, with rows in front, for the inputs "
                + ", ".join(map(str, self._model.inputs)),
                f"shapes {[a.shape for a in arrays]}", "Cut them alike.",
            )  # fmt: skip
        parts = outputs_of(self._model, [arrays], size)
        return _whole(parts or [self._model(arrays)])

    def _inputs(self) -> Inputs:
        return Inputs(
            float_dtype=self._model.float_dtype,
            one_input=len(self._model.inputs) == 1,
            config={},
            decoders=self._decoders,
            compares=True,
            seen=None,
            as_taken=self._model.as_taken,
            stages=self._stages,
        )


def _whole(parts: list[Any]) -> Outputs:
    """The outputs of batches as one, in the shapes that the model gives them."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts) if len(parts) > 1 else parts[0]
    return [np.concatenate(same) for same in zip(*parts, strict=True)]


def _task_cores() -> int:
    """Cores that a task has to itself."""
    context = SparkContext._active_spark_context
    return 1 if context is None else int(context.getConf().get("spark.task.cpus", "1"))
