"""A linear model in numpy, as the driver and the ranks ask for it.

It trains in double precision with momentum, needs nothing but numpy, and shows what a framework is:
rounds, sources, snapshots and resume are tested with it, without torch and without Spark.
"""

from __future__ import annotations

import copy
import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO

import numpy as np

from zoo.cluster.ranks.carried import pickled, unpickled
from zoo.cluster.ranks.member import Member
from zoo.errors import InputError
from zoo.orca.data.tensors.plan import TensorPlan
from zoo.orca.learn.framework import Feed, Learner, Place, State
from zoo.orca.learn.order import LoaderSource, Order, Source
from zoo.orca.learn.rank.feed import TensorFeed
from zoo.orca.learn.rank.loop import Loop
from zoo.orca.learn.rank.opening import open_feed
from zoo.orca.learn.score.evaluate import SentEvaluator
from zoo.orca.learn.score.predict import Predictor, SentModel
from zoo.orca.learn.steps import Position, StepSums

__all__ = ["Linear", "LinearModel", "LinearRecipe"]

_FORMAT = "zoo-linear-1"


@dataclass(frozen=True)
class LinearRecipe:
    """What to train.

    Attributes:
        inputs: Columns of the features, side by side.
        rate: The learning rate.
        momentum: Of the update before, what is left in the next.
        config: Handed to data creators; its `seed` is that of the order of rows.
        compares: Targets are needed.
        makes_weights: The model begins with zeros.
    """

    inputs: int
    rate: float = 0.1
    momentum: float = 0.9
    config: Mapping[str, Any] = field(default_factory=dict)
    compares: bool = True
    makes_weights: bool = True

    def doubts(self, *, labels: bool) -> list[str]:
        """Nothing can be forgotten."""
        return []

    def describe(self) -> dict[str, Any]:
        """What loggers write down."""
        return {"rate": self.rate, "momentum": self.momentum}


