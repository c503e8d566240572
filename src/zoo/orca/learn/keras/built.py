"""A recipe carried out: a compiled model, and how one calls it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops, tree
from keras.src.random.seed_generator import global_seed_generator

from zoo.errors import InputError
from zoo.orca.learn.keras.losses import adds_up, weighing
from zoo.orca.learn.keras.recipe import Recipe

__all__ = ["Built", "Layout", "float_dtype", "step_seeds", "takes_one_input"]

Layout = list[tuple[str, list[int]]]
"""Of each argument of a model, the dtype and the shape of one row."""


@dataclass
class Built:
    """A recipe carried out.

    Attributes:
        model: Compiled, or not: then it predicts.
        recipe: What it was made by.
        layout: Of the arguments that have built a model without Input layers; None for others.
        running: The sums of metrics in the running epoch, when a state is written.
        begun: Those that a state has brought.
    """

    model: keras.Model
    recipe: Recipe
    layout: Layout | None = None
    running: Any = None
    begun: Any = None
    _found: list[Any] = field(default_factory=list)

    @property
    def optimizer(self) -> Any:
        """That of the model, which may have been compiled again; None of one that was not."""
        return getattr(self.model, "optimizer", None)

    @property
    def learning_rate(self) -> float:
        """Of the next step; a schedule inside the optimizer counts its steps."""
        return float(ops.convert_to_numpy(self.optimizer.learning_rate))

    def weigh(self) -> ExitStack:
        """Have the losses of the model say what they weigh, until the stack is closed."""
        stack = ExitStack()
        stack.enter_context(weighing(self.model, self._found))
        return stack

    def ready(self, layout: Layout | None = None) -> bool:
        """Have the weights of model and optimizer made, as soon as that is possible.

        Args:
            layout: Of the arguments, for a model without Input layers.
        """
        model = self.model
        if not model.built and layout is not None:
            rows = [
                np.full((2, *shape), "" if dtype == "object" else 0, dtype)
                for dtype, shape in layout
            ]
            self.called(self.arguments(rows), training=False)
            self.layout = layout
        optimizer = self.optimizer if model.built and model.compiled else None
        if optimizer is not None and not optimizer.built:
            optimizer.build(model.trainable_variables)
        return bool(model.built)

    def seeds(self) -> list[keras.Variable]:
        """The states of all that draws random numbers; the last is that of Keras as a whole."""
        weights = {id(w) for w in self.model.weights}
        own = [v for v in self.model.variables if id(v) not in weights]
        return [*own, global_seed_generator().state]

    def arguments(self, features: Sequence[Any] | Mapping[str, Any]) -> Any:
        """What the model is called with: features in the order of its inputs, or by name."""
        if isinstance(features, Mapping):
            return dict(features)
        struct = getattr(self.model, "_inputs_struct", None)
        if isinstance(struct, Mapping) and len(struct) == len(features):
            return dict(zip(struct, features, strict=True))
        return features[0] if len(features) == 1 else list(features)

    def called(self, x: Any, *, training: bool) -> Any:
        """The model's output."""
        if self.model._call_has_training_arg:
            return self.model(x, training=training)
        return self.model(x)

    def predicted(self, x: Any) -> Any:
        """The model's output where it predicts, by its own `predict_step` if it has one."""
        own = not type(self.model).predict_step.__module__.startswith("keras.")
        if own and keras.backend.backend() != "jax":
            return self.model.predict_step((x,))
        return self.called(x, training=False)

    def wanted(self, targets: Sequence[Any] | Mapping[str, Any], y_pred: Any) -> Any:
        """Targets in the form of the outputs; several of one output are side by side."""
        if not targets:
            return None
        if isinstance(targets, Mapping):
            return dict(targets)
        if isinstance(y_pred, Mapping) and len(y_pred) == len(targets):
            return dict(zip(y_pred, targets, strict=True))
        several = tree.is_nested(y_pred)
        if several and len(y_pred) != len(targets):
            raise InputError(
                f"{len(y_pred)} targets, one for each output of the model", f"{len(targets)}",
                "Give as many label_cols as the model has outputs.",
            )  # fmt: skip
        if several:
            return list(targets)
        return targets[0] if len(targets) == 1 else ops.stack(list(targets), axis=-1)

    def compute(
        self, x: Any, y: Any, y_pred: Any, weights: Any, *, training: bool
    ) -> tuple[Any, list[Any]]:
        """The loss of a batch, and what its losses weigh besides rows; see `WeighedLoss`.

        Args:
            x: Arguments of the model.
            y: Targets.
            y_pred: Outputs.
            weights: Of rows; None for 1.
            training: Whether it is trained on.
        """
        if weights is not None and not adds_up(self.model):
            # With 1 as their mean, what Keras divides by rows is divided by what these weigh.
            weights = ops.divide_no_nan(weights, ops.mean(weights))
        self._found.clear()
        loss = self.model._compute_loss(
            x=x, y=y, y_pred=y_pred, sample_weight=weights, training=training
        )
        found = list(self._found)
        self._found.clear()
        return loss, found


def step_seeds(seed: int, iteration: int, rank: int, count: int) -> np.ndarray:
    """States of seed generators with which a step is the same whenever it is taken.

    Args:
        seed: Of the training.
        iteration: Number of the step.
        rank: Of the rank, whose rows are others.
        count: How many generators.

    Returns:
        Whole numbers of 31 bits, shape (count, 2); the second of a state counts draws.
    """
    found = np.zeros((count, 2), dtype=np.int64)
    found[:, 0] = [hash((seed, iteration, rank, k)) & 0x7FFFFFFF for k in range(count)]
    return found


def float_dtype(model: keras.Model) -> str:
    """The floating-point type of the model's inputs as numpy has it: float64 or float32."""
    found = next((w.dtype for w in model.weights if keras.backend.is_float_dtype(w.dtype)), None)
    return "float64" if (found or keras.config.floatx()) == "float64" else "float32"


def takes_one_input(model: keras.Model) -> bool:
    """Whether the model is called with one tensor, so that columns become one matrix.

    A model without Input layers is, as far as one can see. One that takes a list of inputs gets it
    from a list of lists, `feature_cols=[["user"], ["item"]]`.
    """
    inputs = getattr(model, "inputs", None)
    if inputs is not None:
        return len(inputs) == 1
    parameters = list(inspect.signature(model.call).parameters.values())
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p for p in parameters if p.kind in kinds and p.default is p.empty]
    return len(needed) <= 1
