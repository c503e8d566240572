"""The session of the user's program: first weights come from it, trained ones go back to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from zoo.errors import InputError
from zoo.orca.learn.graph.program import Program
from zoo.orca.learn.graph.recipe import Recipe

__all__ = ["first_values", "give_back"]

v1 = tf.compat.v1


def first_values(recipe: Recipe, graph: Any, sess: Any) -> dict[str, np.ndarray]:
    """What training begins with.

    Args:
        recipe: Of the graph.
        graph: The user's.
        sess: With values of its variables; those that have none yet get their first ones. None:
            all get them, by the seeds in the graph, or by the `seed` of the recipe's config.
    """
    if sess is None and "seed" in recipe.config:
        program = Program(recipe)
        assert recipe.init is not None
        assert recipe.seed is not None
        seed = np.array([int(recipe.config["seed"]), 0])
        # Values that are made of others are made after them in every initialisation.
        program.run([recipe.init], {recipe.seed: seed})
        return program.values()
    if sess is None:
        with v1.Session(graph=graph) as made:
            made.run([recipe.setup, recipe.init])
            return _read(recipe, made)
    with graph.as_default(), graph.name_scope(None), v1.name_scope("zoo"):
        variables = {v.op.name: v for v in v1.global_variables()}
        empty = sess.run(v1.report_uninitialized_variables(list(variables.values())))
    sess.run([variables[name.decode()].initializer for name in empty.tolist()])
    return _read(recipe, sess)


def give_back(recipe: Recipe, sess: Any, values: Mapping[str, np.ndarray]) -> None:
    """Give the variables of a session these values.

    Raises:
        InputError: The session was closed.
    """
    try:
        chosen = [v for v in recipe.variables if v.name in values]
        sess.run([v.assign for v in chosen], {v.place: np.array(values[v.name]) for v in chosen})
    except RuntimeError as exc:
        raise InputError(
            "a session that is open, to give it the trained weights", str(exc),
            "Leave sess open, or make the estimator without it.",
        ) from exc  # fmt: skip


def _read(recipe: Recipe, sess: Any) -> dict[str, np.ndarray]:
    found = sess.run({v.name: v.read for v in recipe.variables})
    return {name: np.array(value) for name, value in found.items()}
