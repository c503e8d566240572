"""An estimator on Spark data: train, evaluate, predict, save, whatever the framework."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.cluster.ranks.carried import folded, pickled
from zoo.cluster.ranks.crew import Crew
from zoo.cluster.ranks.launcher import launcher_for
from zoo.errors import ContractError, InputError
from zoo.orca.data.tensors.plan import Columns, Decoder, Use
from zoo.orca.data.tensors.row_weights import RowWeights, checked_classes
from zoo.orca.data.tf.data import Dataset
from zoo.orca.learn.callback import Callback
from zoo.orca.learn.driver.evaluation import evaluate_rows
from zoo.orca.learn.driver.fit import FitSettings, evaluate_on_ranks, train
from zoo.orca.learn.driver.inputs import Inputs, require_same_kind
from zoo.orca.learn.driver.keeper import FitKeeper
from zoo.orca.learn.driver.prediction import require_predictable
from zoo.orca.learn.driver.scoring import Scoring, first_rows
from zoo.orca.learn.framework import Framework, Recipe
from zoo.orca.learn.history import epoch_dict
from zoo.orca.learn.loggers import Logger
from zoo.orca.learn.order import GivenData, LoaderSource, Order, SnapshotOrder
from zoo.orca.learn.recovery import Recovery
from zoo.orca.learn.score.predict import Faults, Predictor, Tried
from zoo.orca.learn.tensorboard import TensorBoardSummary
from zoo.orca.learn.trained_estimator import TrainedEstimator

if TYPE_CHECKING:
    from pyspark.ml import Pipeline, PipelineModel

__all__ = ["SparkEstimator", "require_count"]

_log = logging.getLogger(__name__)
_BATCH_SIZE = 32


class SparkEstimator(TrainedEstimator):
    """Trains a model on Spark data, and predicts and evaluates with it.

    Data is a Spark DataFrame, a pandas DataFrame, a `pyarrow.Table`, XShards of pandas DataFrames
    (these four with `feature_cols` and `label_cols`), XShards of dicts
    `{"x": array or list of arrays, "y": the same}`, a `zoo.orca.data.tf.data.Dataset`, what the
    framework loads data with, such as a torch DataLoader, or a function `f(config, batch_size)`
    that returns one. `batch_size` is always the number of rows of a step over all ranks.

    Args:
        framework: Its name in `zoo.orca.learn.framework.FRAMEWORKS`.
        recipe: What the user gave to build a training from.
        metrics: In the framework's form.
        crew: How many ranks.
        snapshots: Where they are kept, or None, and how many; None keeps all.
        decoders: For columns by name.
        show_progress: None shows it where a person looks.
        recovery: What is put up with when ranks are lost.
        preprocess: Stages of `pyspark.ml` that every frame goes through first.
    """

    def __init__(  # noqa: PLR0913 - one for each part
        self,
        framework: str,
        recipe: Recipe,
        *,
        metrics: Any = None,
        crew: Crew = Crew(),  # noqa: B008 - it is frozen
        snapshots: tuple[str | None, int | None] = (None, 3),
        decoders: Mapping[str, Decoder] | None = None,
        show_progress: bool | None = None,
        recovery: Recovery = Recovery(),  # noqa: B008 - it is frozen
        preprocess: Pipeline | PipelineModel | None = None,
    ) -> None:
        super().__init__(framework, recipe, snapshots, preprocess)
        self._metrics, self._crew = metrics, crew
        self._framework.metrics(metrics)
        self._decoders, self._show_progress = dict(decoders or {}), show_progress
        self._recovery = recovery
        self._columns: tuple[Columns | None, Columns | None] = (None, None)
        self._steps: dict[Use, int] = {}  # of an epoch of a data creator, set by subclasses

    @folded
    def fit(  # noqa: PLR0913 - the arguments that existing programs pass
        self,
        data: Any,
        epochs: int = 1,
        batch_size: int | None = _BATCH_SIZE,
        profile: bool = False,
        reduce_results: bool = True,
        info: Mapping[str, Any] | None = None,
        feature_cols: Columns | None = None,
        label_cols: Columns | None = None,
        validation_data: Any = None,
        callbacks: Sequence[Callback | Logger] = (),
        checkpoint_trigger: Any = None,
        resume: bool | str = False,
        validation_split: float | None = None,
        sample_weight_col: str | None = None,
        class_weight: Mapping[Any, float] | str | None = None,
    ) -> list[Any]:
        """Train on; a second call continues where the first ended.

        Ranks that are lost on the way are replaced, and what they held is computed again: the
        result is that of an undisturbed fit. `report` tells what happened. Ctrl-C, or the stop
        button of a notebook, ends it after the running step and keeps what was trained.

        Args:
            data: Training data, see the class.
            epochs: Times every row is used.
            batch_size: Rows of a step over all ranks. Not used for a loader, which has its own
                batches; it may be None then.
            profile: Add a `profile` dict of seconds to every epoch.
            reduce_results: False gives, for every epoch, a list with one dict for each rank.
            info: For the user's own code in the ranks, such as a training operator.
            feature_cols: Columns that the model receives. Each is one argument of the model;
                when the model takes one argument, numbers and vectors are put side by side in
                one matrix. A list inside the list does that explicitly.
            label_cols: Columns of the targets. Later calls that name no columns use these.
            validation_data: Of the same kind as data; evaluated after every epoch.
            validation_split: Or the part of the rows that is drawn for it, such as 0.2, and not
                trained on; of frames, by the seed of the estimator.
            callbacks: Of `zoo.orca.learn.callbacks`, called in every rank; loggers among them
                (`zoo.orca.learn.loggers`) get the numbers on the driver.
            checkpoint_trigger: When to write a snapshot to `model_dir`: a trigger of
                `zoo.orca.learn.trigger`, `"EveryEpoch"`, or None: after every epoch if there is a
                `model_dir`.
            resume: Go on from the newest whole snapshot in `model_dir`, in whatever process and
                with however many ranks, at the very next step; `epochs` then counts from where
                the interrupted fit began. `"epoch"` goes back to the newest snapshot between two
                epochs. Without a snapshot the fit begins from scratch.
            sample_weight_col: A column, or a key of dicts, with what each row weighs, 0 or more:
                losses become sum(weight * loss) / sum(weight), those of validation data too.
            class_weight: What rows weigh besides, in training: `{0: 1.0, 1: 5.0}`, 1 for other
                classes; or `"balanced"`: rows / (classes * rows of the class).

        Returns:
            One dict for each epoch: `epoch`, `batch_count`, `num_samples`, `train_loss`,
            `last_train_loss`, `lr`, with validation data `val_loss` and `val_` with each metric,
            and what callbacks added. The list is a `History`: `frame()` is a table, `plot()` a
            picture.

        Raises:
            ContractError: A needed argument is missing, or kinds of data are mixed.
            ColumnError: A column cannot become a tensor, or be weights.
            InputError: There are weights, and the loss is not one of single rows.
            KeyboardInterrupt: The user ended it; `history` has the epochs.
            Exception: The first error that a rank hit, as its own type, with rank and host.
        """
        require_count("epochs", epochs)
        data, validation_data = _loadable(self._framework, data, validation_data)
        batch_size = _batch_size(data, batch_size)
        info = _checked_info(info)
        columns = (feature_cols, label_cols)
        first = self._training.resume(resume)
        if validation_split is not None:
            given = validation_data is not None
            data, validation_data = self._inputs().split(data, columns, validation_split, given)
        if self._training.fresh:
            for doubt in self._recipe.doubts(labels=label_cols is not None):
                _log.warning("%s", doubt)
        weights = RowWeights(sample_weight_col, checked_classes(class_weight))
        inputs = _weighing(self._inputs(), weights, self._framework, self._built)
        source = inputs.source(data, columns, batch_size, "training", use="train")
        checked = None
        if validation_data is not None:
            require_same_kind(data, validation_data)
            checked = inputs.source(
                validation_data, columns, batch_size, "validation", use="validate"
            )
        seed = int(self._recipe.config.get("seed", 0))
        trigger = self._training.trigger(checkpoint_trigger)
        start = self._training.start(epochs, first)
        loggers = [c for c in callbacks if isinstance(c, Logger)]
        if self._tensorboard is not None:
            loggers.append(TensorBoardSummary(*self._tensorboard))
        with FitKeeper(self._training.store(), loggers) as keeper:
            told = {"batch_size": batch_size, "epochs": epochs, "seed": seed}
            keeper.describe(told | self._recipe.describe())
            order = replace(
                self._order(start.state),
                until=start.until,
                limits=self._limits,
                callbacks=tuple(c for c in callbacks if not isinstance(c, Logger)),
                snapshots=SnapshotOrder(trigger, self._recovery.hold_s),
                log_steps=keeper.logs,
                info=info,
            )
            settings = FitSettings(
                batch_size,
                seed if self._recipe.config.get("shuffle", True) else None,
                self._recovery,
                keeper,
                self._show_progress,
            )
            done = train(launcher_for("spark"), self._crew, source, checked, order, start, settings)
        self._columns = self._inputs().filled(columns)
        self._settings = told | self._recipe.describe()
        self._take(done, profile)
        if reduce_results:
            return self._history
        return [[epoch_dict(e, profile, own=True) for e in ranks] for ranks in done.epochs]

    @folded
    def evaluate(
        self,
        data: Any,
        batch_size: int | None = _BATCH_SIZE,
        num_steps: int | None = None,
        profile: bool = False,
        info: Mapping[str, Any] | None = None,
        feature_cols: Columns | None = None,
        label_cols: Columns | None = None,
        sample_weight_col: str | None = None,
    ) -> dict[str, Any]:
        """Loss and metrics over all rows.

        Args:
            data: See the class.
            batch_size: Rows that the model sees at once.
            num_steps: Stop after so many batches.
            profile: Accepted for older programs; evaluation is one pass.
            info: For the user's own code in the ranks, such as a training operator.
            feature_cols: As in `fit`; those of the last fit when None.
            label_cols: The same.
            sample_weight_col: As in `fit`, for the loss; metrics count all rows alike.

        Returns:
            Each metric by name, `val_loss`, and `num_samples`.
        """
        (data,) = _loadable(self._framework, data)
        batch_size = _batch_size(data, batch_size)
        if num_steps is not None:
            require_count("num_steps", num_steps)
        info = _checked_info(info)
        weights = RowWeights(sample_weight_col)
        inputs = _weighing(self._inputs(), weights, self._framework, self._built)
        source = inputs.source(data, (feature_cols, label_cols), batch_size, "evaluation")
        metrics = self._framework.metrics(self._metrics)
        if isinstance(source, LoaderSource):
            _require_no_steps(num_steps)
            order = replace(self._order(self._training.state()), info=info)
            sums = evaluate_on_ranks(launcher_for("spark"), self._crew, source, order)
        else:
            rows = source.rows if num_steps is None else source.rows.first(num_steps * batch_size)
            sent = self._framework.evaluator(self._built, metrics, info)
            sums = evaluate_rows(rows, source.plan, sent, batch_size)
        scorer = self._framework.scorer(self._built, metrics)
        result = {**scorer.result(sums), "num_samples": int(sum(s[0][0] for s in sums))}
        self._evaluation = dict(result)
        return result

    @folded
    def predict(
        self,
        data: Any,
        batch_size: int = _BATCH_SIZE,
        feature_cols: Columns | None = None,
        profile: bool = False,
        *,
        output: str = "raw",
        classes: Sequence[str] | None = None,
        on_null: str = "error",
        on_error: str = "raise",
    ) -> Any:
        """Add a column `prediction`.

        Args:
            data: A Spark DataFrame, streaming ones included, XShards, a pandas DataFrame or a
                `pyarrow.Table`.
            batch_size: Rows that the model sees at once.
            feature_cols: As in `fit`; those of the last fit when None.
            profile: Accepted for older programs.
            output: `"raw"` is what the model returns. `"probability"` and `"class"` read it by the
                loss that the estimator has: logits become probabilities, or class numbers from 0.
            classes: Their names, in order: `prediction` is the name of the class. None takes the
                texts that `preprocess` has made the numbers of.
            on_null: `"null"`: rows of frames with a null among their features get a prediction
                that is null, instead of an error when the frame is computed.
            on_error: `"null"`: so do rows that fail in any way; the logs of the tasks say why.

        Returns:
            The same kind as `data`, with its own columns and `prediction`: a number of the output's
            own type for one, an ML vector for several, nested arrays for more dimensions, an array
            of vectors for a model with several outputs, a struct for one that returns a dict. A
            Spark DataFrame is lazy: nothing is computed before Spark needs it. XShards of dicts
            give the same dicts with a key `prediction`, an array, a list of arrays or a dict of
            them; XShards of DataFrames give dicts with `x`, the feature columns, and `prediction`.

        Raises:
            InputError: The features are not like those of the last fit, or the model's output
                cannot be a column.
        """
        require_count("batch_size", batch_size)
        faults = Faults.of(on_null, on_error)
        require_predictable(data, faults)
        if self._training.fresh and self._recipe.makes_weights:
            _log.warning(
                "predict before fit or load: the model has the weights that it was made with"
            )
        if classes is not None and output == "raw":
            output = "class"
        if output == "class" and classes is None:
            classes = self._training.stages.classes
        model, predictor = self._framework.predictors(self._built, output)
        here = Tried(predictor)
        scoring = Scoring(model, here, batch_size, faults, classes)
        return scoring.predict(data, feature_cols, self._inputs(here))

    def first_rows(
        self, data: Any, rows: int = 32, feature_cols: Columns | None = None
    ) -> list[np.ndarray]:
        """The first rows of a frame or of XShards, as the arrays that the model is called with."""
        require_count("rows", rows)
        require_predictable(data, Faults())
        return first_rows(data, (feature_cols, None), self._inputs(), rows)[0]

    def _order(self, state: bytes) -> Order:
        return Order(
            self._name,
            pickled(self._recipe, "a model, optimizer, loss and scheduler"),
            state,
            metrics=self._framework.metrics(self._metrics),
            seed=int(self._recipe.config.get("seed", 0)),
        )

    def _inputs(self, predictor: Predictor | None = None) -> Inputs:
        compares, fixed = self._recipe.compares or bool(self._metrics), frozenset(self._decoders)
        taken = partial(self._framework.as_taken, self._built, fixed=fixed, predictor=predictor)
        return Inputs(
            self._framework.float_dtype(self._built), self._framework.takes_one_input(self._built),
            self._recipe.config, self._decoders, compares, self._plan, self._columns, taken,
            self._training.stages, text=self._framework.takes_text(self._built), steps=self._steps,
        )  # fmt: skip


def _loadable(framework: Framework, *given: Any) -> list[Any]:
    """Data as ranks can load it; what is no such thing comes back as it is."""
    return [d.to_shards() if isinstance(d, Dataset) else framework.creator(d) for d in given]


def _checked_info(info: Mapping[str, Any] | None) -> dict[str, Any]:
    if info is not None and not isinstance(info, Mapping):
        raise InputError("info as a dict", type(info).__name__, "Pass info={'name': value}.")
    return dict(info or {})


def _weighing(inputs: Inputs, weights: RowWeights, framework: Framework, built: Any) -> Inputs:
    """How data is laid out whose rows have weights."""
    if weights != RowWeights():
        framework.require_row_losses(built)
    return replace(inputs, weights=weights)


def _batch_size(data: Any, given: int | None) -> int:
    """Rows of a step; a loader that was given has batches of its own."""
    if not isinstance(data, GivenData):
        require_count("batch_size", given)
        assert given is not None
        return given
    if given not in (None, _BATCH_SIZE, data.own_batch_size):
        _log.warning("batch_size=%r: not used, as the loader has its own batches", given)
    return data.own_batch_size


def _require_no_steps(num_steps: int | None) -> None:
    if num_steps is not None:
        raise InputError(
            "num_steps with a DataFrame or XShards", "num_steps with a data creator",
            "Let the creator return a shorter dataset.",
        )  # fmt: skip


def require_count(name: str, value: object) -> None:
    """Refuse what is no whole number of 1 or more.

    Raises:
        ContractError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ContractError(f"{name} as a whole number of 1 or more", repr(value), "Correct it.")
