"""The estimator for PyTorch models: train, evaluate and predict on Spark data."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo.cluster.launch import launcher_for, pickled
from zoo.cluster.session import active_session
from zoo.errors import ContractError, InputError, NotYetError
from zoo.orca.data.frame import as_frame, select_columns
from zoo.orca.data.plan import Columns, Decoder, TensorPlan
from zoo.orca.data.xshards.spark_xshards import SparkXShards
from zoo.orca.learn.loop import EpochStats
from zoo.orca.learn.metrics import Metric
from zoo.orca.learn.pytorch.batches import LoaderSource
from zoo.orca.learn.pytorch.fitting import World, evaluate_on_ranks, train
from zoo.orca.learn.pytorch.inputs import Inputs, require_same_kind
from zoo.orca.learn.pytorch.learner import Scorer
from zoo.orca.learn.pytorch.recipe import (
    Built,
    Recipe,
    build,
    load_state,
    save_state,
)
from zoo.orca.learn.pytorch.scoring import (
    evaluate_rows,
    predict_shards,
    prediction_column,
    prediction_type,
)
from zoo.orca.learn.report import FitReport

__all__ = ["Estimator", "TorchEstimator"]

_log = logging.getLogger(__name__)
_LATER = ("bigdl", "horovod", "ray", "torch_distributed")


class Estimator:
    """Makes estimators for PyTorch models."""

    @staticmethod
    def from_torch(  # noqa: PLR0913 - the arguments that existing programs pass
        *,
        model: nn.Module | Callable[[dict[str, Any]], nn.Module],
        optimizer: Any = None,
        loss: Any = None,
        metrics: Any = None,
        scheduler_creator: Callable[..., Any] | None = None,
        training_operator_cls: type | None = None,
        initialization_hook: Callable[[], None] | None = None,
        config: Mapping[str, Any] | None = None,
        scheduler_step_freq: str | None = "batch",
        use_tqdm: bool = False,
        workers_per_node: int = 1,
        model_dir: str | None = None,
        backend: str = "spark",
        decoders: Mapping[str, Decoder] | None = None,
    ) -> TorchEstimator:
        """Make an estimator; nothing runs yet.

        Args:
            model: A module, or a function `f(config)` that makes one.
            optimizer: A torch optimizer over the module's parameters, a function
                `f(model, config)` that makes one, or None for plain SGD.
            loss: A torch loss, any function `(output, target)`, a function `f(config)` that makes
                one, or None when the model's output is the loss.
            metrics: One or several of `zoo.orca.learn.metrics`.
            scheduler_creator: `f(optimizer, config)` that makes a learning-rate schedule.
            training_operator_cls: Not available yet.
            initialization_hook: Not available yet.
            config: Handed to every creator function. Read here: `seed`, of first weights (when
                given), the order of rows and dropout (0), and `shuffle` (True).
            scheduler_step_freq: The schedule advances every `"batch"`, every `"epoch"`, or not at
                all (None).
            use_tqdm: Show a progress bar even when nobody seems to look.
            workers_per_node: Ranks of each executor, which share its cores.
            model_dir: Where the state is saved after every fit.
            backend: `"spark"`: ranks are Spark tasks.
            decoders: For binary columns, a function from bytes to an array, such as
                `zoo.orca.data.image.ImageDecoder`; for columns of numbers, a dtype.

        Raises:
            InputError: An argument cannot be used.
            NotYetError: The backend is known and not available yet.
        """
        _require_backend(backend)
        for name, value in (
            ("training_operator_cls", training_operator_cls),
            ("initialization_hook", initialization_hook),
        ):
            if value is not None:
                raise NotYetError(
                    f"{name}=None", repr(value), "It comes with the next releases; leave it out."
                )
        recipe = Recipe(
            model=model,
            optimizer=optimizer,
            loss=loss,
            scheduler_creator=scheduler_creator,
            scheduler_step_freq=scheduler_step_freq,
            config=_checked_config(config),
        )
        if scheduler_step_freq not in ("batch", "epoch", None):
            raise InputError(
                "scheduler_step_freq 'batch', 'epoch' or None",
                repr(scheduler_step_freq),
                "Choose one of the three.",
            )
        _require_count("workers_per_node", workers_per_node)
        return TorchEstimator(
            recipe,
            metrics=metrics,
            workers_per_node=workers_per_node,
            model_dir=model_dir,
            decoders=decoders,
            show_progress=True if use_tqdm else None,
        )


def _require_backend(backend: str) -> None:
    if backend == "spark":
        return
    if backend in _LATER:
        raise NotYetError("backend='spark'", repr(backend), "This version trains in Spark tasks.")
    names = ", ".join(["spark", *_LATER])
    raise InputError(f"backend as one of {names}", repr(backend), "Use 'spark'.")


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


class TorchEstimator:
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
        workers_per_node: int,
        model_dir: str | None,
        decoders: Mapping[str, Decoder] | None,
        show_progress: bool | None,
    ) -> None:
        self._recipe, self._metrics = recipe, metrics
        Metric.convert_metrics_dict(metrics, "pytorch")
        self._workers_per_node, self._model_dir = workers_per_node, model_dir
        self._decoders, self._show_progress = dict(decoders or {}), show_progress
        self._built_once: Built | None = None
        self._epochs = self._iterations = 0
        self._plan: TensorPlan | None = None
        self._report: FitReport | None = None

    @property
    def _built(self) -> Built:
        """Model, optimizer and schedule on the driver, made at first use."""
        if self._built_once is None:
            seed = self._recipe.config.get("seed")
            with torch.random.fork_rng(devices=[], enabled=seed is not None):
                if seed is not None:
                    torch.manual_seed(int(seed))
                self._built_once = build(self._recipe)
        return self._built_once

    @property
    def report(self) -> FitReport | None:
        """Where the time of the last fit went; None before."""
        return self._report

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
    ) -> list[Any]:
        """Train on; a second call continues where the first ended.

        Args:
            data: Training data, see the class.
            epochs: Times every row is used.
            batch_size: Rows of a step over all ranks.
            profile: Add a `profile` dict of seconds to every epoch.
            reduce_results: False gives, for every epoch, a list with one dict for each rank.
            info: Not available yet.
            feature_cols: Columns that the model receives. Each is one argument of the model;
                when the model takes one argument, numbers and vectors are put side by side in
                one matrix. A list inside the list does that explicitly.
            label_cols: Columns of the targets.
            validation_data: Of the same kind as data; evaluated after every epoch.

        Returns:
            One dict for each epoch: `epoch`, `batch_count`, `num_samples`, `train_loss`,
            `last_train_loss`, and with validation data `val_loss` and `val_` with each metric.

        Raises:
            ContractError: A needed argument is missing, or kinds of data are mixed.
            ColumnError: A column cannot become a tensor.
            Exception: The first error that a rank hit, as its own type, with rank and host.
        """
        _require_count("epochs", epochs)
        _require_count("batch_size", batch_size)
        if info is not None:
            raise NotYetError("info=None", repr(info), "It comes with custom operators.")
        columns = (feature_cols, label_cols)
        source = self._inputs.source(data, columns, batch_size, "training", use="train")
        checked = None
        if validation_data is not None:
            require_same_kind(data, validation_data)
            checked = self._inputs.source(
                validation_data, columns, batch_size, "validation", use="validate"
            )
        seed = int(self._recipe.config.get("seed", 0))
        order = self._order(range(self._epochs, self._epochs + epochs))
        done = train(
            self._world(),
            source,
            checked,
            order,
            batch_size=batch_size,
            order_seed=seed if self._recipe.config.get("shuffle", True) else None,
            show_progress=self._show_progress,
        )
        self._epochs, self._iterations = load_state(self._built, done.state)
        self._report, self._plan = done.report, done.plan or self._plan
        if self._model_dir is not None:
            self.save(os.path.join(self._model_dir, f"model.{self._iterations}"))
        if reduce_results:
            return [_epoch_dict(e, profile) for e in done.epochs[0]]
        by_epoch = zip(*done.epochs, strict=True)
        return [[_epoch_dict(e, profile, own=True) for e in ranks] for ranks in by_epoch]

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
            info: Not available yet.
            feature_cols: As in `fit`.
            label_cols: As in `fit`.

        Returns:
            Each metric by name, `val_loss`, and `num_samples`.
        """
        _require_count("batch_size", batch_size)
        if num_steps is not None:
            _require_count("num_steps", num_steps)
        if info is not None:
            raise NotYetError("info=None", repr(info), "It comes with custom operators.")
        source = self._inputs.source(data, (feature_cols, label_cols), batch_size, "evaluation")
        metrics = Metric.convert_metrics_dict(self._metrics, "pytorch")
        if isinstance(source, LoaderSource):
            if num_steps is not None:
                raise InputError(
                    "num_steps with a DataFrame or XShards", "num_steps with a data creator",
                    "Let the creator return a shorter dataset.",
                )  # fmt: skip
            sums = evaluate_on_ranks(self._world(), source, self._order(range(0)))
            scorer = Scorer(self._built, metrics)
            return {**scorer.result(sums), "num_samples": int(sum(s[0][0] for s in sums))}
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
        built, columns = self._built, (feature_cols, None)
        if isinstance(data, SparkXShards):
            rows, plan = self._inputs.shards(data, columns, need_labels=False)
            return predict_shards(rows, built, plan, batch_size)
        frame = as_frame(data, active_session())
        plan = self._inputs.layout(frame.spark.schema, columns, need_labels=False)
        sample = select_columns(frame.spark, plan.columns).limit(2)
        kind = prediction_type(built, plan, sample.toArrow)
        column = prediction_column(frame.spark, built, plan, kind, batch_size)
        return frame.restore(frame.spark.withColumn("prediction", column))

    def get_model(self) -> nn.Module:
        """The module with its trained weights."""
        return self._built.model

    def save(self, model_path: str) -> str:
        """Save weights, optimizer, schedule and position in one file.

        Args:
            model_path: The file; folders on the way are made. It appears whole or not at all.

        Returns:
            The path.
        """
        path = Path(model_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        state = save_state(self._built, epoch=self._epochs, iteration=self._iterations)
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
        try:
            part.write_bytes(state)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return model_path

    def load(self, model_path: str) -> TorchEstimator:
        """Continue from a file of `save`, or from a bare `torch.save(model.state_dict())`.

        Raises:
            InputError: The file cannot be read as such.
        """
        try:
            blob = Path(model_path).read_bytes()
        except OSError as exc:
            raise InputError(
                "a file written by save()",
                str(exc),
                "Cannot load the PyTorch model: check the path.",
            ) from exc
        self._epochs, self._iterations = load_state(self._built, blob)
        return self

    def shutdown(self, force: bool = False) -> None:
        """Nothing to do: no workers outlive a call. Kept for programs that call it."""

    def _world(self) -> World:
        return World(launcher_for("spark"), self._workers_per_node)

    def _order(self, epochs: range) -> dict[str, Any]:
        built = self._built
        return {
            "recipe": pickled(self._recipe, "a model, optimizer, loss and scheduler"),
            "state": save_state(built, epoch=self._epochs, iteration=self._iterations),
            "metrics": Metric.convert_metrics_dict(self._metrics, "pytorch"),
            "epochs": epochs,
            "threads": self._world().threads,
            "seed": int(self._recipe.config.get("seed", 0)),
        }

    @property
    def _inputs(self) -> Inputs:
        compares = self._recipe.loss is not None or bool(self._metrics)
        return Inputs(self._built.model, self._recipe.config, self._decoders, compares, self._plan)


def _require_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ContractError(f"{name} as a whole number of 1 or more", repr(value), "Correct it.")


def _epoch_dict(epoch: EpochStats, profile: bool, *, own: bool = False) -> dict[str, Any]:
    result: dict[str, Any] = {
        "epoch": epoch.epoch,
        "batch_count": epoch.steps,
        "num_samples": epoch.own_rows if own else epoch.rows,
        "train_loss": epoch.own_loss if own else epoch.loss,
        "last_train_loss": epoch.last_loss,
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
