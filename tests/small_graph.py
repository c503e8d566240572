"""Small graphs of TensorFlow 1 for tests, and ranks of one process that agree by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from zoo.orca.learn.framework import Place
from zoo.orca.learn.graph.built import Built
from zoo.orca.learn.graph.learner import GraphLearner
from zoo.orca.learn.graph.parts import checked_parts
from zoo.orca.learn.graph.recipe import Recipe
from zoo.orca.learn.graph.training_graph import make_recipe
from zoo.orca.learn.graph.user_session import first_values
from zoo.orca.learn.rank.array_batches import Batch
from zoo.orca.learn.steps import GradientLimits, StepSums

__all__ = ["Net", "batches", "net", "plain", "recipe_of", "steps"]

v1 = tf.compat.v1

Batches = Sequence[tuple[np.ndarray, np.ndarray]]


@dataclass
class Net:
    """Parts of a graph, still open to more.

    Attributes:
        graph: In which all is.
        x: Features, (rows, 3).
        y: Targets, (rows,).
        hidden: (rows, 4).
        output: (rows,).
        losses: Of the rows.
    """

    graph: tf.Graph
    x: tf.Tensor
    y: tf.Tensor
    hidden: tf.Tensor
    output: tf.Tensor
    losses: tf.Tensor


def net(
    middle: Callable[[tf.Tensor], tf.Tensor] = lambda hidden: hidden, *, resource: bool = True
) -> Net:
    """Two layers in double precision, with the same weights each time.

    Args:
        middle: What becomes of the hidden layer.
        resource: Of which kind the variables are.
    """
    draw, graph = np.random.default_rng(7), tf.Graph()
    with graph.as_default():
        x, y = v1.placeholder(tf.float64, [None, 3]), v1.placeholder(tf.float64, [None])

        def variable(name: str, shape: tuple[int, ...]) -> Any:
            return v1.get_variable(name, initializer=draw.normal(size=shape), use_resource=resource)

        hidden = middle(tf.tanh(x @ variable("w", (3, 4)) + variable("b", (4,))))
        output = tf.squeeze(hidden @ variable("v", (4, 1)), 1)
        return Net(graph, x, y, hidden, output, (output - y) ** 2)


def recipe_of(net: Net, loss: Any, optimizer: Any, **more: Any) -> Recipe:
    """The recipe of a net, with its first values."""
    given: dict[str, Any] = {"outputs": net.output, "metrics": {}, "updates": None, **more}
    config = given.pop("config", {})
    parts = checked_parts(
        inputs=net.x, labels=net.y, loss=loss, optimizer=optimizer, graph=None, **given
    )
    recipe = make_recipe(parts, config)
    return replace(recipe, values=first_values(recipe, net.graph, None))


def batches(count: int, rows: int = 7) -> list[tuple[np.ndarray, np.ndarray]]:
    """Random rows; the target is a function of them."""
    draw = np.random.default_rng(1)
    found = [draw.normal(size=(rows, 3)) for _ in range(count)]
    return [(x, np.sin(x).sum(1)) for x in found]


def plain(net: Net, run: Callable[[], Any], given: Batches) -> dict[str, np.ndarray]:
    """The values of variables after a loop of plain TensorFlow.

    Args:
        net: The graph.
        run: Makes in it what each step runs, such as `optimizer.minimize(loss)`.
        given: The batches.
    """
    with net.graph.as_default(), v1.Session() as sess:
        train = run()
        sess.run(v1.global_variables_initializer())
        for x, y in given:
            sess.run(train, {net.x: x, net.y: y})
        return {v.op.name: sess.run(v) for v in v1.global_variables()}


def steps(
    recipe: Recipe,
    given: Batches,
    ranks: int = 1,
    *,
    limits: GradientLimits | None = None,
    weights: Sequence[np.ndarray] | None = None,
    adds_up: str | None = None,
    first: int = 0,
) -> list[dict[str, np.ndarray]]:
    """The values of variables on each rank after these batches, cut into unequal parts.

    Args:
        recipe: Of the graph.
        given: The batches.
        ranks: Rank 0 has a row, the last all others; those between have none.
        limits: For gradients.
        weights: Of the rows of each batch.
        adds_up: How the loss does.
        first: Number of the first step.
    """
    every = []
    for rank in range(ranks):
        built = Built(recipe)
        built.program.load(recipe.values)
        built.adds_up = adds_up or built.adds_up
        every.append((built, GraphLearner(built, Place(rank, ranks), limits=limits), StepSums()))
    for number, (x, y) in enumerate(given):
        ends = [0, *([1] * (ranks - 1)), len(x)]
        for rank, (_, learner, sums) in enumerate(every):
            low, high = ends[rank : rank + 2]
            weight = None if weights is None else weights[number][low:high]
            batch = Batch((x[low:high],), (y[low:high],), high - low, weight)
            learner.begin_step(first + number)
            learner.backward(batch if high > low else None, sums)
        if ranks > 1:
            arrays = [[sums.array, *learner.buffers()] for _, learner, sums in every]
            for same in zip(*arrays, strict=True):
                total = np.sum(same, axis=0)
                for array in same:
                    array[:] = total
        for _, learner, sums in every:
            learner.update(sums)
    return [built.program.values() for built, _, _ in every]
