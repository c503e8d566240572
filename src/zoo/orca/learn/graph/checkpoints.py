"""Checkpoints as TensorFlow's own `Saver` writes and reads them."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from zoo.errors import InputError
from zoo.orca.learn.graph.recipe import Recipe
from zoo.orca.learn.graph.user_session import give_back

__all__ = ["read_checkpoint", "write_checkpoint"]

_log = logging.getLogger(__name__)

v1 = tf.compat.v1


def write_checkpoint(
    path: str, recipe: Recipe, graph: Any, sess: Any, values: Mapping[str, np.ndarray]
) -> None:
    """Write a checkpoint that any program of TensorFlow reads, with the graph beside it.

    Args:
        path: In front of `.index`, `.data-...` and `.meta`; folders on the way are made.
        recipe: Of the graph.
        graph: The user's.
        sess: The user's session, or None.
        values: Of all variables.
    """
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with graph.as_default(), graph.name_scope(None), v1.name_scope("zoo"):
        of = {v.op.name: v for v in v1.global_variables()}
        saver = v1.train.Saver({v.name: of[v.op] for v in recipe.variables})
        made = v1.Session(graph=graph) if sess is None else None
        try:
            give_back(recipe, sess or made, values)
            saver.save(sess or made, path)
        finally:
            if made is not None:
                made.close()


def read_checkpoint(path: str, recipe: Recipe) -> dict[str, np.ndarray]:
    """Values of variables from a checkpoint; no operation of its graph is run.

    Args:
        path: As given to `Saver.save`, with its number if it had one; or the folder of
            checkpoints, for the newest.
        recipe: Of the graph.

    Raises:
        InputError: There is none, or it is of another graph.
    """
    path = v1.train.latest_checkpoint(path) or path if os.path.isdir(path) else path
    try:
        reader = v1.train.NewCheckpointReader(path)
        shapes = reader.get_variable_to_shape_map()
        wrong = [
            v for v in recipe.variables if v.own and tuple(shapes.get(v.name, (-1,))) != v.shape
        ]
        found = {v.name: reader.get_tensor(v.name) for v in recipe.variables if v.name in shapes}
    except (tf.errors.OpError, ValueError, RuntimeError) as exc:
        raise InputError(
            "a checkpoint that a Saver of TensorFlow wrote", " ".join(str(exc).split())[:300],
            "Check the path: it is the one in front of '.index'.",
        ) from exc  # fmt: skip
    if wrong:
        shown = ", ".join(f"{v.name!r} of shape {v.shape}" for v in wrong[:3])
        raise InputError(
            f"a checkpoint with all variables of the graph, {shown} among them",
            f"one with {', '.join(sorted(shapes)[:10])}",
            "Load it with the graph that it was written of.",
        )
    missing = [v.name for v in recipe.variables if not v.own and v.name not in found]
    if missing:
        _log.warning(
            "the checkpoint has nothing for the optimizer, which begins anew: %s",
            ", ".join(missing[:5]),
        )
    return {n: np.asarray(a) for n, a in found.items() if _fits(recipe, n, a)}


def _fits(recipe: Recipe, name: str, value: Any) -> bool:
    return any(v.name == name and v.shape == np.shape(value) for v in recipe.variables)
