"""A graph on arrays: what prediction and evaluation in tasks ask of the framework."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from zoo.cluster.ranks.carried import pickled, unpickled
from zoo.errors import ContractError
from zoo.orca.data.tensors.plan import TensorPlan
from zoo.orca.learn.graph.built import Built
from zoo.orca.learn.graph.measures import Measure
from zoo.orca.learn.graph.scorer import Scorer
from zoo.orca.learn.rank.array_batches import Batch
from zoo.orca.learn.score.predict import Outputs, Predictor

__all__ = [
    "GraphEvaluator",
    "evaluator",
    "predictor",
    "predictor_of",
    "sent_evaluator",
    "sent_model",
]


def predictor_of(built: Built) -> Predictor:
    """The outputs of a graph for the features of some rows.

    Raises:
        ContractError: There are none.
    """
    recipe, program = built.recipe, built.program
    if not recipe.outputs:
        raise ContractError(
            "outputs, to predict", "an estimator without them",
            "outputs should not be None in prediction: pass them to Estimator.from_graph.",
        )  # fmt: skip
    names = [port.name for port in recipe.outputs]
    fixed = program.fixed(["outputs"], training=False)

    def predict(arrays: Sequence[np.ndarray]) -> Outputs:
        feeds = {port.name: array for port, array in zip(recipe.inputs, arrays, strict=True)}
        found = [np.asarray(value) for value in program.run(names, {**feeds, **fixed})]
        return found if len(found) > 1 else found[0]

    return predict


def sent_model(built: Built) -> bytes:
    """What `predictor` opens: the graph with the weights that there are."""
    return pickled(_as_it_is(built), "a graph")


def predictor(blob: bytes) -> Predictor:
    """A graph that was sent, in a process of its own."""
    return predictor_of(_opened(unpickled(blob)))


def sent_evaluator(built: Built, metrics: Mapping[str, Measure]) -> bytes:
    """What `evaluator` opens."""
    return pickled((_as_it_is(built), built.adds_up, dict(metrics)), "a graph and its metrics")


def evaluator(blob: bytes, plan: TensorPlan) -> GraphEvaluator:
    """A graph and its metrics that were sent, in a process of their own.

    Args:
        blob: From `sent_evaluator`.
        plan: What the arrays of a batch are.
    """
    recipe, adds_up, metrics = unpickled(blob)
    built = _opened(recipe)
    built.adds_up = adds_up
    return GraphEvaluator(Scorer(built, metrics), plan)


class GraphEvaluator:
    """Scores batches of arrays.

    Args:
        scorer: Of the graph.
        plan: What the arrays of a batch are.
    """

    def __init__(self, scorer: Scorer, plan: TensorPlan) -> None:
        self._scorer, self._plan = scorer, plan

    def run(self, batches: Iterable[Sequence[np.ndarray]]) -> None:
        """Score batches: an array for each tensor of the plan."""
        self._scorer.run(Batch.of(self._plan, arrays, len(arrays[0])) for arrays in batches)

    def sums(self) -> Any:
        """What to add up with other parts of the data."""
        return self._scorer.sums()


def _as_it_is(built: Built) -> Any:
    own = [v.name for v in built.recipe.variables if v.own]
    return replace(built.recipe, values=built.program.values(own))


def _opened(recipe: Any) -> Built:
    built = Built(recipe)
    built.program.load(recipe.values)
    return built
