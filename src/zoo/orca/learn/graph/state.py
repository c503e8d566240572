"""Everything that training continues from, as one zip file: arrays, and facts in JSON."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, BinaryIO

import numpy as np
import tensorflow as tf

from zoo.errors import InputError
from zoo.orca.learn.framework import State
from zoo.orca.learn.graph.built import Built
from zoo.orca.learn.steps import Position

__all__ = ["apply_state", "fitting", "read_state", "write_state"]

_FORMAT = "zoo-graph-1"
# In front of names: they may be anything.
_OF = "variable/"


def write_state(
    file: BinaryIO, built: Built, position: Position, extras: Mapping[str, Any]
) -> None:
    """Write the state over what is in a file in memory.

    Args:
        file: In memory, to be used again for the next state.
        built: The graph; its variables are those of the optimizer, too.
        position: Where training stands.
        extras: Plain values to keep with it.
    """
    facts = {"format": _FORMAT, "position": asdict(position), "extras": dict(extras)}
    values = {_OF + name: value for name, value in built.program.values().items()}
    file.seek(0)
    np.savez(file, allow_pickle=False, facts=json.dumps(facts | built.describe()), **values)
    file.truncate()


def read_state(blob: bytes) -> State:
    """Read the content of a file.

    Raises:
        InputError: It is no state.
    """
    try:
        with np.load(io.BytesIO(blob), allow_pickle=False) as held:
            facts = json.loads(str(held["facts"]))
            names = [name for name in held.files if name.startswith(_OF)]
            tree = {name.removeprefix(_OF): held[name] for name in names}
        if facts["format"] != _FORMAT:
            raise ValueError(f"the format {facts['format']!r}")
        position = Position(**facts["position"])
        found = {"variables": tree, "adds_up": facts["adds_up"], "schedule": facts["schedule"]}
        return State(position, found, extras=facts["extras"])
    except (EOFError, OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as exc:
        raise InputError(
            "a file written by save(), of a graph",
            " ".join(f"{type(exc).__name__}: {exc}".split())[:300],
            "Check the path; checkpoints of TensorFlow are for load_tf_checkpoint.",
        ) from exc


def apply_state(built: Built, state: State) -> Position:
    """Put a state into what was built.

    Raises:
        InputError: It is of another graph; then nothing was changed.
    """
    values = fitting(built, state.tree["variables"])
    missing = [v.name for v in built.recipe.variables if v.name not in values]
    if missing:
        raise _other(f"one without {_some(missing)}")
    if built.schedule is not None and state.tree["schedule"]:
        built.schedule.load_state(state.tree["schedule"])
    built.program.load(values)
    if built.adds_up is None:
        built.adds_up = state.tree["adds_up"]
    position = Position(**asdict(state.position))
    built.iteration = position.iteration
    return position


def fitting(built: Built, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those of some values that variables of the graph are called after, in their types.

    Raises:
        InputError: One has another shape, or there are values that no variable takes.
    """
    found = {}
    for variable in built.recipe.variables:
        value = values.get(variable.name)
        if value is None:
            continue
        if value.shape != variable.shape:
            raise _other(
                f"one where {variable.name!r} has shape {value.shape}, not {variable.shape}"
            )
        real = tf.dtypes.as_dtype(variable.dtype).as_numpy_dtype
        # numpy writes types that are not its own, such as bfloat16, as bare bytes.
        found[variable.name] = value.view(real) if value.dtype.kind == "V" else value
    strange = sorted(set(values) - set(found))
    if strange:
        raise _other(f"one with {_some(strange)}")
    return found


def _other(what: str) -> InputError:
    return InputError(
        "the state of this graph and optimizer", what,
        "Cannot load it: make the estimator of the same graph, with the same optimizer.",
    )  # fmt: skip


def _some(names: list[str]) -> str:
    return ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" if names[3:] else "")
