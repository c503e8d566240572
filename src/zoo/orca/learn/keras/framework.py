"""Keras, as the driver and the ranks ask for it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, BinaryIO

import keras

from zoo.cluster.ranks.carried import unpickled
from zoo.cluster.ranks.member import Member
from zoo.errors import InputError
from zoo.orca.data.tensors.plan import TensorPlan
from zoo.orca.learn.framework import Feed, Learner, Place, State
from zoo.orca.learn.keras.backends import start_backend
from zoo.orca.learn.keras.built import Built, float_dtype, takes_one_input
from zoo.orca.learn.keras.learner import KerasLearner
from zoo.orca.learn.keras.losses import require_reduction
from zoo.orca.learn.keras.metrics import GivenMetric, given_metrics
from zoo.orca.learn.keras.readings import reading_of
from zoo.orca.learn.keras.recipe import Recipe, make_model
from zoo.orca.learn.keras.rehearsal import as_taken
from zoo.orca.learn.keras.scorer import Scorer
from zoo.orca.learn.keras.sent_model import evaluator, local_predictor, predictor, sent
from zoo.orca.learn.keras.state import apply_state, read_state, settings_of, write_state
from zoo.orca.learn.order import LoaderSource, Order, Source
from zoo.orca.learn.rank.array_batches import ArrayBatches, Batch
from zoo.orca.learn.rank.loop import Loop
from zoo.orca.learn.rank.opening import open_feed
from zoo.orca.learn.score.evaluate import SentEvaluator
from zoo.orca.learn.score.predict import Predictor, SentModel
from zoo.orca.learn.steps import Position

__all__ = ["Keras"]

_log = logging.getLogger(__name__)


class Keras:
    """See `zoo.orca.learn.framework.Framework`."""

    title = "Keras"
    other_settings = (
        "set run.optimizer.learning_rate in a callback, or load weights alone, which Keras has "
        "saved as .weights.h5"
    )

    def __init__(self) -> None:
        self._example: Batch | None = None

    def build(self, recipe: Recipe) -> Built:
        """Carry out a recipe on the driver; a model that was given is trained itself."""
        built = Built(make_model(recipe), recipe)
        built.ready()
        return built

    def begin(self, order: Order, member: Member) -> Built:
        """See `Framework`."""
        start_backend(order.threads)
        recipe: Recipe = unpickled(order.recipe)
        recipe.setup.take()
        return self.build(recipe)

    def write(
        self, file: BinaryIO, built: Built, position: Position, extras: Mapping[str, Any]
    ) -> None:
        """See `Framework`."""
        write_state(file, built, position, extras)

    def read(self, blob: bytes) -> State:
        """See `Framework`."""
        return read_state(blob)

    def apply(self, built: Built, state: State) -> Position:
        """See `Framework`."""
        return apply_state(built, state)

    def settings(self, built: Built) -> dict[str, Any]:
        """See `Framework`."""
        return settings_of(built)

    def open(self, source: Source, member: Member) -> Feed:
        """See `Framework`."""
        feed: Any
        if isinstance(source, LoaderSource):
            from zoo.orca.learn.tfdata.batches import open_dataset

            feed = open_dataset(source, member)
        else:
            feed = ArrayBatches(open_feed(source, member, threads=1), source.plan)
        self._example = self._example or feed.example()
        found: Feed = feed
        return found

    def learner(self, built: Built, order: Order, place: Place, validation: Feed | None) -> Learner:
        """See `Framework`."""
        assert self._example is not None
        return KerasLearner(
            built,
            place,
            self._example,
            seed=order.seed,
            until=order.until,
            validation=validation,
            given=order.metrics,
            limits=order.limits,
        )

    def loop(self, learner: Learner) -> type[Loop]:
        """See `Framework`."""
        return Loop

    def evaluate(self, built: Built, order: Order, feed: Feed) -> Scorer:
        """See `Framework`."""
        scorer = Scorer(built, order.metrics)
        scorer.run(feed.epoch(0))
        return scorer

    def metrics(self, given: Any) -> dict[str, GivenMetric]:
        """See `Framework`."""
        return given_metrics(given)

    def scorer(self, built: Built, metrics: Mapping[str, GivenMetric]) -> Scorer:
        """See `Framework`."""
        return Scorer(built, metrics)

    def evaluator(
        self, built: Built, metrics: Mapping[str, GivenMetric], info: Mapping[str, Any]
    ) -> SentEvaluator:
        """See `Framework`."""
        return SentEvaluator(sent(built, metrics), evaluator)

    def predictors(self, built: Built, output: str) -> tuple[SentModel, Predictor]:
        """See `Framework`."""
        if not built.model.built:
            raise InputError(
                "a model that has its weights, to predict with them", f"{built.model.name!r}",
                "Begin it with keras.Input(shape=...), or call fit or load first.",
            )  # fmt: skip
        reading = reading_of(built.model, output)
        return SentModel(sent(built, reading=reading), predictor), local_predictor(built, reading)

    def as_given(self, built: Built, *, live: bool) -> Any:
        """The user's own model where one was given, else a copy."""
        if live or not built.recipe.makes_weights:
            return built.model
        copied = make_model(built.recipe)
        again = Built(copied, built.recipe)
        again.ready(built.layout)
        for variable, value in zip(copied.weights, built.model.weights, strict=True):
            variable.assign(value)
        return copied

    def float_dtype(self, built: Built) -> str:
        """See `Framework`."""
        return float_dtype(built.model)

    def takes_one_input(self, built: Built) -> bool:
        """See `Framework`."""
        return takes_one_input(built.model)

    def takes_text(self, built: Built) -> bool:
        """See `Framework`: layers that look texts up inside a model need TensorFlow."""
        return bool(keras.backend.backend() == "tensorflow")

    def creator(self, data: Any) -> Any:
        """See `Framework`; a `tf.data.Dataset` becomes shards."""
        if not type(data).__module__.startswith("tensorflow."):
            return data
        from zoo.orca.learn.tfdata.given_dataset import given_dataset

        return given_dataset(data)

    def require_row_losses(self, built: Built) -> None:
        """See `Framework`; a loss that gives one number for all rows is found out when tried."""
        if built.model.compiled:
            require_reduction(built.model)

    def as_taken(
        self,
        built: Built,
        plan: TensorPlan,
        fixed: frozenset[str],
        predictor: Predictor | None = None,
    ) -> TensorPlan:
        """See `Framework`."""
        return as_taken(built, plan, fixed, predictor)
