"""What a model's output says, by the loss that it was compiled with: probabilities, classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import tree

from zoo.errors import InputError

__all__ = ["Reading", "reading_of"]

Reading = Callable[[np.ndarray], np.ndarray]

_CLASSES = ("categorical_crossentropy", "sparse_categorical_crossentropy")
_FOCAL = ("categorical_focal_crossentropy",)
_QUESTIONS = ("binary_crossentropy", "binary_focal_crossentropy")


def reading_of(model: keras.Model, output: str) -> Reading | None:
    """What to make of outputs; None to leave them as they are.

    Args:
        model: Compiled with a loss that knows what outputs mean.
        output: `raw`, `probability` or `class`.

    Raises:
        InputError: `output` is another word, or the loss does not tell.
    """
    if output == "raw":
        return None
    if output not in ("probability", "class"):
        raise InputError("output as 'raw', 'probability' or 'class'", repr(output), "Choose one.")
    name, logits = _loss(model)
    if name in _QUESTIONS:
        return partial(_question, logits=logits, as_class=output == "class")
    if output == "class":
        return _highest
    if name in (*_CLASSES, *_FOCAL):
        return _softmax if logits else _as_they_are
    raise _unknown(name)


def _loss(model: keras.Model) -> tuple[str, bool]:
    """The name of the only loss, and whether it takes logits."""
    losses = tree.flatten(model.loss) if model.compiled else []
    if len(losses) != 1:
        return "", False
    loss = losses[0]
    if isinstance(loss, str):
        found: Any = keras.losses.get(loss)
        return found.__name__, False
    if isinstance(loss, keras.losses.Loss):
        function = getattr(loss, "fn", None)
        logits = bool(getattr(loss, "_fn_kwargs", {}).get("from_logits", False))
        return getattr(function, "__name__", ""), logits
    return getattr(loss, "__name__", ""), False


def _question(outputs: np.ndarray, *, logits: bool, as_class: bool) -> np.ndarray:
    if as_class:
        return (outputs > (0.0 if logits else 0.5)).astype(np.int64)
    return 1.0 / (1.0 + np.exp(-outputs)) if logits else outputs


def _softmax(outputs: np.ndarray) -> np.ndarray:
    shifted = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
    found: np.ndarray = shifted / shifted.sum(axis=-1, keepdims=True)
    return found


def _as_they_are(outputs: np.ndarray) -> np.ndarray:
    return outputs


def _highest(outputs: np.ndarray) -> np.ndarray:
    if outputs.ndim < 2 or outputs.shape[-1] == 1:
        raise _unknown("")
    found: np.ndarray = outputs.argmax(axis=-1)
    return found


def _unknown(name: str) -> InputError:
    known = ", ".join((*_QUESTIONS, *_CLASSES))
    return InputError(
        f"a model whose loss tells what its output means: {known}",
        name or "one output for each row, and no such loss",
        "Compile it with that loss, or take the outputs as they are: output='raw'.",
    )
