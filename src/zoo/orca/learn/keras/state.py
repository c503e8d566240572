"""Everything that training continues from, as one zip of numpy arrays and a page of facts.

Nothing in the file is run when it is read. It holds weights, optimizer and position; inside an
epoch also what there is of its statistics. Files of weights that Keras wrote are read besides.
"""

from __future__ import annotations

import io
import json
import logging
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, BinaryIO

import keras
import numpy as np

from zoo.errors import InputError
from zoo.orca.learn.framework import State
from zoo.orca.learn.keras.built import Built
from zoo.orca.learn.keras.weights_file import load_weights, weights_state
from zoo.orca.learn.steps import Position

__all__ = ["apply_state", "read_state", "settings_of", "write_state"]

_log = logging.getLogger(__name__)

_FORMAT = "zoo-keras-1"


def write_state(
    file: BinaryIO, built: Built, position: Position, extras: Mapping[str, Any]
) -> None:
    """Write the state over what is in a file in memory.

    Args:
        file: To be used again for the next state.
        built: Model and optimizer.
        position: Where training stands.
        extras: Plain values to keep with it.
    """
    parts = {"model": built.model.weights, "optimizer": _optimizer_variables(built)}
    arrays = {
        f"{part}/{k}": _storable(v.numpy())
        for part, variables in parts.items()
        for k, v in enumerate(variables)
    }
    facts = {
        "format": _FORMAT,
        "position": asdict(position),
        "extras": dict(extras),
        "keras": keras.__version__,
        "optimizer_kind": type(built.optimizer).__name__,
        "layout": built.layout,
        # Metrics of an epoch that has begun go on.
        "running": built.running() if position.step and built.running is not None else None,
        **{part: [_facts(v) for v in variables] for part, variables in parts.items()},
    }
    file.seek(0)
    arrays["facts"] = np.array(json.dumps(facts))
    np.savez(file, **arrays)  # type: ignore[arg-type]  # names are no options of savez
    file.truncate()


def _optimizer_variables(built: Built) -> list[keras.Variable]:
    optimizer = built.optimizer
    return optimizer.variables if optimizer is not None and optimizer.built else []


def _facts(variable: keras.Variable) -> list[Any]:
    return [variable.path, variable.dtype, list(variable.shape)]


def _storable(array: np.ndarray) -> np.ndarray:
    """As numpy's own format has it, which does not know bfloat16."""
    return array.view(f"u{array.itemsize}") if array.dtype.kind == "V" else array


def read_state(blob: bytes) -> State:
    """Read the content of a file.

    Raises:
        InputError: It is no state, and no file of weights.
    """
    try:
        if (found := weights_state(blob)) is not None:
            return found
        with np.load(io.BytesIO(blob), allow_pickle=False) as held:
            facts = json.loads(str(held["facts"]))
            if facts["format"] != _FORMAT:
                raise KeyError(facts["format"])
            tree: dict[str, Any] = {
                part: [_restored(held[f"{part}/{k}"], told) for k, told in enumerate(facts[part])]
                for part in ("model", "optimizer")
            }
        position = Position(**facts["position"])
        return State(position, {**tree, "facts": facts}, extras=facts["extras"])
    except InputError:
        raise
    except (EOFError, OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as exc:
        raise unreadable(" ".join(f"{type(exc).__name__}: {exc}".split())[:300]) from exc


def _restored(array: np.ndarray, told: Sequence[Any]) -> np.ndarray:
    dtype = np.dtype(told[1])
    return array.view(dtype) if dtype.kind == "V" else array


def apply_state(built: Built, state: State) -> Position:
    """Put a state into what was built, or refuse it and change nothing.

    Returns:
        Where training stands.

    Raises:
        InputError: It is of another model or optimizer.
    """
    position = Position(**asdict(state.position))
    if not state.whole:
        load_weights(built, state)
        return position
    facts = state.tree["facts"]
    layout = [(d, list(s)) for d, s in facts["layout"]] if facts["layout"] else None
    if not built.ready(layout):
        raise unreadable("a model that has no weights yet: give it an Input layer")
    weights = built.model.weights
    pairs = list(zip(weights, _in_order("weights", weights, facts, state, "model"), strict=True))
    if facts["optimizer"] and built.optimizer is not None:
        own = type(built.optimizer).__name__
        if own != facts["optimizer_kind"]:
            raise InputError(
                f"a file that was saved with the optimizer {own}",
                f"the state of another optimizer, {facts['optimizer_kind']}",
                "Compile the model with that one, or load a file of weights alone.",
            )
        variables = _optimizer_variables(built)
        saved = _in_order(f"variables of {own}", variables, facts, state, "optimizer")
        pairs += zip(variables, saved, strict=True)
    elif built.optimizer is not None and (position.iteration or position.epoch):
        _log.warning(
            "the file has no state of the optimizer: %s begins anew, with moments of 0 and as "
            "after 0 steps", type(built.optimizer).__name__,
        )  # fmt: skip
    for variable, value in pairs:
        variable.assign(value)
    built.begun = facts["running"] if position.step else None
    return position


def _in_order(
    what: str,
    variables: Sequence[keras.Variable],
    facts: Mapping[str, Any],
    state: State,
    part: str,
) -> list[np.ndarray]:
    """The saved arrays of variables.

    Names that Keras counts up differ from process to process, so order tells where these do.

    Raises:
        InputError: They are of others.
    """
    saved, arrays = facts[part], state.tree[part]
    if len(saved) != len(variables):
        raise unreadable(f"one with {len(saved)} {what}, where there are {len(variables)}")
    by_path = {told[0]: (told, array) for told, array in zip(saved, arrays, strict=True)}
    if len(by_path) == len(variables) and by_path.keys() == {v.path for v in variables}:
        pairs = [by_path[v.path] for v in variables]
    else:
        pairs = list(zip(saved, arrays, strict=True))
    for variable, (told, _) in zip(variables, pairs, strict=True):
        if list(variable.shape) != told[2] or _role(variable.path) != _role(told[0]):
            raise unreadable(
                f"one with {told[0]} of shape {tuple(told[2])} in the place of {variable.path} of "
                f"shape {tuple(variable.shape)}"
            )
    return [array for _, array in pairs]


def _role(path: str) -> str:
    """What a variable is to its layer or optimizer: the end of its path, without numbers.

    A model that is made again from its config may have other folders in its paths.
    """
    words = [word for word in path.rpartition("/")[2].split("_") if not word.isdigit()]
    return words[-1] if words else ""


def settings_of(built: Built) -> dict[str, Any]:
    """What the optimizer was made with, by name, as far as it is plain numbers."""
    if built.optimizer is None:
        return {}
    config = built.optimizer.get_config()
    return {n: v for n, v in config.items() if isinstance(v, int | float)}


def unreadable(what: str) -> InputError:
    """A file that is not for this model."""
    return InputError(
        "a file written by save() for this model, or one of weights that Keras wrote for it",
        what,
        "Cannot load the Keras model: check the path, and that the model is the same.",
    )
