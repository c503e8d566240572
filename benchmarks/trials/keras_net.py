"""The model of the trials in Keras: that of `torch_net`, with an optimizer that counts rows."""

from __future__ import annotations

from typing import Any

import keras

from trials.work import BATCH, SEED, Weights, Work
from zoo.orca.learn.tf2 import Estimator

__all__ = ["estimator", "weights"]

_WIDTH = 16
"""The largest first dimension of the weights that are not those of the rows."""


def estimator(work: Work, **options: Any) -> Any:
    """What trains it."""
    rows, steps, kind = work.rows, work.steps, work.optimizer
    return Estimator.from_keras(
        model_creator=lambda config: _made(rows, steps, kind), config={"seed": SEED}, **options
    )


def weights(estimator: Any) -> Weights:
    """Of the model, by name."""
    found = {w.path: w.numpy() for w in estimator.get_model().trainable_weights}
    return {("uses" if "uses" in path else path): value for path, value in found.items()}


def _made(rows: int, steps: int, kind: str) -> keras.Model:
    keras.utils.set_random_seed(11)
    x, row = keras.Input((3,), dtype="float64"), keras.Input((), dtype="int64")
    hidden = keras.layers.Dense(_WIDTH, "tanh", dtype="float64", name="hidden")(x)
    output = keras.layers.Dense(1, dtype="float64", name="output")(hidden)
    uses = keras.layers.Embedding(
        rows, 1, embeddings_initializer="zeros", dtype="float64", name="uses"
    )(row)
    both = keras.layers.Concatenate(dtype="float64")([output, uses])
    model = keras.Model([x, row], both)
    loss = BothLosses(reduction="sum", dtype="float64")
    model.compile(optimizer=_optimizer(kind, steps), loss=loss)
    return model


class BothLosses(keras.losses.Loss):
    """The squared errors, and the weights of the rows."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        target = keras.ops.reshape(y_true, (-1,))
        return (y_pred[:, 0] - target) ** 2 / BATCH + y_pred[:, 1]


class _Counting:
    """An optimizer that takes whole steps for the weights of the rows, whatever it does else."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        if variable.shape[0] <= _WIDTH:  # TensorFlow hands over variables of its own, without names
            super().update_step(gradient, variable, learning_rate)  # type: ignore[misc]
            return
        dense = keras.ops.convert_to_tensor(gradient)
        self.assign_sub(variable, dense)  # type: ignore[attr-defined]


class CountingAdam(_Counting, keras.optimizers.Adam):
    """Adam."""


class CountingSGD(_Counting, keras.optimizers.SGD):
    """SGD."""


def _optimizer(kind: str, steps: int) -> Any:
    if kind == "adam":
        return CountingAdam(0.003)
    return CountingSGD(keras.optimizers.schedules.CosineDecay(0.02, steps), momentum=0.9)
