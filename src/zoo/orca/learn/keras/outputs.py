"""A Keras model on numpy arrays: what prediction and evaluation ask of the framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from keras import ops, tree

from zoo.errors import InputError
from zoo.orca.learn.score.predict import Outputs

__all__ = ["outputs_of_model"]


def outputs_of_model(output: Any) -> Outputs:
    """Tensors of a model as arrays.

    Raises:
        InputError: They are nested deeper than a list or a dict.
    """
    if isinstance(output, Mapping):
        return {str(name): _array(value) for name, value in output.items()}
    if isinstance(output, tuple | list):
        return [_array(value) for value in output]
    return _array(output)


def _array(output: Any) -> np.ndarray:
    if tree.is_nested(output):
        raise InputError(
            "a model with one output, or with a list or a dict of them",
            f"a {type(output).__name__} inside of that",
            "Return a flat list from its call.",
        )
    array = np.asarray(ops.convert_to_numpy(output))
    return array.astype(np.float32) if array.dtype.kind == "V" else array  # bfloat16
