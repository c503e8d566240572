"""The estimator for Keras models: train, evaluate and predict on Spark data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

import keras
from pyspark.sql import DataFrame

from zoo.errors import ContractError, InputError
from zoo.orca.data.tensors.plan import Columns, Decoder
from zoo.orca.learn.estimator import require_count
from zoo.orca.learn.given_estimator import (
    GivenEstimator,
    checked_config,
    checked_crew,
    checked_recovery,
    checked_snapshots,
)
from zoo.orca.learn.keras.built import Built
from zoo.orca.learn.keras.callbacks import adapted
from zoo.orca.learn.keras.losses import require_reduction
from zoo.orca.learn.keras.model_files import (
    read_file,
    require_no_folder,
    write_file,
    write_saved_model,
)
from zoo.orca.learn.keras.orca_optimizer import keras_optimizer
from zoo.orca.learn.keras.parts import require_sendable
from zoo.orca.learn.keras.process import framework_name
from zoo.orca.learn.keras.recipe import Recipe
from zoo.orca.learn.keras.scores import Scores
from zoo.orca.learn.recovery import KEPT, Recovery

if TYPE_CHECKING:
    from pyspark.ml import Pipeline, PipelineModel

__all__ = ["KerasEstimator", "make_estimator"]

_log = logging.getLogger(__name__)

_BATCH_SIZE = 32
_MODEL, _WEIGHTS = (".keras", ".h5"), ".weights.h5"


class KerasEstimator(GivenEstimator):
    """Trains a Keras model on Spark data, and predicts and evaluates with it.

    Made by `zoo.orca.learn.tf.estimator.Estimator.from_keras` of a compiled model, which is itself
    trained, or by `zoo.orca.learn.tf2.Estimator.from_keras` of functions. Columns are the inputs
    of the model in their order. Each step is that of the whole batch: losses are means over all
    rows of a step, however many ranks share them. `compute_loss` may be overridden; `train_step`
    may not. What a batch gives the same row of an embedding is summed before the optimizer sees it,
    as it is on all backends but plain Keras on TensorFlow. Batch normalisation normalises with the
    rows of a rank, and moves its means by those of all ranks, weighted by rows.
    """

    def fit(  # type: ignore[override]  # noqa: PLR0913 - the arguments that programs pass
        self,
        data: Any,
        epochs: int = 1,
        batch_size: int | None = _BATCH_SIZE,
        *,
        verbose: Any = None,
        callbacks: Any = None,
        validation_data: Any = None,
        class_weight: Mapping[Any, float] | str | None = None,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_freq: int = 1,
        data_config: Mapping[str, Any] | None = None,
        session_config: Any = None,
        auto_shard_files: bool | None = None,
        **given: Any,
    ) -> Any:
        """Train on; a second call continues where the first ended. See `SparkEstimator.fit`.

        Args:
            data: Training data, see `SparkEstimator`; a data creator returns a `tf.data.Dataset`.
            epochs: Times every row is used.
            batch_size: Rows of a step over all ranks.
            verbose: 0 shows no progress.
            callbacks: Of Keras, or of `zoo.orca.learn.callbacks`.
            validation_data: Of the same kind as data; evaluated after every epoch.
            class_weight: What rows of a class weigh. With weights of rows a loss is
                sum(weight * loss) / sum(weight); plain Keras divides by the number of rows.
            steps_per_epoch: Of data that does not end by itself. Frames end when all rows are
                used.
            validation_steps: The same, in validation.
            validation_freq: Kept for older programs: each epoch is validated.
            data_config: Added to the `config` that data creators get.
            session_config: Kept for older programs.
            auto_shard_files: Kept for older programs: data is shared by rows.
            given: `feature_cols`, `label_cols`, `sample_weight_col`, `validation_split`,
                `checkpoint_trigger`, `resume`, `profile`, `reduce_results`, `info`: those of
                `SparkEstimator.fit`.

        Returns:
            One dict for each epoch: `train_loss`, each metric by its name, with validation data
            `val_loss` and `val_` with each metric. `result["train_loss"]` is that of the last
            epoch.

        Raises:
            InputError: The model is not compiled, or cannot be trained so.
        """
        built = self._trainable()
        _say_unused(
            session_config=session_config,
            auto_shard_files=auto_shard_files,
            validation_freq=validation_freq if validation_freq != 1 else None,
        )
        self._say_steps(data, steps_per_epoch=steps_per_epoch, validation_steps=validation_steps)
        self._steps = _counts(train=steps_per_epoch, validate=validation_steps)
        until = self._training.position.epoch + epochs if isinstance(epochs, int) else 0
        built.ready(built.layout)
        shown, self._show_progress = self._show_progress, verbose != 0 and self._show_progress
        try:
            return super().fit(
                _configured(data, data_config),
                epochs,
                batch_size,
                validation_data=_configured(validation_data, data_config),
                class_weight=class_weight,
                callbacks=adapted(callbacks or (), epochs=until),
                **given,
            )
        finally:
            self._show_progress = shown

    def evaluate(  # type: ignore[override]
        self,
        data: Any,
        batch_size: int | None = _BATCH_SIZE,
        num_steps: int | None = None,
        *,
        data_config: Mapping[str, Any] | None = None,
        **given: Any,
    ) -> Scores:
        """Loss and metrics over all rows. See `SparkEstimator.evaluate`.

        Args:
            data: See `fit`.
            batch_size: Rows that the model sees at once.
            num_steps: Stop after so many batches.
            data_config: Added to the `config` that data creators get.
            given: `feature_cols`, `label_cols`, `sample_weight_col`, `profile`, `info`; `verbose`,
                `callbacks`, `sample_weight` and `auto_shard_files` of older programs have no
                effect.

        Returns:
            `val_loss`, each metric by its name, `num_samples`. It also answers to older names, see
            `Scores`.
        """
        self._trainable()
        _say_unused(**{n: given.pop(n, None) for n in _UNUSED if n != "steps"})
        if _is_creator(data):
            self._steps, num_steps = _counts(score=num_steps), None
        return Scores(
            super().evaluate(_configured(data, data_config), batch_size, num_steps, **given)
        )

    def predict(
        self,
        data: Any,
        batch_size: int | None = None,
        feature_cols: Columns | None = None,
        profile: bool = False,
        **given: Any,
    ) -> Any:
        """Add a column `prediction`; the model need not be compiled. See `SparkEstimator.predict`.

        Args:
            data: See `SparkEstimator.predict`.
            batch_size: Rows that the model sees at once; None for 32.
            feature_cols: As in `fit`; those of the last fit when None.
            profile: Kept for older programs.
            given: `output`, `classes`, `on_null`, `on_error`; `verbose`, `steps`, `callbacks`,
                `data_config` and `auto_shard_files` of older programs have no effect.
        """
        _say_unused(**{n: given.pop(n, None) for n in (*_UNUSED, "data_config")})
        return super().predict(
            data, _BATCH_SIZE if batch_size is None else batch_size, feature_cols, profile, **given
        )

    def save(self, model_path: str) -> str:
        """Save what training goes on from; by the ending of the path, what Keras reads.

        Args:
            model_path: `.keras` and `.h5` have the whole model as Keras saves it, `.weights.h5`
                its weights; any other path weights, optimizer and position in our own format.

        Returns:
            The path.
        """
        if model_path.endswith(_WEIGHTS):
            return self.save_keras_weights(model_path)
        if model_path.endswith(_MODEL):
            return self.save_keras_model(model_path)
        return super().save(model_path)

    def load(self, model_path: str, **options: Any) -> Self:
        """Continue from a file of `save`, or from weights that Keras wrote.

        Args:
            model_path: Of `save`, `.keras`, `.weights.h5` or `.h5`. Of the latter the weights are
                taken, and the optimizer begins anew.
            options: Kept for older programs.

        Raises:
            InputError: The file cannot be read as such.
        """
        _say_unused(**options)
        require_no_folder(model_path)
        return super().load(model_path)

    def save_keras_model(self, path: str, overwrite: bool = True) -> str:
        """Save the model as Keras does.

        Args:
            path: The file, on any file system: `.keras`, or `.h5` for the older format. Without
                an ending it is in the format of `.keras`.
            overwrite: A file that is there may go.

        Returns:
            The path.
        """
        suffix = ".h5" if path.endswith(".h5") else ".keras"
        model = self._built.model
        return write_file(path, lambda local: model.save(local), suffix=suffix, overwrite=overwrite)

    def save_keras_weights(
        self, filepath: str, overwrite: bool = True, save_format: str | None = None
    ) -> str:
        """Save the weights of the model as Keras does.

        Args:
            filepath: The file.
            overwrite: A file that is there may go.
            save_format: Kept for older programs: the format is that of `.weights.h5`.

        Returns:
            The path.
        """
        _say_unused(save_format=None if save_format in ("h5", "keras") else save_format)
        model = self._built.model
        return write_file(filepath, model.save_weights, suffix=_WEIGHTS, overwrite=overwrite)

    def export(self, path: str, overwrite: bool = True) -> str:
        """Write the model as a SavedModel of TensorFlow, which serves it without Keras.

        Args:
            path: The folder, on a local disk.
            overwrite: A SavedModel that is there may go.

        Returns:
            The path.

        Raises:
            InputError: Keras runs on another backend, or something else is there.
        """
        return write_saved_model(self._built.model, path, overwrite=overwrite)

    def load_keras_weights(self, filepath: str, by_name: bool = False) -> None:
        """Take the weights of a file that Keras wrote, all of them or none.

        Args:
            filepath: `.weights.h5`, `.keras` or `.h5`.
            by_name: Of older programs: only False.

        Raises:
            InputError: They are of another model, or `by_name` is asked for.
        """
        if by_name:
            raise InputError(
                "by_name=False", "by_name=True",
                "Names of layers are counted up, so that layers would be left out silently: set "
                "them by layer.set_weights.",
            )  # fmt: skip
        self._training.take(read_file(filepath))

    def _trainable(self) -> Built:
        """What was built, if it can be trained and evaluated.

        Raises:
            InputError: It cannot.
        """
        built: Built = self._built
        model = built.model
        if not model.compiled:
            raise ContractError(
                "a compiled model", f"{model.name!r}, which only predicts",
                "Call model.compile(optimizer=..., loss=...) before, or give "
                "compile_args_creator=lambda config: {'optimizer': ..., 'loss': ...}.",
            )  # fmt: skip
        for name in ("train_step", "test_step"):
            if not getattr(type(model), name).__module__.startswith("keras."):
                raise InputError(
                    f"a model with the {name} of Keras, whose gradients are added over the ranks",
                    f"{type(model).__name__}, which overrides it",
                    "Override compute_loss(self, x, y, y_pred, sample_weight, training) instead.",
                )
        require_reduction(model)
        if model.built and not model.trainable_weights:
            raise InputError(
                "a model with weights to train", f"{model.name!r} without any",
                "Set trainable = True for some of its layers, and compile it again.",
            )  # fmt: skip
        return built

    def _say_steps(self, data: Any, **steps: int | None) -> None:
        given = [f"{name}={count}" for name, count in steps.items() if count is not None]
        if given and not _is_creator(data):
            _log.warning(
                "%s: not used: an epoch goes through all rows of the data once", ", ".join(given)
            )


_UNUSED = ("verbose", "callbacks", "steps", "sample_weight", "auto_shard_files")


def _say_unused(**given: Any) -> None:
    names = [name for name, value in given.items() if value not in (None, 0, 1, (), [])]
    if names:
        _log.warning("%s: kept for older programs, without effect here", ", ".join(names))


def _is_creator(data: Any) -> bool:
    return callable(data) and not isinstance(data, DataFrame)


def _configured(data: Any, config: Mapping[str, Any] | None) -> Any:
    """A data creator that gets more settings."""
    if not config or not _is_creator(data):
        return data
    more = dict(config)

    def configured(own: dict[str, Any], batch_size: int) -> Any:
        own.update(more)  # not a copy: whether the function asks for its rank is of interest
        return data(own, batch_size)

    return configured


def _counts(**steps: int | None) -> dict[Any, int]:
    """Steps that were asked for."""
    for name, count in steps.items():
        if count is not None:
            require_count(f"the steps to {name}", count)
    return {name: count for name, count in steps.items() if count is not None}


def make_estimator(  # noqa: PLR0913 - the arguments of both doors
    *,
    model: keras.Model | None = None,
    model_creator: Callable[[dict[str, Any]], Any] | None = None,
    compile_args_creator: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
    optimizer: Any = None,
    metrics: Any = None,
    config: Mapping[str, Any] | None = None,
    model_dir: str | None = None,
    workers_per_node: int = 1,
    min_workers: int = 1,
    max_workers: int | None = None,
    decoders: Mapping[str, Decoder] | None = None,
    recovery: Recovery | None = None,
    keep_snapshots: int | None = KEPT,
    preprocess: Pipeline | PipelineModel | None = None,
    show_progress: bool | None = None,
) -> KerasEstimator:
    """Make an estimator of a model or of functions; see the doors, which say what is what.

    Raises:
        InputError: An argument cannot be used.
    """
    if model is not None:
        if not isinstance(model, keras.Model):
            kind = f"{type(model).__module__}.{type(model).__name__}"
            raise InputError(
                "keras_model as a compiled keras.Model of Keras 3", kind,
                "Make it with the package keras. A function that makes one goes to "
                "zoo.orca.learn.tf2.Estimator.from_keras(model_creator=...).",
            )  # fmt: skip
        require_sendable(model)
    elif not callable(model_creator) or isinstance(model_creator, keras.Model):
        raise InputError(
            "model_creator as a function f(config) that returns a keras.Model",
            type(model_creator).__name__,
            "A model that is made already goes to zoo.orca.learn.tf.estimator.Estimator."
            "from_keras(keras_model=...).",
        )
    if compile_args_creator is not None and not callable(compile_args_creator):
        raise InputError(
            "compile_args_creator as a function f(config) that returns a dict",
            repr(compile_args_creator), "Write lambda config: {...} around it.",
        )  # fmt: skip
    recipe = Recipe(
        creator=None if model is not None else model_creator,
        compile_creator=compile_args_creator,
        model=model,
        optimizer=None if optimizer is None else keras_optimizer(optimizer),
        config=checked_config(config),
    )
    return KerasEstimator(
        framework_name(),
        recipe,
        metrics=metrics,
        crew=checked_crew(min_workers, max_workers, workers_per_node),
        snapshots=checked_snapshots(model_dir, keep_snapshots),
        decoders=decoders,
        show_progress=show_progress,
        recovery=checked_recovery(recovery),
        preprocess=preprocess,
    )
