"""What the driver and the ranks ask of a framework, and the table of those that there are.

A framework is a folder beside this file. It knows models, optimizers and tensors; it knows nothing
of tasks, rounds, shards and other ranks. Everything here is called from one thread.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Protocol

import numpy as np

from zoo.cluster.ranks.member import Member
from zoo.orca.data.tensors.plan import TensorPlan
from zoo.orca.learn.order import Order, Source
from zoo.orca.learn.score.evaluate import SentEvaluator
from zoo.orca.learn.score.predict import Predictor, SentModel
from zoo.orca.learn.steps import EpochStats, Position, StepSums

__all__ = [
    "FRAMEWORKS",
    "Built",
    "Feed",
    "Framework",
    "Learner",
    "Place",
    "Recipe",
    "Scorer",
    "State",
    "Sums",
    "framework_for",
]

FRAMEWORKS = {
    "graph": "zoo.orca.learn.graph.framework:Graph",
    "keras-jax": "zoo.orca.learn.keras.process:on_jax",
    "keras-tensorflow": "zoo.orca.learn.keras.process:on_tensorflow",
    "keras-torch": "zoo.orca.learn.keras.process:on_torch",
    "linear": "zoo.orca.learn.linear.framework:Linear",
    "pytorch": "zoo.orca.learn.pytorch.framework:Torch",
}

Sums = Any
"""What a scorer adds up: plain values that JSON takes, and that travel between ranks."""


@dataclass(frozen=True)
class Place:
    """Which rank of how many.

    Attributes:
        rank: Its number.
        size: Ranks of the world.
    """

    rank: int = 0
    size: int = 1


@dataclass(frozen=True)
class State:
    """A saved state, read and not yet put anywhere.

    Attributes:
        position: Where training stands.
        tree: The whole content; of a file with nothing but weights, these under `model`.
        whole: False for a file with nothing but weights.
        extras: What the training remembers besides: statistics, callbacks, data.
    """

    position: Position
    tree: Mapping[str, Any]
    whole: bool = True
    extras: Mapping[str, Any] = field(default_factory=dict)


class Recipe(Protocol):
    """What the user gave to build a training from. It travels to the ranks."""

    @property
    def config(self) -> Mapping[str, Any]:
        """Handed to creator functions; its `seed` and `shuffle` are those of the order of rows."""

    @property
    def compares(self) -> bool:
        """Whether a loss compares outputs with targets, so that targets are needed."""

    def doubts(self, *, labels: bool) -> list[str]:
        """What a fit says before it begins: what the user may have forgotten to give.

        Args:
            labels: Columns of targets are given.
        """

    @property
    def makes_weights(self) -> bool:
        """Whether a function of the user's makes the model, which then has no trained weights."""

    def describe(self) -> dict[str, Any]:
        """What loggers write down: plain values by name."""


class Built(Protocol):
    """A recipe carried out: what is trained."""

    @property
    def model(self) -> Any:
        """The model, as callbacks see it."""

    @property
    def optimizer(self) -> Any:
        """The optimizer, as callbacks see it."""

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""


class Feed(Protocol):
    """The batches of one rank.

    Attributes:
        steps: Steps of an epoch, the same on every rank; None when ranks may have unequal numbers.
    """

    steps: int | None

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """Batches from step `start` on; None for a step in which this rank has no rows."""


class Learner(Protocol):
    """A model in training, in whatever framework.

    A step is `begin_step`, `backward`, the sum of `buffers` over the ranks, `update`: it depends on
    weights, optimizer, the number of the step and its rows, and on nothing else. A learner that
    derives from this class leaves out what it has no use for.
    """

    def buffers(self) -> list[np.ndarray]:
        """1-D arrays that `backward` fills with sums over this rank's rows."""

    def begin_epoch(self, epoch: int) -> None:
        """Prepare for an epoch."""
        return None

    def begin_step(self, iteration: int) -> None:
        """Prepare for a step: its randomness depends on its number and the rank alone."""
        return None

    def backward(self, batch: Any, sums: StepSums) -> None:
        """Compute gradients of a batch into the buffers; without one, clear them."""

    def update(self, sums: StepSums) -> None:
        """Take the optimizer's step, from buffers summed over the ranks."""

    def restore(self) -> None:
        """Undo what a step that is not taken has changed."""
        return None

    def remainder(self, own_rows: int) -> list[np.ndarray]:
        """What ranks add up at the end of an epoch besides: 1-D arrays, none when there is nothing.

        Args:
            own_rows: Rows of this rank in the epoch.
        """
        return []

    def settle(self) -> None:
        """Take the sums of `remainder`."""
        return None

    def score(self) -> Sums | None:
        """Score this rank's part of the validation data; None when there is none."""
        return None

    def scored(self, parts: Sequence[Sums]) -> dict[str, Any]:
        """Loss and metrics by name, from what all ranks scored."""
        return {}

    def end_epoch(self, stats: EpochStats) -> None:
        """Advance what advances once an epoch."""
        return None


