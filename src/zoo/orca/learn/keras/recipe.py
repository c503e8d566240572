"""What the user gave to build a training from, and building it: on the driver and on ranks."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from zoo.errors import InputError
from zoo.orca.learn.keras.parts import ModelParts, assemble, take_apart
from zoo.orca.learn.keras.process import KerasSetup

__all__ = ["Recipe", "make_model"]


@dataclass
class Recipe:
    """How to make a compiled model. Travels to the ranks.

    Attributes:
        creator: `f(config)` that makes the model; None where a model was given.
        compile_creator: `f(config)` that gives the arguments of its `compile`, as a dict.
        model: A model that was given. It stays on the driver; its parts travel.
        optimizer: One of Keras in the place of the compiled one.
        config: Handed to the functions.
        compares: Whether a loss compares outputs with targets, so that targets are needed; of a
            model that a function makes it is known when it is made.
        setup: What Keras has been told on the driver.
        parts: Those of the model, where it has arrived.
    """

    creator: Callable[[dict[str, Any]], Any] | None = None
    compile_creator: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None
    model: keras.Model | None = None
    optimizer: keras.Optimizer | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    compares: bool = True
    setup: KerasSetup = field(default_factory=KerasSetup.here)
    parts: ModelParts | None = None

    @property
    def makes_weights(self) -> bool:
        """Whether a function of the user's makes the model."""
        return self.creator is not None

    def doubts(self, *, labels: bool) -> list[str]:
        """What the user may have forgotten."""
        if not labels or self.compares:
            return []
        return ["label_cols are given, and the model was compiled without a loss to compare with"]

    def describe(self) -> dict[str, Any]:
        """What loggers write down."""
        plain = {k: v for k, v in self.config.items() if isinstance(v, str | int | float | bool)}
        return {"keras": self.setup.version, "backend": keras.backend.backend(), **plain}

    def __getstate__(self) -> dict[str, Any]:
        state = dict(vars(self))
        if self.model is not None:
            state["parts"] = take_apart(self.model)
        state["model"] = state["optimizer"] = None
        if self.optimizer is not None and self.model is None:
            state["optimizer"] = keras.saving.serialize_keras_object(self.optimizer)
        return state


def make_model(recipe: Recipe) -> keras.Model:
    """Carry out a recipe; its `seed`, when given, is that of first weights.

    Raises:
        InputError: A function gave something else than it should.
        Exception: Whatever a function raises.
    """
    if recipe.model is not None:
        model = recipe.model
    elif recipe.parts is not None:
        model = assemble(recipe.parts)
    else:
        with _seeded(recipe.config.get("seed")):
            model = _created(recipe)
    if recipe.optimizer is not None:
        _compile_with(model, recipe)
    recipe.compares = _compares(model)
    return model


def _created(recipe: Recipe) -> keras.Model:
    assert recipe.creator is not None
    model = recipe.creator(dict(recipe.config))
    if not isinstance(model, keras.Model):
        kind = f"{type(model).__module__}.{type(model).__name__}"
        raise InputError(
            "a keras.Model of Keras 3 from model_creator", kind,
            "Return the model at the end of the function, made with the package keras.",
        )  # fmt: skip
    if recipe.compile_creator is not None:
        given = recipe.compile_creator(dict(recipe.config))
        if not isinstance(given, Mapping):
            raise InputError(
                "a dict from compile_args_creator", type(given).__name__,
                "Return {'optimizer': ..., 'loss': ..., 'metrics': [...]}.",
            )  # fmt: skip
        _compile(model, given)
    return model


def _compile(model: keras.Model, given: Mapping[str, Any]) -> None:
    try:
        model.compile(**given)
    except (TypeError, ValueError) as exc:
        raise InputError(
            "the arguments of compile from compile_args_creator", str(exc), "Correct its dict."
        ) from exc


def _compile_with(model: keras.Model, recipe: Recipe) -> None:
    """Compile the model with the optimizer of the recipe in the place of its own."""
    if not model.compiled:
        raise InputError(
            "a compiled model, whose optimizer is to be replaced", "one that is not compiled",
            "Call model.compile(loss=...) first.",
        )  # fmt: skip
    if isinstance(recipe.optimizer, dict):
        recipe.optimizer = keras.saving.deserialize_keras_object(recipe.optimizer)
    if model.optimizer is not recipe.optimizer:
        given = {**model._compile_config.config, "optimizer": recipe.optimizer}
        model.compile(**given)


def _compares(model: keras.Model) -> bool:
    if model.loss is not None or not model.compiled:
        return bool(model.compiled)
    return not type(model).compute_loss.__module__.startswith("keras.")


@contextmanager
def _seeded(seed: Any) -> Iterator[None]:
    """In which first weights are drawn by a seed; what others draw is as it was afterwards."""
    if seed is None:
        yield
        return
    held = random.getstate(), np.random.get_state()
    random.seed(int(seed))
    np.random.seed(int(seed) % (1 << 32))
    try:
        yield
    finally:
        random.setstate(held[0])
        np.random.set_state(held[1])
