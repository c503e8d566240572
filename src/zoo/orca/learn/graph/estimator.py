"""The estimator for graphs of TensorFlow 1: train, evaluate and predict on Spark data."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from numbers import Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import tensorflow as tf
from pyspark.sql import DataFrame

from zoo.errors import ContractError, InputError
from zoo.orca.data.tensors.plan import Columns, Decoder
from zoo.orca.data.tf.data import Dataset
from zoo.orca.data.xshards.spark_xshards import XShards
from zoo.orca.learn.estimator import SparkEstimator
from zoo.orca.learn.given_estimator import (
    checked_crew,
    checked_recovery,
    checked_snapshots,
)
from zoo.orca.learn.graph.checkpoints import read_checkpoint, write_checkpoint
from zoo.orca.learn.graph.given_dataset import arrays_of
from zoo.orca.learn.graph.measures import tensor_metrics
from zoo.orca.learn.graph.parts import checked_parts
from zoo.orca.learn.graph.recipe import Recipe
from zoo.orca.learn.graph.training_graph import make_recipe
from zoo.orca.learn.graph.user_session import first_values, give_back
from zoo.orca.learn.recovery import KEPT, Recovery
from zoo.orca.learn.steps import GradientLimits

if TYPE_CHECKING:
    from pyspark.ml import Pipeline, PipelineModel

__all__ = ["GraphEstimator", "from_graph"]

_log = logging.getLogger(__name__)

_BATCH_SIZE = 32
# Of a dataset; the driver has all of it in memory.
_SHARDS = 16
_BACKENDS = ("bigdl", "spark")


def from_graph(  # noqa: PLR0913 - the arguments that existing programs pass
    *,
    inputs: Any,
    outputs: Any = None,
    labels: Any = None,
    loss: Any = None,
    optimizer: Any = None,
    metrics: Any = None,
    clip_norm: float | None = None,
    clip_value: float | tuple[float, float] | None = None,
    updates: Any = None,
    sess: Any = None,
    model_dir: str | None = None,
    backend: str = "bigdl",
    config: Mapping[str, Any] | None = None,
    workers_per_node: int = 1,
    min_workers: int = 1,
    max_workers: int | None = None,
    recovery: Recovery | None = None,
    keep_snapshots: int | None = KEPT,
    decoders: Mapping[str, Decoder] | None = None,
    preprocess: Pipeline | PipelineModel | None = None,
) -> GraphEstimator:
    """Make an estimator of a graph that was built with `tf.compat.v1`; nothing is trained yet.

    The graph grows, as by `optimizer.minimize(loss)`.

    Args:
        inputs: The placeholder that features go to, or a list of them. Their first dimension is
            None: the rows.
        outputs: What predictions are, or a list.
        labels: The placeholder that targets go to, or a list.
        loss: A number for a batch, the mean over its rows or their sum; or a tensor with the loss
            of each row, of which the mean is taken, and whose rows can have weights.
        optimizer: Of `tf.compat.v1.train`, or of `zoo.orca.learn.optimizers`.
        metrics: A dict by name of tensors, one number for each row or the mean of a batch; or
            metrics of `zoo.orca.learn.metrics`, which compare the first output with the first
            labels.
        clip_norm: Longest L2 norm of the mean gradients of a step, all together.
        clip_value: Largest absolute value of each element of these, or (smallest, largest).
        updates: Operations that run with every step, such as those of moving averages. What they
            write is averaged over the ranks, by rows.
        sess: A session with the weights to begin with. It gets the trained ones. Without, weights
            are those that the variables begin with.
        model_dir: Where snapshots are kept: after every epoch unless `fit` is told otherwise.
        backend: `"bigdl"` or `"spark"`: ranks are Spark tasks.
        config: Read here: `seed`, of first weights (when given), the order of rows and random
            operations (0), and `shuffle` (True).
        workers_per_node: Ranks of each executor, which share its cores.
        min_workers: Ranks with which training begins, or goes on after a loss.
        max_workers: Most ranks; None for `workers_per_node` on every executor.
        recovery: What is put up with when ranks are lost; `Recovery()` by default.
        keep_snapshots: Newest snapshots of a fit to keep in `model_dir`; None keeps all.
        decoders: For binary columns, a function from bytes to an array; for columns of numbers, a
            dtype.
        preprocess: Stages of `pyspark.ml.feature` that every DataFrame goes through first.

    Raises:
        InputError: An argument cannot be used; tensors are of several graphs.
    """
    if backend not in _BACKENDS:
        raise InputError(f"backend as one of {', '.join(_BACKENDS)}", repr(backend), "Use 'spark'.")
    limits = _limits(clip_norm, clip_value)
    crew = checked_crew(min_workers, max_workers, workers_per_node)
    kept, losses = checked_snapshots(model_dir, keep_snapshots), checked_recovery(recovery)
    tensors, own = tensor_metrics(metrics)
    parts = checked_parts(
        inputs=inputs, outputs=outputs, labels=labels, loss=loss, metrics=tensors, updates=updates,
        optimizer=optimizer, graph=None if sess is None else sess.graph,
    )  # fmt: skip
    recipe = make_recipe(parts, dict(config or {}))
    values = first_values(recipe, parts.graph, sess)
    made = GraphEstimator(
        "graph",
        replace(recipe, values=values, makes_weights=sess is None),
        metrics={**recipe.metrics, **own} or None,
        crew=crew,
        snapshots=kept,
        decoders=decoders,
        recovery=losses,
        preprocess=preprocess,
    )
    made._graph, made._sess, made._limits = parts.graph, sess, limits
    # Ranks get their values with the state.
    made._recipe = replace(made._built.recipe, values={})
    made._built.give(made._recipe)
    return made


def _limits(norm: float | None, value: Any) -> GradientLimits | None:
    if norm is not None and not (isinstance(norm, Real) and norm > 0):
        raise InputError("clip_norm above 0", repr(norm), "Use 1.0, for example.")
    low = high = None
    if isinstance(value, list | tuple) and len(value) == 2:
        low, high = map(float, value)
    elif isinstance(value, Real):
        low, high = -float(value), float(value)
    elif value is not None:
        raise InputError(
            "clip_value as a positive number, or (low, high)", repr(value), "Use 1.0, for example."
        )
    if low is not None and high is not None and not low < high:
        raise InputError(
            "clip_value as a positive number, or (low, high)", repr(value), "Use 1.0, for example."
        )
    if norm is None and low is None:
        return None
    return GradientLimits(low, high, None if norm is None else float(norm))


class GraphEstimator(SparkEstimator):
    """Trains a graph of TensorFlow 1 on Spark data, and predicts and evaluates with it.

    Made by `from_graph`. Each entry of `feature_cols` goes to one of `inputs`; with one input,
    numbers are put side by side in one matrix. Ranks get the graph itself and never run Python code
    of the program.
    """

    _graph: Any
    _sess: Any

    def fit(  # type: ignore[override]  # noqa: PLR0913 - in the order of existing programs
        self,
        data: Any,
        epochs: int = 1,
        batch_size: int | None = _BATCH_SIZE,
        feature_cols: Columns | None = None,
        label_cols: Columns | None = None,
        validation_data: Any = None,
        session_config: Any = None,
        checkpoint_trigger: Any = None,
        feed_dict: Mapping[Any, tuple[Any, Any]] | None = None,
        auto_shard_files: bool = False,
        **more: Any,
    ) -> list[Any]:
        """Train on; a second call continues where the first ended.

        Args:
            data: See `SparkEstimator`; a function `f(config, batch_size)` that returns a
                `tf.data.Dataset` of pairs (features, targets); or such a dataset, whose rows the
                driver reads into memory.
            epochs: Times every row is used.
            batch_size: Rows of a step over all ranks.
            feature_cols: Columns for `inputs`, in their order.
            label_cols: Columns for `labels`, in their order.
            validation_data: Of the same kind as data; evaluated after every epoch.
            session_config: A `tf.compat.v1.ConfigProto` for the sessions of the ranks; numbers of
                threads in it are replaced.
            checkpoint_trigger: When to write a snapshot to `model_dir`.
            feed_dict: For other placeholders, such as the rate of dropout, a pair: the value in
                training, and the one everywhere else. Later calls use it, too.
            auto_shard_files: Accepted for older programs; rows are shared exactly.
            more: See `SparkEstimator.fit`: `callbacks`, `resume`, `validation_split`,
                `sample_weight_col`, `class_weight`, `profile`, `reduce_results`, `info`.

        Returns:
            One dict for each epoch, as `SparkEstimator.fit`.

        Raises:
            ContractError: The estimator has no labels, loss or optimizer, or columns are missing.
            InputError: Something needs a placeholder that gets no value.
        """
        for what, given in (
            ("labels", self._recipe_now.labels), ("loss", self._recipe_now.loss),
            ("optimizer", self._recipe_now.step),
        ):  # fmt: skip
            if not given:
                raise _missing(what, "training")
        self._require_columns(data, feature_cols, label_cols, "training")
        data, validation_data = self._rows_of(data), self._rows_of(validation_data)
        recipe = self._recipe_now
        if feed_dict is not None:
            recipe = replace(recipe, feeds=self._feeds(feed_dict))
        if session_config is not None:
            recipe = replace(recipe, session_config=session_config.SerializeToString())
        self._recipe = recipe
        self._built.give(recipe)
        self._built.program.fixed(["training", "loss", "optimizer"], training=True)
        try:
            return super().fit(
                data, epochs, batch_size, feature_cols=feature_cols, label_cols=label_cols,
                validation_data=validation_data, checkpoint_trigger=checkpoint_trigger, **more,
            )  # fmt: skip
        finally:
            self._give_back()

    def evaluate(  # type: ignore[override]
        self,
        data: Any,
        batch_size: int | None = _BATCH_SIZE,
        feature_cols: Columns | None = None,
        label_cols: Columns | None = None,
        auto_shard_files: bool = False,
        **more: Any,
    ) -> dict[str, Any]:
        """Loss and metrics over all rows.

        Args:
            data: See `SparkEstimator`.
            batch_size: Rows that the graph sees at once.
            feature_cols: As in `fit`; those of the last fit when None.
            label_cols: The same.
            auto_shard_files: Accepted for older programs.
            more: See `SparkEstimator.evaluate`.

        Returns:
            Each metric by name, `loss`, which is `val_loss` as well, and `num_samples`.

        Raises:
            ContractError: The estimator has no metrics, or columns are missing.
        """
        if not self._metrics:
            raise _missing("metrics", "evaluation")
        self._require_columns(data, feature_cols, label_cols, "evaluation")
        found = super().evaluate(
            self._rows_of(data),
            batch_size,
            feature_cols=feature_cols,
            label_cols=label_cols,
            **more,
        )
        return {**found, "loss": found["val_loss"]} if "val_loss" in found else found

    def predict(  # type: ignore[override]
        self,
        data: Any,
        batch_size: int = _BATCH_SIZE,
        feature_cols: Columns | None = None,
        auto_shard_files: bool = False,
        **more: Any,
    ) -> Any:
        """Add a column `prediction`: of several outputs an array of vectors.

        Args:
            data: See `SparkEstimator.predict`.
            batch_size: Rows that the graph sees at once.
            feature_cols: As in `fit`; those of the last fit when None.
            auto_shard_files: Accepted for older programs.
            more: See `SparkEstimator.predict`: `on_null`, `on_error`.

        Raises:
            ContractError: The estimator has no outputs, or columns are missing.
        """
        if not self._recipe_now.outputs:
            raise _missing("outputs", "prediction")
        if isinstance(data, tf.data.Dataset):
            raise ContractError(
                "a DataFrame, XShards or a pandas DataFrame to predict", "a tf.data.Dataset",
                "Bring its rows into XShards: XShards.partition({'x': array}).",
            )  # fmt: skip
        self._require_columns(data, feature_cols, None, "prediction")
        return super().predict(data, batch_size, feature_cols=feature_cols, **more)

    def save_tf_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint that TensorFlow itself reads, the optimizer's variables included.

        Args:
            path: In front of `.index`, `.data-...` and `.meta`; folders on the way are made.
        """
        values = self._built.program.values()
        write_checkpoint(os.fspath(path), self._recipe_now, self._graph, self._sess, values)

    def load_tf_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Continue from weights that a `Saver` of TensorFlow wrote.

        What the optimizer remembers is taken where it is there. Epochs are counted from 0.

        Args:
            path: As given to `Saver.save`, or the folder of checkpoints, for the newest.

        Raises:
            InputError: There is none, or it is of another graph.
        """
        self._built.program.load(read_checkpoint(os.fspath(path), self._recipe_now))
        self._training.fresh = False
        self._give_back()

    def load(self, model_path: str) -> Self:
        """Continue from a file of `save`; a session that was given gets the weights.

        Raises:
            InputError: The file cannot be read as such, or is of another graph.
        """
        super().load(model_path)
        self._give_back()
        return self

    def load_orca_checkpoint(
        self, path: str, version: int | None = None, prefix: str | None = None
    ) -> None:
        """Continue from a snapshot of an earlier fit; a session that was given gets the weights.

        Args:
            path: See `SparkEstimator`.
            version: The iteration of the snapshot.
            prefix: Needed with `version` by old programs.
        """
        super().load_orca_checkpoint(path, version, prefix)
        self._give_back()

    @property
    def _recipe_now(self) -> Recipe:
        recipe: Recipe = self._built.recipe
        return recipe

    def _give_back(self) -> None:
        if self._sess is not None:
            give_back(self._recipe_now, self._sess, self._built.program.values())

    def _rows_of(self, data: Any) -> Any:
        """A dataset that was made on the driver becomes shards."""
        if isinstance(data, Dataset):
            return data.to_shards()
        if not isinstance(data, tf.data.Dataset):
            return data
        arrays = arrays_of(data, self._recipe_now)
        rows = len(arrays["x"][0])
        return XShards.partition(arrays, min(rows, _SHARDS))

    def _feeds(self, given: Mapping[Any, Any]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        found = {}
        for tensor, pair in given.items():
            if not (isinstance(tensor, tf.Tensor) and tf.is_symbolic_tensor(tensor)):
                raise InputError("placeholders in feed_dict", repr(tensor), "Use them as keys.")
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise InputError(
                    f"a pair for {tensor.name!r} in feed_dict", repr(pair),
                    "Pass (value in training, value otherwise).",
                )  # fmt: skip
            if tensor.graph is not self._graph:
                raise InputError(
                    "placeholders of the estimator's graph in feed_dict", repr(tensor.name),
                    "Use those that the graph was made with.",
                )  # fmt: skip
            first, second = (np.asarray(v, tensor.dtype.as_numpy_dtype) for v in pair)
            found[tensor.name] = (first, second)
        return found

    def _require_columns(
        self, data: Any, features: Columns | None, labels: Columns | None, use: str
    ) -> None:
        if not isinstance(data, DataFrame | pd.DataFrame):
            return
        known = self._columns
        if features is None and known[0] is None:
            raise _missing("feature columns", use)
        if use != "prediction" and labels is None and known[1] is None:
            raise _missing("label columns", use)


def _missing(what: str, use: str) -> ContractError:
    columns = {"feature columns": "feature_cols", "label columns": "label_cols"}
    where = f"{columns[what]} to this call" if what in columns else f"{what} to from_graph"
    return ContractError(
        f"{what} for {use}", "None",
        f"{what} is None; it should not be None in {use}: pass {where}.",
    )  # fmt: skip
