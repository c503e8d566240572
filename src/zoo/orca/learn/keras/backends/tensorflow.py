"""Keras on TensorFlow: graphs for any number of rows, traced once for each kind of batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from keras import tree

from zoo.orca.learn.keras.backends import Found, StepMetrics
from zoo.orca.learn.keras.built import Built
from zoo.orca.learn.keras.gradients import clipped
from zoo.orca.learn.keras.outputs import outputs_of_model
from zoo.orca.learn.rank.array_batches import Arrays, Batch
from zoo.orca.learn.score.predict import Outputs
from zoo.orca.learn.steps import GradientLimits

__all__ = ["Steps", "start"]

_log = logging.getLogger(__name__)


def start(threads: int) -> None:
    """Choose the threads of this process, before TensorFlow begins to work in it.

    A process that lives on, as Spark's Python workers do, keeps the number of its first work.
    """
    setting = tf.config.threading
    try:
        setting.set_intra_op_parallelism_threads(threads)
        setting.set_inter_op_parallelism_threads(threads)
    except RuntimeError:
        have = setting.get_intra_op_parallelism_threads()
        if have and have != threads:
            _log.info("TensorFlow has %d threads in this process since its first work", have)


class Steps:
    """See `Backend`."""

    def __init__(
        self,
        built: Built,
        metrics: StepMetrics | None = None,
        limits: GradientLimits | None = None,
    ) -> None:
        self._built, self._metrics, self._limits = built, metrics, limits
        self._model, self._seeds = built.model, [v.value for v in built.seeds()]
        self._graphs: dict[Any, Callable[..., Any]] = {}
        eager = built.model.run_eagerly
        # Shapes of weights do not change, but those of sparse gradients do.
        self._apply = self._applied if eager else self._compiled(self._applied)

    def backward(self, batch: Batch, seeds: np.ndarray) -> Found:
        """See `Backend`."""
        values = [_tensor(seeds), *self._tensors(batch)]
        loss, weights, gradients = self._graph(self._gradients, batch, values)(*values)
        return Found(float(loss), _numbers(weights), gradients)

    def update(self, gradients: Sequence[Any]) -> None:
        """See `Backend`."""
        self._apply(
            [tf.convert_to_tensor(g) if isinstance(g, np.ndarray) else g for g in gradients]
        )

    def score(self, batch: Batch) -> Found:
        """See `Backend`."""
        values = self._tensors(batch)
        loss, weights = self._graph(self._scored, batch, values)(*values)
        return Found(float(loss), _numbers(weights))

    def forward(self, features: Arrays) -> Outputs:
        """See `Backend`."""
        batch = Batch(features, (), 0)
        values = self._tensors(batch)
        return outputs_of_model(self._graph(self._outputs, batch, values)(*values))

    def numbers(self, gradient: Any) -> np.ndarray:
        """See `Backend`."""
        array: np.ndarray = tf.convert_to_tensor(gradient).numpy()
        return array

    def _tensors(self, batch: Batch) -> list[Any]:
        parts = [*tree.flatten((batch.features, batch.targets))]
        if batch.weights is not None:
            parts.append(batch.weights)
        return [_tensor(part) for part in parts]

    def _graph(
        self, call: Callable[..., Any], batch: Batch, values: Sequence[Any]
    ) -> Callable[..., Any]:
        """A function of a batch and its tensors, compiled for batches of this kind."""
        weighed = batch.weights is not None
        key = (call.__name__, weighed, *((v.dtype, v.shape[1:]) for v in values))
        if key not in self._graphs:
            struct = tree.map_structure(lambda _: 0, (batch.features, batch.targets))
            before = len(values) - len(tree.flatten(struct)) - weighed

            def called(*given: Any) -> Any:
                own, rest = given[:before], given[before:]
                features, targets = tree.pack_sequence_as(struct, rest[: len(rest) - weighed])
                return call(*own, features, targets, rest[-1] if weighed else None)

            specs = [tf.TensorSpec([None, *v.shape[1:]], v.dtype) for v in values]
            if not self._model.run_eagerly:
                called = self._compiled(called).get_concrete_function(*specs)
            self._graphs[key] = called
        return self._graphs[key]

    def _compiled(self, call: Callable[..., Any]) -> Any:
        jit = bool(self._model.compiled and self._model.jit_compile) or None
        return tf.function(call, reduce_retracing=True, autograph=False, jit_compile=jit)

    def _gradients(self, seeds: Any, features: Any, targets: Any, weights: Any) -> Any:
        for k, state in enumerate(self._seeds):
            state.assign(tf.cast(seeds[k], state.dtype))
        with tf.GradientTape() as tape:
            loss, found, y, y_pred = self._loss(features, targets, weights, training=True)
            optimizer = self._built.optimizer
            scaled = loss if optimizer is None else optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, self._model.trainable_weights)
        self._measure(y, y_pred, weights)
        return loss, found, [_summed(gradient) for gradient in gradients]

    def _scored(self, features: Any, targets: Any, weights: Any) -> Any:
        loss, found, y, y_pred = self._loss(features, targets, weights, training=False)
        self._measure(y, y_pred, weights)
        return loss, found

    def _loss(self, features: Any, targets: Any, weights: Any, *, training: bool) -> Any:
        built = self._built
        x = built.arguments(features)
        y_pred = built.called(x, training=training)
        y = built.wanted(targets, y_pred)
        return *built.compute(x, y, y_pred, weights, training=training), y, y_pred

    def _measure(self, y: Any, y_pred: Any, weights: Any) -> None:
        if self._metrics is not None:
            self._metrics.update(y, y_pred, weights)

    def _outputs(self, features: Any, targets: Any, weights: Any) -> Any:
        return self._built.predicted(self._built.arguments(features))

    def _applied(self, gradients: Sequence[Any]) -> None:
        optimizer = self._built.optimizer
        if self._limits is not None:
            dense = [None if g is None else tf.convert_to_tensor(g) for g in gradients]
            gradients = clipped(dense, self._limits, optimizer.scale_loss(1.0))
        optimizer.apply(list(gradients), self._model.trainable_weights)


def _summed(gradient: Any) -> Any:
    """With one slice for each row of an embedding: optimizers square slices, and not their sum."""
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    rows, where = tf.unique(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, where, tf.size(rows))
    return tf.IndexedSlices(values, rows, gradient.dense_shape)


def _tensor(array: np.ndarray) -> Any:
    return tf.convert_to_tensor(array)


def _numbers(weights: Sequence[Any]) -> list[float | None]:
    return [None if weight is None else float(weight) for weight in weights]
