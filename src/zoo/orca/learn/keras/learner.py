"""A Keras model in training on one rank, whatever the backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.errors import InputError
from zoo.orca.learn.framework import Feed, Learner, Place, Sums
from zoo.orca.learn.keras.backends import Found, backend_for
from zoo.orca.learn.keras.built import Built, step_seeds
from zoo.orca.learn.keras.gradients import FlatGradients, MovingStatistics
from zoo.orca.learn.keras.losses import adds_up
from zoo.orca.learn.keras.metrics import KerasMetrics, running_metrics
from zoo.orca.learn.keras.preparing import prepare, try_metrics
from zoo.orca.learn.keras.scorer import Scorer, weight_of
from zoo.orca.learn.rank.array_batches import Batch
from zoo.orca.learn.steps import EpochStats, GradientLimits, StepSums

__all__ = ["KerasLearner"]

# Steps after which sums of metrics move into double precision: Keras has them in single.
_MOVE = 64


class KerasLearner(Learner):
    """Trains what a recipe built.

    Args:
        built: The model, whose losses say what they weigh from now on.
        place: This rank among the ranks.
        example: Rows like those to come, made the same by every rank.
        seed: Of dropout and other randomness in the model.
        until: Epochs done when the fit is over.
        validation: The validation batches, or None.
        given: Metrics computed on them besides those of the model.
        limits: For gradients, or None.
    """

    def __init__(  # noqa: PLR0913 - one for each part of a training
        self,
        built: Built,
        place: Place,
        example: Batch,
        *,
        seed: int,
        until: int,
        validation: Feed | None = None,
        given: Mapping[str, Any] | None = None,
        limits: GradientLimits | None = None,
    ) -> None:
        self._weighing = built.weigh()
        self._built, self._place, self._seed, self._until = built, place, seed, until
        self._validation, self._given = validation, dict(given or {})
        self._metrics: KerasMetrics = running_metrics({}, built.model)
        prepare(built, self._metrics, example)
        self._adds_up = adds_up(built.model)
        self._alone = place.size == 1
        if self._adds_up and not self._alone:
            _require_no_penalties(built)
        self._backend = backend_for(built, self._metrics, limits)
        self._random = len(built.seeds())
        self._seeds = step_seeds(seed, 0, place.rank, self._random)
        self._gradients: list[Any] = []
        self._flat: FlatGradients | None = None
        self._moving: MovingStatistics | None = None
        self._measured = np.zeros(self._metrics.size)
        self._total = np.zeros(self._metrics.size)
        self._arrays: list[np.ndarray] = []
        self._steps, self._scorer = 0, Scorer(built, self._given)
        if not self._alone:
            self._flat = FlatGradients(built.model.trainable_weights)
            self._moving = MovingStatistics(built.model)
            self._arrays = [*self._flat.arrays, *self._moving.arrays]
            self._arrays += [self._measured] if self._measured.size else []
        self._epoch: int | None = None
        if built.begun is not None:
            self._total[:] = built.begun
        built.running = self._running

    def buffers(self) -> list[np.ndarray]:
        """Flat gradients, what layers keep, metrics; none when this is the only rank."""
        return self._arrays

    def begin_epoch(self, epoch: int) -> None:
        """Metrics begin anew, unless the epoch goes on that a state was written in."""
        if self._epoch is not None or self._built.begun is None:
            self._total[:] = 0.0
            self._metrics.take()
        self._epoch = epoch

    def begin_step(self, iteration: int) -> None:
        """Choose the randomness of a step: it is the same whenever the step is taken."""
        self._seeds = step_seeds(self._seed, iteration, self._place.rank, self._random)

    def backward(self, batch: Batch | None, sums: StepSums) -> None:
        """Gradients of a batch, weighted so that they add up over the ranks."""
        if batch is None:
            sums.set(0, 0.0, 0.0)
            for array in self._arrays:
                array[:] = 0.0
            return
        try_metrics(self._built, self._metrics, self._backend, batch)
        found = self._backend.backward(batch, self._seeds)
        weight = float(batch.rows) if self._adds_up else self._weight(found, batch)
        value = found.loss if self._adds_up else found.loss * weight if weight else 0.0
        sums.set(batch.rows, weight, value)
        self._gradients = found.gradients
        if self._flat is None:
            return
        assert self._moving is not None
        numbers = [None if g is None else self._backend.numbers(g) for g in found.gradients]
        self._flat.gather(numbers, 1.0 if self._adds_up else weight)
        self._moving.gather(batch.rows)
        self._measured[:] = self._metrics.take()

    def _weight(self, found: Found, batch: Batch) -> float:
        weight = weight_of(found, batch)
        if weight is not None:
            return weight
        if self._alone:
            return batch.weight
        raise InputError(
            "outputs whose masks leave equal numbers of entries, to train on several ranks",
            f"outputs that leave {sorted(w for w in found.weights if w is not None)} of them",
            "Train on one rank (workers_per_node=1, max_workers=1), or let one loss, in an "
            "overridden compute_loss, compare all outputs.",
        )

    def update(self, sums: StepSums) -> None:
        """One step of the optimizer."""
        gradients = self._gradients
        if self._flat is not None:
            assert self._moving is not None
            gradients = self._flat.mean(1.0 if self._adds_up else sums.weight or 1.0)
            self._moving.scatter(sums.rows)
            self._total += self._measured
        self._backend.update(gradients)
        self._gradients = []
        self._steps += 1
        if self._steps % _MOVE == 0:
            self._running()

    def restore(self) -> None:
        """Undo what a step that was cut off has changed."""
        if self._moving is not None:
            self._moving.restore()

    def _running(self) -> list[float]:
        """The sums of the metrics in this epoch."""
        if self._alone:
            self._total += self._metrics.take()
        found: list[float] = self._total.tolist()
        return found

    def score(self) -> Sums | None:
        """Score this rank's part of the validation data."""
        if self._validation is None:
            return None
        self._running()  # metrics of the model are used for both
        self._scorer.begin()
        self._scorer.run(self._validation.epoch(0))
        return self._scorer.sums()

    def scored(self, parts: Sequence[Sums]) -> dict[str, Any]:
        """See `Learner`."""
        return self._scorer.result(parts)

    def end_epoch(self, stats: EpochStats) -> None:
        """Tell the metrics of the epoch; with the last one, averages of weights take their place.

        These are the moving averages of an optimizer with `use_ema`.
        """
        self._running()
        values = self._metrics.values(self._total)
        stats.extra |= {n: float(v) for n, v in values.items() if isinstance(v, int | float)}
        if stats.epoch == self._until and self._built.optimizer is not None:
            self._built.optimizer.finalize_variable_values(self._built.model.trainable_weights)


def _require_no_penalties(built: Built) -> None:
    """Refuse losses that add up beside penalties, which each rank would add once.

    Raises:
        InputError: The model has both.
    """
    if built.model.losses:
        raise InputError(
            "losses with reduction='sum_over_batch_size' beside regularizers and add_loss, on "
            "several ranks",
            "losses with reduction='sum'",
            "Use the mean, or train on one rank: workers_per_node=1, max_workers=1.",
        )
