"""A model taken apart to travel, and put together again elsewhere.

A Keras object does not pickle. Its architecture goes as the config that Keras writes for it; what
Keras does not have where it arrives goes along: classes and functions of the user's, by value, and
files of layers such as vocabularies. Weights go with the state of the training.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import keras
from keras import tree
from keras.src.saving import object_registration
from keras.src.saving.saving_lib import _load_assets_from_dict, _save_assets_to_dict
from keras.src.saving.serialization_lib import ObjectSharingScope

from zoo.errors import InputError

__all__ = ["ModelParts", "assemble", "require_sendable", "take_apart"]

_REMEDY = (
    "Give from_keras a function that makes the model: zoo.orca.learn.tf2.Estimator.from_keras("
    "model_creator=...). Or give the class get_config() with all arguments of its constructor."
)


@dataclass(frozen=True)
class ModelParts:
    """A model without its weights.

    Attributes:
        config: As Keras writes it, losses, metrics and optimizer included.
        objects: Classes and functions that the config names.
        assets: Files of layers, as a tree of folders; None without.
        loss_dtypes: Types that losses compute in, which their configs do not have.
    """

    config: Mapping[str, Any]
    objects: Mapping[str, Any]
    assets: Mapping[str, Any] | None = None
    loss_dtypes: tuple[str | None, ...] = ()


def take_apart(model: keras.Model) -> ModelParts:
    """The parts of a model.

    Raises:
        InputError: Keras cannot write its config.
    """
    walk = _Walk()
    for layer in model._flatten_layers():
        walk.visit(layer)
    walk.visit(getattr(model, "_compile_config", None) and model._compile_config.config)
    try:
        with _named(walk.lambdas) as named, ObjectSharingScope():
            config = keras.saving.serialize_keras_object(model)
    except (NotImplementedError, TypeError, ValueError) as exc:
        said = " ".join(f"{type(exc).__name__}: {exc}".split())[:300]
        raise InputError(
            "a model that Keras can make again from its config, to send it to the ranks",
            f"{type(model).__name__}, of which Keras says: {said}", _REMEDY,
        ) from exc  # fmt: skip
    objects = {**walk.objects, **named}
    dtypes = tuple(getattr(loss, "dtype", None) for loss in _losses(model))
    return ModelParts(config, objects, _save_assets_to_dict(model), dtypes)


def assemble(parts: ModelParts) -> keras.Model:
    """The model that parts are of, with first weights."""
    # Some classes of Keras change the config that they are made from.
    config = copy.deepcopy(dict(parts.config))
    with ObjectSharingScope():
        model = keras.saving.deserialize_keras_object(
            config, custom_objects=dict(parts.objects), safe_mode=False
        )
    if parts.assets is not None:
        _load_assets_from_dict(model, dict(parts.assets))
    for loss, dtype in zip(_losses(model), parts.loss_dtypes, strict=True):
        if isinstance(loss, keras.losses.Loss):
            loss._dtype = dtype
    return model


def _losses(model: keras.Model) -> list[Any]:
    """What `compile` was given as losses."""
    return tree.flatten(model.loss) if model.compiled else []


def require_sendable(model: keras.Model) -> None:
    """Take a model apart and put it together once, as a process of an executor does.

    Raises:
        InputError: That does not give a model of the same weights.
    """
    parts = take_apart(model)
    try:
        with _unregistered():
            again = assemble(parts)
    except Exception as exc:
        said = " ".join(f"{type(exc).__name__}: {exc}".split())[:300]
        raise InputError(
            "a model that can be made again in another process",
            f"{type(model).__name__}, where that gives {said}", _REMEDY,
        ) from exc  # fmt: skip
    if _shapes(again) != _shapes(model) or again.compiled != model.compiled:
        raise InputError(
            "a model whose config has all that it is made of",
            f"{type(model).__name__}, which has {len(model.weights)} weights, and "
            f"{len(again.weights)}, or others, when it is made again from its config", _REMEDY,
        )  # fmt: skip
    for one, other in zip(_custom_of(model), _custom_of(again), strict=True):
        if _settings(one) != _settings(other):
            lost = sorted(dict(_settings(one).items() ^ _settings(other).items()))
            raise InputError(
                "classes whose get_config() has all that objects are made with",
                f"{type(one).__name__}, whose {', '.join(lost)} would be lost on the way", _REMEDY,
            )  # fmt: skip


def _custom_of(model: keras.Model) -> list[Any]:
    """Layers, losses and optimizer of classes that are not Keras's own."""
    parts = [*model._flatten_layers(), *_losses(model), getattr(model, "optimizer", None)]
    return [part for part in parts if hasattr(part, "get_config") and not _is_own(type(part))]


def _settings(part: Any) -> dict[str, Any]:
    """Plain attributes of an object."""
    held = vars(part).items()
    plain = {n: v for n, v in held if isinstance(v, bool | int | float | str)}
    return {n: v for n, v in plain.items() if not n.startswith("_") and n not in _LIVE}


# Of layers: how far they are, not what they are.
_LIVE = ("built", "compiled", "jit_compile", "name", "stop_training")


def _shapes(model: keras.Model) -> list[tuple[Any, ...]]:
    return [(tuple(w.shape), w.dtype) for w in model.weights] if model.built else []


@contextmanager
def _unregistered() -> Iterator[None]:
    """As in a process that has not run the user's program."""
    known = object_registration.GLOBAL_CUSTOM_OBJECTS
    held = dict(known)
    known.clear()
    try:
        yield
    finally:
        known.update(held)


@contextmanager
def _named(functions: Sequence[FunctionType]) -> Iterator[dict[str, Any]]:
    """Names for lambdas, which Keras would write down as code without what it refers to."""
    names = {f"zoo_lambda_{k}": function for k, function in enumerate(functions)}
    held = [function.__name__ for function in functions]
    try:
        for name, function in names.items():
            function.__name__ = name
        yield names
    finally:
        for function, name in zip(functions, held, strict=True):
            function.__name__ = name


class _Walk:
    """Finds classes and functions that are not of Keras in what a model is made of."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.lambdas: list[FunctionType] = []
        self._seen: dict[int, Any] = {}

    def visit(self, value: Any) -> None:
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        is_function = isinstance(value, FunctionType)
        if is_function and value.__name__ == "<lambda>":
            self.lambdas.append(value)
        elif (is_function or (isinstance(value, type) and _is_made(value))) and not _is_own(value):
            self._add(value)
        for part in _parts_of(value):
            self.visit(part)

    def _add(self, value: Any) -> None:
        name = keras.saving.get_registered_name(value)
        other = self.objects.setdefault(name, value)
        if other is not value:
            raise InputError(
                "custom classes and functions of different names",
                f"two that are called {name!r}",
                "Give one another name, or @keras.saving.register_keras_serializable(package=...).",
            )


def _is_made(kind: type[Any]) -> bool:
    """Whether Keras makes objects of a class from their config."""
    return hasattr(kind, "from_config")


def _parts_of(value: Any) -> Iterable[Any]:
    """What an object is made of, as far as it goes into a config."""
    if isinstance(value, list | tuple | set):
        return value
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, type | keras.Variable) or not hasattr(value, "get_config"):
        return ()
    return [type(value), *vars(value).values()]


def _is_own(value: Any) -> bool:
    """Whether it is of Keras itself."""
    return (value.__module__ or "").split(".")[0] == "keras"
