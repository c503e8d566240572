"""Graphs of TensorFlow 1, as the driver and the ranks ask for them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from zoo.cluster.ranks.carried import unpickled
from zoo.cluster.ranks.member import Member
from zoo.errors import InputError
from zoo.orca.data.tensors.plan import TensorPlan
from zoo.orca.learn.framework import Feed, Place, State
from zoo.orca.learn.graph.batches import InOrder
from zoo.orca.learn.graph.built import Built
from zoo.orca.learn.graph.learner import GraphLearner
from zoo.orca.learn.graph.measures import Measure, fresh_measures
from zoo.orca.learn.graph.outputs import (
    evaluator,
    predictor,
    predictor_of,
    sent_evaluator,
    sent_model,
)
from zoo.orca.learn.graph.recipe import Recipe
from zoo.orca.learn.graph.rehearsal import as_taken, try_loss
from zoo.orca.learn.graph.scorer import Scorer
from zoo.orca.learn.graph.state import apply_state, read_state, write_state
from zoo.orca.learn.order import LoaderSource, Order, Source
from zoo.orca.learn.rank.array_batches import ArrayBatches
from zoo.orca.learn.rank.loop import Loop
from zoo.orca.learn.rank.opening import open_feed
from zoo.orca.learn.score.evaluate import SentEvaluator
from zoo.orca.learn.score.predict import Predictor, SentModel
from zoo.orca.learn.steps import Position
from zoo.orca.learn.tfdata.batches import open_dataset

__all__ = ["Graph"]


class Graph:
    """See `zoo.orca.learn.framework.Framework`."""

    title = "TensorFlow"
    other_settings = (
        "make the graph with them, and load the weights alone, by load_tf_checkpoint of another "
        "estimator"
    )

    def build(self, recipe: Recipe) -> Built:
        """See `Framework`; variables have the values that the recipe gives them."""
        built = Built(recipe)
        built.program.load(recipe.values)
        return built

    def begin(self, order: Order, member: Member) -> Built:
        """See `Framework`; variables are empty until a state is applied."""
        return Built(unpickled(order.recipe), order.threads)

    def write(
        self, file: BinaryIO, built: Built, position: Position, extras: Mapping[str, Any]
    ) -> None:
        """See `Framework`."""
        if built.adds_up is None:
            _try_by_shapes(built)
        write_state(file, built, position, extras)

    def read(self, blob: bytes) -> State:
        """See `Framework`."""
        return read_state(blob)

    def apply(self, built: Built, state: State) -> Position:
        """See `Framework`."""
        return apply_state(built, state)

    def settings(self, built: Built) -> dict[str, Any]:
        """See `Framework`; nothing: rates and such are part of the graph, and not of a state."""
        return {}

    def open(self, source: Source, member: Member) -> Feed:
        """See `Framework`."""
        if isinstance(source, LoaderSource):
            return InOrder(open_dataset(source, member))
        return ArrayBatches(open_feed(source, member), source.plan)

    def learner(
        self, built: Built, order: Order, place: Place, validation: Feed | None
    ) -> GraphLearner:
        """See `Framework`."""
        return GraphLearner(
            built, place, seed=order.seed, validation=validation, metrics=order.metrics,
            limits=order.limits,
        )  # fmt: skip

    def loop(self, learner: GraphLearner) -> type[Loop]:
        """See `Framework`."""
        return Loop

    def evaluate(self, built: Built, order: Order, feed: Feed) -> Scorer:
        """See `Framework`."""
        scorer = Scorer(built, order.metrics)
        scorer.run(feed.epoch(0))
        return scorer

    def metrics(self, given: Any) -> dict[str, Measure]:
        """See `Framework`; the estimator gives names of tensors, and metrics of the library."""
        return fresh_measures(given)

    def scorer(self, built: Built, metrics: Mapping[str, Measure]) -> Scorer:
        """See `Framework`."""
        return Scorer(built, metrics)

    def evaluator(
        self, built: Built, metrics: Mapping[str, Measure], info: Mapping[str, Any]
    ) -> SentEvaluator:
        """See `Framework`."""
        return SentEvaluator(sent_evaluator(built, metrics), evaluator)

    def predictors(self, built: Built, output: str) -> tuple[SentModel, Predictor]:
        """See `Framework`."""
        if output != "raw":
            raise InputError(
                "output='raw' of a graph", repr(output),
                "Name tf.nn.softmax(logits) or tf.argmax(logits, 1) as an output of the graph.",
            )  # fmt: skip
        here = predictor_of(built)
        return SentModel(sent_model(built), predictor), here

    def as_given(self, built: Built, *, live: bool) -> dict[str, np.ndarray]:
        """See `Framework`: values of the user's variables by name, always a copy."""
        return built.program.values([v.name for v in built.recipe.variables if v.own])

    def float_dtype(self, built: Built) -> str:
        """See `Framework`."""
        kinds = [p.dtype for p in (*built.recipe.inputs, *built.recipe.labels)]
        return "float64" if "float64" in kinds and "float32" not in kinds else "float32"

    def takes_one_input(self, built: Built) -> bool:
        """See `Framework`."""
        return len(built.recipe.inputs) == 1

    def takes_text(self, built: Built) -> bool:
        """See `Framework`."""
        return any(port.dtype == "string" for port in built.recipe.inputs)

    def creator(self, data: Any) -> Any:
        """See `Framework`."""
        return data

    def require_row_losses(self, built: Built) -> None:
        """See `Framework`."""
        if not built.recipe.of_rows:
            raise InputError(
                "a loss of each row, a tensor of shape (rows,), to weigh rows with",
                "one number for a batch",
                "Leave out tf.reduce_mean, or pass reduction='none' to the loss: of the losses of "
                "rows the mean is taken.",
            )

    def as_taken(
        self,
        built: Built,
        plan: TensorPlan,
        fixed: frozenset[str],
        predictor: Predictor | None = None,
    ) -> TensorPlan:
        """See `Framework`."""
        return as_taken(built, plan, fixed)


def _try_by_shapes(built: Built) -> None:
    """See how the loss adds up, by the shapes of the placeholders alone."""
    recipe = built.recipe
    ports = (*recipe.inputs, *recipe.labels)
    if recipe.loss is None or recipe.step is None:
        return
    if all(p.shape is not None and None not in p.shape[1:] for p in ports):
        shapes = {p.name: (p.dtype, tuple(s or 0 for s in (p.shape or ())[1:])) for p in ports}
        with contextlib.suppress(InputError):  # a fit would say what is missing
            try_loss(built, shapes)
