"""A user's graph gets what training needs, and becomes a recipe: on the driver, once.

The graph grows by the gradients of the loss, by placeholders that mean gradients come in through,
and by the optimizer's own operations and variables, as `optimizer.minimize` would add them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import tensorflow as tf

from zoo.errors import InputError
from zoo.orca.learn.graph.ancestry import (
    ancestors,
    needed_placeholders,
    require_portable,
    written,
)
from zoo.orca.learn.graph.orca_optimizer import apply_orca
from zoo.orca.learn.graph.parts import Parts, port_of
from zoo.orca.learn.graph.randomness import seeded
from zoo.orca.learn.graph.recipe import Gradient, Recipe, Step, Stored
from zoo.orca.learn.optimizers.optimizer import Optimizer as NamedOptimizer

__all__ = ["make_recipe"]

v1 = tf.compat.v1

# Of each graph, the variables that optimizers of estimators have added, by the name that each has
# in files: a second estimator of a graph gets other names from TensorFlow, and the same here.
_ADDED: WeakKeyDictionary[Any, dict[str, str]] = WeakKeyDictionary()


def make_recipe(parts: Parts, config: Mapping[str, Any]) -> Recipe:
    """Add to the graph what training needs.

    Args:
        parts: Of the user.
        config: Of the recipe.

    Returns:
        All but first values of the variables.

    Raises:
        InputError: The loss depends on nothing that can be trained, or something cannot travel.
    """
    graph = parts.graph
    with graph.as_default(), graph.name_scope(None):
        added = _ADDED.setdefault(graph, {})
        own = [v for v in v1.global_variables() if v.op.name not in added]
        with v1.name_scope("zoo"):
            seed = v1.placeholder_with_default(tf.zeros([2], tf.int64), [2], name="seed")
            weights, summed = _weighed(parts)
        step = None
        if parts.loss is not None and parts.optimizer is not None:
            step = _step(parts, summed, own)
        names = {v.op.name: v.op.name for v in own} | _optimizer_names(parts, own, added)
        with v1.name_scope("zoo"):
            every = [v for v in v1.global_variables() if v.op.name in names]
            stored = tuple(
                _stored(v, names[v.op.name], any(v is o for o in own))
                for v in every
                if _has_numbers(v)
            )
            texts = [v.initializer for v in every if not _has_numbers(v)]
            setup = tf.group(
                v1.tables_initializer(), v1.local_variables_initializer(), *texts, name="setup"
            )
            init = v1.global_variables_initializer()
        needs, looped = _needs(parts, step), _looped(graph)
        definition = graph.as_graph_def()
    seeded(definition, seed.op.name, looped)
    return Recipe(
        definition.SerializeToString(),
        inputs=tuple(map(port_of, parts.inputs)),
        outputs=tuple(map(port_of, parts.outputs)),
        labels=tuple(map(port_of, parts.labels)),
        variables=stored,
        loss=None if parts.loss is None else port_of(parts.loss),
        metrics={name: tensor.name for name, tensor in parts.metrics.items()},
        of_rows=summed is not None,
        weights=None if weights is None else weights.name,
        step=step,
        setup=setup.name,
        init=init.name,
        seed=seed.name,
        needs=needs,
        config=dict(config),
        version=tf.__version__,
    )


def _weighed(parts: Parts) -> tuple[Any, Any]:
    """Of a loss of rows, where weights of rows go to and the weighted sum; else None."""
    loss = parts.loss
    if loss is None or loss.shape.rank == 0:
        return None, None
    real = loss.dtype
    each = tf.reshape(loss, [tf.shape(loss)[0], -1])
    weights = v1.placeholder_with_default(tf.ones([1], real), [None], name="weights")
    return weights, tf.reduce_sum(tf.reduce_mean(each, 1) * weights)


def _step(parts: Parts, summed: Any, own: Sequence[Any]) -> Step:
    target = parts.loss if summed is None else summed
    optimizer, orca = parts.optimizer, isinstance(parts.optimizer, NamedOptimizer)
    finder = v1.train.GradientDescentOptimizer(1.0) if orca else optimizer
    found = [(g, v) for g, v in finder.compute_gradients(target) if g is not None]
    if not found:
        raise InputError(
            "a loss that depends on trainable variables", repr(parts.loss.name),
            "Compute it from variables that were made with trainable=True.",
        )  # fmt: skip
    with v1.name_scope("zoo"):
        gradients, pairs = [], []
        for gradient, variable in found:
            made, back = _way(gradient, variable)
            gradients.append(made)
            pairs.append((back, variable))
    fed = (*parts.inputs, *parts.labels)
    forward = [*parts.updates, target, *(_values(g) for g, _ in found)]
    ops = ancestors(forward, fed)
    state = [v for v in own if _has_numbers(v) and written(v, ops)]
    with v1.name_scope("zoo"), tf.control_dependencies(forward):
        after = [tf.identity(v.read_value()) for v in state]
    if orca:
        with v1.name_scope("zoo"):
            rate_place = v1.placeholder(tf.float64, [], name="rate")
        apply: Any = apply_orca(optimizer, pairs, rate_place)
        rate: float | str = float(getattr(optimizer, "learningrate", 1.0))
    else:
        counter, rate_place = v1.train.get_global_step(parts.graph), None
        counted = counter is not None and any(v is counter for v in state)
        apply = optimizer.apply_gradients(pairs, global_step=None if counted else counter)
        rate = _rate(optimizer)
    return Step(
        tuple(gradients),
        tuple(getattr(u, "op", u).name for u in parts.updates),
        tuple(v.op.name for v in state),
        tuple(t.name for t in after),
        getattr(apply, "op", apply).name,
        rate,
        None if rate_place is None else rate_place.name,
        optimizer if orca else None,
        type(optimizer).__name__,
    )


def _values(gradient: Any) -> Any:
    return gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient


def _way(gradient: Any, variable: Any) -> tuple[Gradient, Any]:
    """The way of a gradient out of the graph, and what comes back for the optimizer."""
    real = variable.dtype.base_dtype
    wide = tf.float64 if real == tf.float64 else tf.float32
    shape = tuple(variable.shape.as_list())
    out = tf.identity(tf.cast(tf.convert_to_tensor(gradient), wide))
    place = v1.placeholder(wide, shape, name="mean_gradient")
    back: Any = tf.cast(place, real)
    if not isinstance(gradient, tf.IndexedSlices):
        return Gradient(out.name, place.name, wide.name, shape), back
    # A table whose rows are looked up: optimizers leave alone those that were not.
    indices = tf.reshape(tf.cast(gradient.indices, tf.int64), [-1, 1])
    ones = tf.ones([tf.shape(indices)[0]], tf.float32)
    seen = tf.identity(tf.scatter_nd(indices, ones, tf.constant([shape[0]], tf.int64)))
    seen_place = v1.placeholder(tf.float32, [shape[0]], name="seen")
    rows = tf.reshape(tf.where(seen_place > 0), [-1])
    back = tf.IndexedSlices(tf.gather(back, rows), rows, tf.constant(shape, tf.int64))
    made = Gradient(out.name, place.name, wide.name, shape, seen.name, seen_place.name)
    return made, back


def _rate(optimizer: Any) -> float | str:
    """The learning rate of an optimizer of TensorFlow, as a number or a tensor."""
    names = ("_learning_rate_tensor", "_lr_t", "_learning_rate", "_lr")
    found = next((v for n in names if (v := getattr(optimizer, n, None)) is not None), None)
    found = found() if callable(found) else found
    if isinstance(found, tf.Tensor):
        static = tf.get_static_value(found)
        return found.name if static is None else float(static)
    return float("nan") if found is None else float(np.asarray(found))


def _has_numbers(variable: Any) -> bool:
    return variable.dtype.base_dtype not in (tf.string, tf.resource, tf.variant)


def _optimizer_names(parts: Parts, own: Sequence[Any], added: dict[str, str]) -> dict[str, str]:
    """The optimizer's variables, with the names that they have in files; they are noted."""
    seen = {v.op.name for v in own}
    fresh = [v.op.name for v in v1.global_variables() if v.op.name not in {*seen, *added}]
    again, counts = bool(added), dict[str, int]()
    for name in fresh:
        base = re.sub(r"_\d+$", "", name)
        number = counts[base] = counts.get(base, -1) + 1
        added[name] = (base if not number else f"{base}_{number}") if again else name
    optimizer = parts.optimizer
    kept = optimizer.variables() if isinstance(optimizer, v1.train.Optimizer) else []
    mine = {*fresh, *(v.op.name for v in kept if v.graph is parts.graph)}
    return {name: added[name] for name in added if name in mine}