@dataclass
class LinearModel:
    """A recipe carried out: model, optimizer and all.

    Attributes:
        recipe: How it trains.
        weights: One for each input, then the constant.
        speed: What momentum goes on with.
    """

    recipe: LinearRecipe
    weights: np.ndarray = field(init=False)
    speed: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.weights, self.speed = np.zeros((2, self.recipe.inputs + 1))
        self.model = self.optimizer = self

    @property
    def learning_rate(self) -> float:
        """See `Built`."""
        return self.recipe.rate

    def errors(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Outputs less targets."""
        return np.asarray(self.outputs([x]) - y)

    def outputs(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        """Predict."""
        return np.asarray(np.column_stack(arrays) @ self.weights[:-1] + self.weights[-1])


class Batches:
    """Pairs of arrays, of a feed or of a list that a creator function made."""

    def __init__(self, given: TensorFeed | Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
        self._given = given
        self.steps: int | None = given.steps if isinstance(given, TensorFeed) else None

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray] | None]:
        """See `Feed`."""
        if not isinstance(self._given, TensorFeed):
            yield from self._given[start:]
            return
        for starts, arrays in self._given.epoch(epoch, start):
            for low, high in zip(starts[:-1], starts[1:], strict=True):
                *parts, y = (a[low:high].astype(np.float64) for a in arrays)
                x = np.column_stack(parts)
                yield (x, y.reshape(len(x))) if len(x) else None


class LinearLearner(Learner):
    """Least squares by gradient descent; see `Learner`."""

    def __init__(self, built: LinearModel, validation: Feed | None) -> None:
        self._built, self._validation = built, validation
        self._gradient = np.zeros_like(built.weights)

    def buffers(self) -> list[np.ndarray]:
        return [self._gradient]

    def backward(self, batch: Any, sums: StepSums) -> None:
        self._gradient[:] = 0.0
        if batch is None:
            sums.set(0, 0.0, 0.0)
            return
        x, y = batch
        errors = self._built.errors(x, y)
        self._gradient[:-1], self._gradient[-1] = 2 * errors @ x, 2 * errors.sum()
        sums.set(len(y), float(len(y)), float(errors @ errors))

    def update(self, sums: StepSums) -> None:
        built = self._built
        built.speed[:] = built.recipe.momentum * built.speed + self._gradient / (sums.weight or 1.0)
        built.weights -= built.recipe.rate * built.speed

    def score(self) -> Any:
        if self._validation is None:
            return None
        scorer = SquaredErrors(self._built)
        scorer.run(self._validation.epoch(0))
        return scorer.sums()

    def scored(self, parts: Sequence[Any]) -> dict[str, float]:
        return _means(parts)


class SquaredErrors:
    """Rows and squared errors; see `Scorer` and `Evaluator`."""

    def __init__(self, built: LinearModel) -> None:
        self._built, self._sums = built, [0.0, 0.0]

    def run(self, batches: Iterable[Sequence[np.ndarray] | None]) -> None:
        for *parts, y in (batch for batch in batches if batch is not None):
            errors = self._built.errors(np.column_stack(parts), y.reshape(len(y)))
            self._sums[0] += len(errors)
            self._sums[1] += float(errors @ errors)

    def sums(self) -> list[list[float]]:
        return [self._sums]

    def result(self, parts: Sequence[Any]) -> dict[str, float]:
        return _means(parts)


def _opened(blob: bytes) -> Predictor:
    model: LinearModel = unpickled(blob)
    return model.outputs


def _means(parts: Sequence[Any]) -> dict[str, float]:
    rows, total = np.sum(parts, axis=0)[0]
    return {"val_loss": float(total / rows) if rows else float("nan")}


class Linear:
    """See `zoo.orca.learn.framework.Framework`."""

    title, other_settings = "linear", "make another recipe"

    def build(self, recipe: LinearRecipe) -> LinearModel:
        return LinearModel(recipe)

    def begin(self, order: Order, member: Member) -> LinearModel:
        return LinearModel(unpickled(order.recipe))

    def write(
        self, file: BinaryIO, built: LinearModel, position: Position, extras: Mapping[str, Any]
    ) -> None:
        file.seek(0)
        facts = {"format": _FORMAT, "position": asdict(position), "extras": dict(extras)}
        np.savez(file, facts=json.dumps(facts), weights=built.weights, speed=built.speed)
        file.truncate()

    def read(self, blob: bytes) -> State:
        try:
            with np.load(io.BytesIO(blob), allow_pickle=False) as held:
                facts, tree = json.loads(str(held["facts"])), {n: held[n] for n in held.files}
            return State(Position(**facts["position"]), tree, extras=facts["extras"])
        except (EOFError, OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as exc:
            raise InputError("a saved linear model", str(exc), "Check the path.") from exc

    def apply(self, built: LinearModel, state: State) -> Position:
        if state.tree["weights"].shape != built.weights.shape:
            received = f"{state.tree['weights'].size} of them"
            raise InputError(f"{built.weights.size} weights", received, "Check the path.")
        built.weights[:], built.speed[:] = state.tree["weights"], state.tree["speed"]
        return Position(**asdict(state.position))

    def settings(self, built: LinearModel) -> dict[str, Any]:
        return asdict(built.recipe)

    def open(self, source: Source, member: Member) -> Batches:
        if isinstance(source, LoaderSource):
            place = {"rank": member.rank, "size": member.size}
            return Batches(source.creator({**source.config, **place}, source.batch_size))
        return Batches(open_feed(source, member))

    def learner(
        self, built: LinearModel, order: Order, place: Place, validation: Feed | None
    ) -> LinearLearner:
        return LinearLearner(built, validation)

    def loop(self, learner: LinearLearner) -> type[Loop]:
        return Loop

    def evaluate(self, built: LinearModel, order: Order, feed: Feed) -> SquaredErrors:
        scorer = SquaredErrors(built)
        scorer.run(feed.epoch(0))
        return scorer

    def metrics(self, given: Any) -> dict[str, Any]:
        if given:
            raise InputError("no metrics", repr(given), "The loss is all that there is here.")
        return {}

    def scorer(self, built: LinearModel, metrics: Mapping[str, Any]) -> SquaredErrors:
        return SquaredErrors(built)

    def evaluator(
        self, built: LinearModel, metrics: Mapping[str, Any], info: Mapping[str, Any]
    ) -> SentEvaluator:
        return SentEvaluator(pickled(built, "a model"), lambda b, _: SquaredErrors(unpickled(b)))

    def predictors(self, built: LinearModel, output: str) -> tuple[SentModel, Predictor]:
        if output != "raw":
            raise InputError("output='raw'", repr(output), "Numbers are no classes.")
        return SentModel(
            pickled(built, "a model"), lambda blob: unpickled(blob).outputs
        ), built.outputs

    def as_given(self, built: LinearModel, *, live: bool) -> LinearModel:
        return built if live else copy.deepcopy(built)

    def float_dtype(self, built: LinearModel) -> str:
        return "float64"

    def takes_one_input(self, built: LinearModel) -> bool:
        return True

    def takes_text(self, built: LinearModel) -> bool:
        return False

    def creator(self, data: Any) -> Any:
        return data

    def require_row_losses(self, built: LinearModel) -> None:
        raise InputError("rows without weights", "weights", "All rows count alike here.")

    def as_taken(
        self,
        built: LinearModel,
        plan: TensorPlan,
        fixed: frozenset[str],
        predictor: Predictor | None = None,
    ) -> TensorPlan:
        return plan
