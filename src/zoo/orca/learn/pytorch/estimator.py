"""The estimator for PyTorch models: train, evaluate and predict on Spark data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from zoo.cluster.launch import launcher_for, pickled
from zoo.cluster.session import active_session
from zoo.errors import ContractError, InputError, NotYetError
from zoo.orca.data.frame import as_frame, select_columns
from zoo.orca.data.plan import Columns, Decoder, TensorPlan
from zoo.orca.data.xshards.spark_xshards import SparkXShards
from zoo.orca.learn.callback import Callback
from zoo.orca.learn.explain import explain
from zoo.orca.learn.keeper import FitKeeper
from zoo.orca.learn.loggers import Logger
from zoo.orca.learn.loop import EpochStats
from zoo.orca.learn.pytorch.batches import LoaderSource
from zoo.orca.learn.pytorch.fitting import FitSettings, World, evaluate_on_ranks, train
from zoo.orca.learn.pytorch.inputs import Inputs, require_same_kind
from zoo.orca.learn.pytorch.observer import SnapshotOrder
from zoo.orca.learn.pytorch.operator_host import checked_operator, predicting
from zoo.orca.learn.pytorch.operator_scorer import make_scorer
from zoo.orca.learn.pytorch.recipe import Built, Recipe
from zoo.orca.learn.pytorch.resume import read_checkpoint
from zoo.orca.learn.pytorch.scorer import running_metrics
from zoo.orca.learn.pytorch.scoring import (
    evaluate_rows,
    predict_shards,
    prediction_column,
    prediction_type,
)
from zoo.orca.learn.pytorch.several import as_given, members
from zoo.orca.learn.pytorch.training import Training
from zoo.orca.learn.pytorch.training_operator import TrainingOperator
from zoo.orca.learn.recovery import Recovery
from zoo.orca.learn.report import FitReport
from zoo.orca.learn.spark_estimator import SparkEstimator
from zoo.orca.learn.summary import TensorBoardSummary

__all__ = ["Estimator", "TorchEstimator"]

_log = logging.getLogger(__name__)
_LATER = ("bigdl", "horovod", "ray", "torch_distributed")


class Estimator:
    """Makes estimators for PyTorch models."""

    @staticmethod
    def from_torch(  # noqa: PLR0913 - the arguments that existing programs pass
        *,
        model: nn.Module | Callable[[dict[str, Any]], Any],
        optimizer: Any = None,
        loss: Any = None,
        metrics: Any = None,
        scheduler_creator: Callable[..., Any] | None = None,
        training_operator_cls: type[TrainingOperator] | None = TrainingOperator,
        initialization_hook: Callable[[], object] | None = None,
        config: Mapping[str, Any] | None = None,
        scheduler_step_freq: str | None = "batch",
        use_tqdm: bool = False,
        workers_per_node: int = 1,
        model_dir: str | None = None,
        backend: str = "spark",
        decoders: Mapping[str, Decoder] | None = None,
        min_workers: int = 1,
        max_workers: int | None = None,
        precision: str | None = None,
        gradient_accumulation: int = 1,
        recovery: Recovery | None = None,
        keep_snapshots: int | None = 3,
    ) -> TorchEstimator:
        """Make an estimator; nothing runs yet.

        Args:
            model: A module, or a function `f(config)` that makes one.
            optimizer: A torch optimizer over the module's parameters, one of
                `zoo.orca.learn.optimizers`, a function `f(model, config)` that makes one, or None
                for plain SGD.
            loss: A torch loss, any function `(output, target)`, a function `f(config)` that makes
                one, a list with one loss for each output, or None when the model's output is the
                loss.
            metrics: One or several of `zoo.orca.learn.metrics`; a list of lists has those of each
                output in turn.
            scheduler_creator: `f(optimizer, config)` that makes a learning-rate schedule.
            training_operator_cls: A class derived from `TrainingOperator`, for training of another
                kind. With one, creators may return a list of models, optimizers or schedules.
            initialization_hook: Called in every rank, whenever one begins, before the model is
                made.
            config: Handed to every creator function. Read here: `seed`, of first weights (when
                given), the order of rows and dropout (0), and `shuffle` (True).
            scheduler_step_freq: The schedule advances every `"batch"`, every `"epoch"`, or not at
                all (None).
            use_tqdm: Show a progress bar even when nobody seems to look.
            workers_per_node: Ranks of each executor, which share its cores.
            model_dir: Where snapshots are kept, on any file system that the driver reaches:
                after every epoch unless `fit` is told otherwise.
            backend: `"spark"`: ranks are Spark tasks.
            decoders: For binary columns, a function from bytes to an array, such as
                `zoo.orca.data.image.ImageDecoder`; for columns of numbers, a dtype.
            min_workers: Ranks with which training begins, or goes on after a loss, when no more
                are there.
            max_workers: Most ranks; None for `workers_per_node` on every executor that Spark has
                when a round begins. With dynamic allocation, ask for as many as you want: Spark
                starts executors for them, and ranks join while the fit runs.
            precision: `"bf16"` or `"fp16"`: forward and loss in mixed precision.
            gradient_accumulation: Parts in which each rank goes through its rows of a step: the
                update of a large batch with the memory of a small one.
            recovery: What is put up with when ranks are lost; `Recovery()` by default.
            keep_snapshots: Newest snapshots of a fit to keep in `model_dir`; None keeps all.

        Raises:
            InputError: An argument cannot be used.
            NotYetError: The backend is known and not available yet.
        """
        _require_backend(backend)
        if initialization_hook is not None and not callable(initialization_hook):
            raise InputError(
                "initialization_hook as a function", repr(initialization_hook), "Pass a function."
            )
        recipe = Recipe(
            model=model,
            optimizer=optimizer,
            loss=loss,
            scheduler_creator=scheduler_creator,
            scheduler_step_freq=scheduler_step_freq,
            config=_checked_config(config),
            precision=precision,
            accumulate=gradient_accumulation,
            operator=checked_operator(training_operator_cls, gradient_accumulation),
            initialization_hook=initialization_hook,
            use_tqdm=use_tqdm,
        )
        if scheduler_step_freq not in ("batch", "epoch", None):
            raise InputError(
                "scheduler_step_freq 'batch', 'epoch' or None",
                repr(scheduler_step_freq),
                "Choose one of the three.",
            )
        if precision not in ("bf16", "fp16", None):
            raise InputError("precision 'bf16', 'fp16' or None", repr(precision), "Choose one.")
        _require_count("workers_per_node", workers_per_node)
        _require_count("gradient_accumulation", gradient_accumulation)
        _require_count("min_workers", min_workers)
        if max_workers is not None:
            _require_count("max_workers", max_workers)
            if max_workers < min_workers:
                raise InputError(
                    "max_workers of at least min_workers", f"{max_workers} and {min_workers}",
                    "Swap them.",
                )  # fmt: skip
        return TorchEstimator(
            recipe,
            metrics=metrics,
            crew=Workers(workers_per_node, min_workers, max_workers),
            snapshots=(model_dir, keep_snapshots),
            decoders=decoders,
            show_progress=True if use_tqdm else None,
            recovery=recovery or Recovery(),
        )


def _require_backend(backend: str) -> None:
    if backend == "spark":
        return
    if backend in _LATER:
        raise NotYetError("backend='spark'", repr(backend), "This version trains in Spark tasks.")
    names = ", ".join(["spark", *_LATER])
    raise InputError(f"backend as one of {names}", repr(backend), "Use 'spark'.")


def _checked_info(info: Mapping[str, Any] | None) -> dict[str, Any]:
    if info is not None and not isinstance(info, Mapping):
        raise InputError("info as a dict", type(info).__name__, "Pass info={'name': value}.")
    return dict(info or {})


def _checked_config(config: Mapping[str, Any] | None) -> dict[str, Any]:
    if config is not None and not isinstance(config, Mapping):
        raise InputError("config as a dict", type(config).__name__, "Pass config={'lr': 0.1}.")
    settings = dict(config or {})
    if "batch_size" in settings:
        raise InputError(
            "config without batch_size (Please do not specify batch_size in config)",
            f"batch_size={settings['batch_size']!r}",
            "Pass batch_size to fit, evaluate and predict.",
        )
    return settings


@dataclass(frozen=True)
class Workers:
    """How many ranks an estimator asks for.

    Attributes:
        per_node: On every executor.
        least: Fewer do not train.
        most: More are not used; None for all executors.
    """

    per_node: int
    least: int
    most: int | None


class TorchEstimator(SparkEstimator):
    """Trains a PyTorch model on Spark data, and predicts and evaluates with it.

    Made by `Estimator.from_torch`. Data is a Spark DataFrame, a pandas DataFrame, a
    `pyarrow.Table`, XShards of pandas DataFrames (these four with `feature_cols` and
    `label_cols`), XShards of dicts `{"x": array or list of arrays, "y": the same}`, or a function
    `f(config, batch_size)` that returns a torch DataLoader. `batch_size` is always the number of
    rows of a step over all ranks.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        metrics: Any,
        crew: Workers,
        snapshots: tuple[str | None, int | None],
        decoders: Mapping[str, Decoder] | None,
        show_progress: bool | None,
        recovery: Recovery,
    ) -> None:
        super().__init__()
        self._recipe, self._metrics = recipe, metrics
        running_metrics(metrics)
        self._crew, self._training = crew, Training(recipe, *snapshots)
        self._decoders, self._show_progress = dict(decoders or {}), show_progress
        self._recovery = recovery
        self._plan: TensorPlan | None = None
        self._report: FitReport | None = None

    @property
    def _built(self) -> Built:
        return self._training.built

    @property
    def report(self) -> FitReport | None:
        """Where the time of the last fit went; None before."""
        return self._report

    def explain(self) -> str:
        """Say in words what bounds the last fit, and what to change."""
        if self._report is None:
            raise InputError("a fit to explain", "none so far", "Call fit first.")
        return explain(self._report)

    def fit(  # noqa: PLR0913 - the arguments that existing programs pass
        self,
        data: Any,
        epochs: int = 1,
        batch_size: int = 32,
        profile: bool = False,
        reduce_results: bool = True,
        info: Mapping[str, Any] | None = None,
        feature_cols: Columns | None = None,
        label_cols: Columns | None = None,
        validation_data: Any = None,
        callbacks: Sequence[Callback | Logger] = (),
        checkpoint_trigger: Any = None,
        resume: bool | str = False,
    ) -> list[Any]:
        """Train on; a second call continues where the first ended.

        Ranks that are lost on the way are replaced, and what they held is computed again: the
        result is that of an undisturbed fit. `report` tells what happened.

        Args:
            data: Training data, see the class.
            epochs: Times every row is used.
            batch_size: Rows of a step over all ranks.
            profile: Add a `profile` dict of seconds to every epoch.
            reduce_results: False gives, for every epoch, a list with one dict for each rank.
            info: Handed to the `training_operator_cls`.
            feature_cols: Columns that the model receives. Each is one argument of the model;
                when the model takes one argument, numbers and vectors are put side by side in
                one matrix. A list inside the list does that explicitly.
            label_cols: Columns of the targets.
            validation_data: Of the same kind as data; evaluated after every epoch.
            callbacks: Of `zoo.orca.learn.callbacks`, called in every rank; loggers among them
                (`zoo.orca.learn.loggers`) get the numbers on the driver.
            checkpoint_trigger: When to write a snapshot to `model_dir`: a trigger of
                `zoo.orca.learn.trigger`, `"EveryEpoch"`, or None: after every epoch if there is a
                `model_dir`.
            resume: Go on from the newest whole snapshot in `model_dir`, in whatever process and
                with however many ranks, at the very next step; `epochs` then counts from where
                the interrupted fit began. `"epoch"` goes back to the newest snapshot between two
                epochs. Without a snapshot the fit begins from scratch.

        Returns:
            One dict for each epoch: `epoch`, `batch_count`, `num_samples`, `train_loss`,
            `last_train_loss`, `lr`, with validation data `val_loss` and `val_` with each metric,
            and what callbacks added.

        Raises:
            ContractError: A needed argument is missing, or kinds of data are mixed.
            ColumnError: A column cannot become a tensor.
            Exception: The first error that a rank hit, as its own type, with rank and host.
        """
        _require_count("epochs", epochs)
        _require_count("batch_size", batch_size)
        info = _checked_info(info)
        columns = (feature_cols, label_cols)
        source = self._inputs.source(data, columns, batch_size, "training", use="train")
        checked = None
        if validation_data is not None:
            require_same_kind(data, validation_data)
            checked = self._inputs.source(
                validation_data, columns, batch_size, "validation", use="validate"
            )
        seed = int(self._recipe.config.get("seed", 0))
        trigger = self._training.trigger(checkpoint_trigger)
        start = self._training.start(epochs, resume)
        loggers = [c for c in callbacks if isinstance(c, Logger)]
        if self._tensorboard is not None:
            loggers.append(TensorBoardSummary(*self._tensorboard))
        with FitKeeper(self._training.store(), loggers) as keeper:
            keeper.describe({"batch_size": batch_size, "epochs": epochs, **_shown(self._recipe)})
            order = {
                **self._order(start.state),
                "until": start.until,
                "limits": self._limits,
                "callbacks": tuple(c for c in callbacks if not isinstance(c, Logger)),
                "snapshots": SnapshotOrder(trigger, self._recovery.hold_s),
                "log_steps": keeper.logs,
                "info": info,
            }
            settings = FitSettings(
                batch_size,
                seed if self._recipe.config.get("shuffle", True) else None,
                self._recovery,
                keeper,
                self._show_progress,
            )
            done = train(self._world(), source, checked, order, start, settings)
        self._training.end_fit(done.state)
        self._report, self._plan = done.report, done.plan or self._plan
        if reduce_results:
            return [_epoch_dict(ranks[0], profile) for ranks in done.epochs]
        return [[_epoch_dict(e, profile, own=True) for e in ranks] for ranks in done.epochs]

    def evaluate(
        self,
        data: Any,
        batch_size: int = 32,
        num_steps: int | None = None,
        profile: bool = False,
        info: Mapping[str, Any] | None = None,
        feature_cols: Columns | None = None,
        label_cols: Columns | None = None,
    ) -> dict[str, float]:
        """Loss and metrics over all rows.

        Args:
            data: See the class.
            batch_size: Rows that the model sees at once.
            num_steps: Stop after so many batches.
            profile: Accepted for older programs; evaluation is one pass.
            info: Handed to the `training_operator_cls`.
            feature_cols: As in `fit`.
            label_cols: As in `fit`.

        Returns:
            Each metric by name, `val_loss`, and `num_samples`.
        """
        _require_count("batch_size", batch_size)
        if num_steps is not None:
            _require_count("num_steps", num_steps)
        info = _checked_info(info)
        source = self._inputs.source(data, (feature_cols, label_cols), batch_size, "evaluation")
        metrics = running_metrics(self._metrics)
        if isinstance(source, LoaderSource):
            if num_steps is not None:
                raise InputError(
                    "num_steps with a DataFrame or XShards", "num_steps with a data creator",
                    "Let the creator return a shorter dataset.",
                )  # fmt: skip
            order = {**self._order(self._training.state()), "until": 0, "info": info}
            sums = evaluate_on_ranks(self._world(), source, order)
            scorer = make_scorer(self._built, metrics)
            return {**scorer.result(sums), "num_samples": int(sum(s[0][0] for s in sums))}
        if self._built.operator is not None:
            self._built.operator.info = info
        rows = source.rows if num_steps is None else source.rows.first(num_steps * batch_size)
        return evaluate_rows(rows, self._built, source.plan, metrics, batch_size)

    def predict(
        self,
        data: Any,
        batch_size: int = 32,
        feature_cols: Columns | None = None,
        profile: bool = False,
    ) -> Any:
        """Add a column `prediction`.

        Args:
            data: A Spark DataFrame, XShards, a pandas DataFrame or a `pyarrow.Table`.
            batch_size: Rows that the model sees at once.
            feature_cols: As in `fit`.
            profile: Accepted for older programs.

        Returns:
            The same kind as `data`, with its own columns and `prediction`: a float for one output,
            an ML vector for several, nested arrays for more dimensions, an array of vectors for a
            model with several outputs. A Spark DataFrame is lazy: nothing is computed before Spark
            needs it. XShards of dicts give the same dicts with a key `prediction`, an array or a
            list of arrays; XShards of DataFrames give dicts with `x`, the feature columns, and
            `prediction`.
        """
        _require_count("batch_size", batch_size)
        if callable(data):
            raise InputError(
                "a Spark DataFrame, XShards, a pandas DataFrame or a pyarrow.Table to predict on",
                "a function",
                "Rows of a data creator have no place for a prediction.",
            )
        built, columns = predicting(self._built), (feature_cols, None)
        if isinstance(data, SparkXShards):
            rows, plan = self._inputs.shards(data, columns, need_labels=False)
            return predict_shards(rows, built, plan, batch_size)
        frame = as_frame(data, active_session())
        plan = self._inputs.layout(frame.spark.schema, columns, need_labels=False)
        sample = select_columns(frame.spark, plan.columns).limit(2)
        kind = prediction_type(built, plan, sample.toArrow)
        column = prediction_column(frame.spark, built, plan, kind, batch_size)
        return frame.restore(frame.spark.withColumn("prediction", column))

    def get_model(self) -> Any:
        """The module with its trained weights; a list where an operator trains several."""
        return as_given(self._built.model)

    def save(self, model_path: str) -> str:
        """Save weights, optimizer, schedule and position in one file.

        Args:
            model_path: The file; folders on the way are made. It appears whole or not at all.

        Returns:
            The path.
        """
        self._training.save(model_path)
        return model_path

    def load(self, model_path: str) -> TorchEstimator:
        """Continue from a file of `save`, or from a bare `torch.save(model.state_dict())`.

        A snapshot that was taken inside an epoch makes the next fit go on there.

        Raises:
            InputError: The file cannot be read as such.
        """
        self._training.load(model_path)
        return self

    def load_orca_checkpoint(
        self, path: str, version: int | None = None, prefix: str | None = None
    ) -> None:
        """Continue from a snapshot of an earlier fit.

        Args:
            path: The `model_dir` of that fit, for its newest whole snapshot; the folder of one of
                its runs, or one file.
            version: The number in the name of the snapshot: its iteration. `path` must then be
                the folder of the run.
            prefix: Needed with `version` by old programs; otherwise without meaning here.

        Raises:
            ContractError: `version` without `prefix`.
            InputError: There is no whole snapshot.
        """
        self._training.take(read_checkpoint(path, version, prefix))

    def shutdown(self, force: bool = False) -> None:
        """Nothing to do: no workers outlive a call. Kept for programs that call it."""

    def _world(self) -> World:
        crew = self._crew
        return World(launcher_for("spark"), crew.per_node, crew.least, crew.most)

    def _order(self, state: bytes) -> dict[str, Any]:
        return {
            "recipe": pickled(self._recipe, "a model, optimizer, loss and scheduler"),
            "state": state,
            "metrics": running_metrics(self._metrics),
            "threads": self._world().threads,
            "seed": int(self._recipe.config.get("seed", 0)),
        }

    @property
    def _inputs(self) -> Inputs:
        compares = self._recipe.loss is not None or bool(self._metrics)
        model = members(self._built.model)[0]
        return Inputs(model, self._recipe.config, self._decoders, compares, self._plan)


def _require_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ContractError(f"{name} as a whole number of 1 or more", repr(value), "Correct it.")


def _shown(recipe: Recipe) -> dict[str, Any]:
    """What loggers write down of a recipe."""
    plain = {k: v for k, v in recipe.config.items() if isinstance(v, str | int | float | bool)}
    return {"precision": recipe.precision, "gradient_accumulation": recipe.accumulate, **plain}


def _epoch_dict(epoch: EpochStats, profile: bool, *, own: bool = False) -> dict[str, Any]:
    result: dict[str, Any] = {
        "epoch": epoch.epoch,
        "batch_count": epoch.steps,
        "num_samples": epoch.own_rows if own else epoch.rows,
        "train_loss": epoch.own_loss if own else epoch.loss,
        "last_train_loss": epoch.last_loss,
        **epoch.extra,
    }
    for name, value in epoch.validation.items():
        result[name if name.startswith("val_") else f"val_{name}"] = value
    if profile:
        steps = max(1, epoch.steps)
        times = asdict(epoch)
        result["profile"] = {"mean_train_epoch_s": epoch.seconds} | {
            f"mean_{part}_s": times[f"{part}_s"] / steps for part in ("data", "compute", "sync")
        }
    return result