def _stored(variable: Any, name: str, own: bool) -> Stored:
    if not variable.shape.is_fully_defined():
        raise InputError(
            "variables whose shapes are known",
            f"{variable.op.name!r} of shape {variable.shape}",
            "Make them with a first value of a known shape.",
        )
    place = v1.placeholder(variable.dtype.base_dtype, variable.shape, name="value")
    assign = v1.assign(variable, place)
    return Stored(
        name,
        variable.dtype.base_dtype.name,
        tuple(variable.shape.as_list()),
        tf.identity(variable.read_value()).name,
        place.name,
        getattr(assign, "op", assign).name,
        own,
        variable.op.name,
    )


def _needs(parts: Parts, step: Step | None) -> dict[str, frozenset[str]]:
    """For what is run, the placeholders that have to be fed besides features and targets."""
    fed = (*parts.inputs, *parts.labels)
    runs: dict[str, tuple[Sequence[Any], Sequence[Any]]] = {
        "outputs": (parts.outputs, parts.inputs),
        **{f"metric {name!r}": ([metric], fed) for name, metric in parts.metrics.items()},
    }
    if parts.loss is not None:
        runs["loss"] = [parts.loss], fed
    if step is not None:
        element = parts.graph.as_graph_element
        ours = [p for g in step.gradients for p in (g.place, g.seen_place) if p]
        ours += [step.rate_place] if step.rate_place else []
        runs["training"] = (
            [*map(element, step.updates), *(element(g.out) for g in step.gradients)],
            fed,
        )
        runs["optimizer"] = [element(step.apply)], list(map(element, ours))
    needs = {}
    for name, (targets, known) in runs.items():
        ops = ancestors(targets, known)
        require_portable(ops)
        needs[name] = needed_placeholders(ops)
    return needs


def _looped(graph: Any) -> frozenset[str]:
    """Operations inside loops, which operations outside cannot give anything to."""
    found = set()
    for op in graph.get_operations():
        context = op._get_control_flow_context()
        while context is not None:
            if context.IsWhileContext():
                found.add(op.name)
                break
            context = context.outer_context
    return frozenset(found)