class Scorer(Protocol):
    """Loss and metrics of batches, as sums that add over ranks and partitions."""

    def sums(self) -> Sums:
        """What to add up with the other parts of the data."""

    def result(self, parts: Sequence[Sums]) -> dict[str, Any]:
        """Loss and metrics of all parts together."""


class Framework(Protocol):
    """One way to build, train and score models.

    Attributes:
        title: What messages call it.
        other_settings: What to do to train on with other settings than those of a saved state.
    """

    title: str
    other_settings: str

    def build(self, recipe: Any) -> Any:
        """On the driver: carry out a recipe, with first weights; a `Built`."""

    def begin(self, order: Order, member: Member) -> Any:
        """In a rank: carry out the recipe on the rank's device, with its threads.

        Returns:
            A `Built` with first weights; `apply` gives it those of the state.
        """

    def write(
        self, file: BinaryIO, built: Any, position: Position, extras: Mapping[str, Any]
    ) -> None:
        """Write the state over what is in a file in memory, as a zip archive of its own format."""

    def read(self, blob: bytes) -> State:
        """Read what `write` wrote; nothing in it is run.

        Raises:
            InputError: It is no state.
        """

    def apply(self, built: Any, state: State) -> Position:
        """Put a state into what was built.

        Raises:
            InputError: It is of another model; then nothing was changed.
        """

    def settings(self, built: Any) -> dict[str, Any]:
        """What the program has asked for and a state brings along: plain values by name."""

    def open(self, source: Source, member: Member) -> Feed:
        """The batches of a rank; every rank calls this at the same point."""

    def learner(self, built: Any, order: Order, place: Place, validation: Feed | None) -> Learner:
        """What takes the steps of a rank."""

    def loop(self, learner: Any) -> type[Any]:
        """The class of the loop that suits a learner: `Loop`, or one made from it."""

    def evaluate(self, built: Any, order: Order, feed: Feed) -> Scorer:
        """In a rank: score all batches of a feed."""

    def metrics(self, given: Any) -> dict[str, Any]:
        """Fresh running metrics by name.

        Args:
            given: As the user gave them.

        Raises:
            InputError: Something is no metric.
        """

    def scorer(self, built: Any, metrics: Mapping[str, Any]) -> Scorer:
        """On the driver: puts together what ranks or tasks have scored."""

    def evaluator(
        self, built: Any, metrics: Mapping[str, Any], info: Mapping[str, Any]
    ) -> SentEvaluator:
        """What scores in tasks that are no ranks, as it is now."""

    def predictors(self, built: Any, output: str) -> tuple[SentModel, Predictor]:
        """What predicts in tasks, as it is now, and the same for a few rows on the driver.

        Args:
            built: What was trained.
            output: `raw`, `probability` or `class`.

        Raises:
            InputError: The outputs cannot be read so.
        """

    def as_given(self, built: Any, *, live: bool) -> Any:
        """The model in the form in which the user gave it, with the weights there are.

        Args:
            built: What is trained.
            live: The very model instead of a copy.
        """

    def float_dtype(self, built: Any) -> str:
        """What floating-point columns become: `float32` or `float64`."""

    def takes_one_input(self, built: Any) -> bool:
        """Whether the model is called with one argument, so columns become one matrix."""

    def takes_text(self, built: Any) -> bool:
        """Whether features may be texts: arrays of bytes, `zoo.orca.data.tensors.plan.TEXT`."""

    def creator(self, data: Any) -> Any:
        """A function that makes in a rank what the framework loads data with, of one that is given.

        Args:
            data: Anything; what is no such thing comes back as it is.

        Raises:
            InputError: It cannot be sent to the ranks.
        """

    def require_row_losses(self, built: Any) -> None:
        """Refuse to weigh rows where there is no loss of single rows.

        Raises:
            InputError: There is none.
        """

    def as_taken(
        self,
        built: Any,
        plan: TensorPlan,
        fixed: frozenset[str],
        predictor: Predictor | None = None,
    ) -> TensorPlan:
        """The layout in the types that model and loss take, where one reading of a column fits.

        Args:
            built: What is trained.
            plan: From the schema.
            fixed: Columns whose type the user has chosen.
            predictor: Is tried in the place of the model, and may remember what it said.

        Raises:
            ColumnError: None fits.
        """


def framework_for(name: str) -> Framework:
    """The framework of that name."""
    module, _, attribute = FRAMEWORKS[name].partition(":")
    made: Framework = getattr(importlib.import_module(module), attribute)()
    return made
