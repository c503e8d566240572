"""A graph in training on one rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from zoo.errors import InputError
from zoo.orca.learn.framework import Feed, Learner, Place, Sums
from zoo.orca.learn.graph.batches import feeds_of, weighed
from zoo.orca.learn.graph.built import Built
from zoo.orca.learn.graph.gradients import FlatArrays, clip
from zoo.orca.learn.graph.measures import Measure
from zoo.orca.learn.graph.scorer import Scorer
from zoo.orca.learn.rank.array_batches import Batch
from zoo.orca.learn.steps import EpochStats, GradientLimits, StepSums

__all__ = ["GraphLearner"]


class GraphLearner(Learner):
    """Takes the steps of a rank; see `Learner`.

    Args:
        built: The graph, and how it is trained.
        place: This rank among the ranks.
        seed: Of random operations.
        validation: The validation batches, or None.
        metrics: Computed on them.
        limits: For gradients, or None.

    Raises:
        InputError: There is nothing to train with, or the loss of a batch does not follow from
            those of the parts that the ranks have.
    """

    def __init__(
        self,
        built: Built,
        place: Place,
        *,
        seed: int = 0,
        validation: Feed | None = None,
        metrics: Mapping[str, Measure] | None = None,
        limits: GradientLimits | None = None,
    ) -> None:
        step = built.recipe.step
        assert step is not None, "the estimator asks for loss and optimizer"
        self._built, self._step, self._place, self._seed = built, step, place, seed
        self._validation, self._metrics, self._limits = validation, dict(metrics or {}), limits
        if built.adds_up == "mixed" and place.size > 1:
            raise InputError(
                "a loss that is the mean of the losses of its rows, or their sum",
                "one that is neither, such as a sum plus a penalty, or one that compares rows",
                "Give the loss of each row, a tensor of shape (rows,), whose mean is taken; or "
                "train on one rank with max_workers=1.",
            )
        of = {v.name: v for v in built.recipe.variables}
        self._gradients = FlatArrays([(g.dtype, g.shape) for g in step.gradients])
        self._tables = [g for g in step.gradients if g.seen is not None]
        self._seen = FlatArrays([("float32", g.shape[:1]) for g in self._tables])
        # In double precision whole numbers keep their digits.
        self._state = FlatArrays([("float64", of[name].shape) for name in step.state])
        self._kinds = [of[name].dtype for name in step.state]
        self._whole = built.program.values(step.state)
        self._fixed = built.program.fixed(["training", "loss"], training=True)
        self._for_update = built.program.fixed(["optimizer"], training=True)
        seen = [g.seen for g in self._tables if g.seen is not None]
        outs = [g.out for g in step.gradients]
        assert built.recipe.loss is not None
        self._fetches = [built.recipe.loss.name, *outs, *seen, *step.after, *step.updates]
        places = [g.place for g in step.gradients]
        places += [g.seen_place for g in self._tables if g.seen_place is not None]
        self._places = places
        self._key = np.zeros(2, np.int64)
        # Alone, what comes out of the graph goes in again as it is.
        self._direct = place.size == 1 and limits is None and built.adds_up != "rows"
        self._given: list[np.ndarray] = []

    def buffers(self) -> list[np.ndarray]:
        """Gradients, rows of tables that were looked up, what the forward pass writes."""
        if self._place.size == 1:
            return []
        return [*self._gradients.arrays, *self._seen.arrays, *self._state.arrays]

    def begin_step(self, iteration: int) -> None:
        """Seed random operations: a step is the same whenever, and however often, it is taken."""
        self._built.iteration = iteration
        seed = hash((self._seed, iteration, self._place.rank)) & 0x7FFFFFFFFFFFFFFF
        self._key = np.array([seed, 0], np.int64)

    def backward(self, batch: Batch | None, sums: StepSums) -> None:
        """Gradients of a batch, weighted so that they add up over the ranks."""
        if batch is None:
            sums.set(0, 0.0, 0.0)
            for flat in (self._gradients, self._seen, self._state):
                flat.clear()
            return
        recipe, program = self._built.recipe, self._built.program
        feeds = {**feeds_of(batch, recipe), **self._fixed}
        if recipe.seed is not None:
            feeds[recipe.seed] = self._key
        loss, *rest = program.run(self._fetches, feeds)
        cut = len(self._step.gradients)
        end = cut + len(self._tables)
        after = rest[end : end + len(self._step.state)]
        weight, value = self._weigh(batch, loss)
        sums.set(batch.rows, weight, value)
        if self._direct:
            self._given = rest[:end]
        else:
            # Of a mean over the rows of this rank they become a sum, which ranks can add up.
            mean = self._built.adds_up in ("mean", None)
            self._gradients.gather(rest[:cut], weight if mean else 1.0)
            self._seen.gather(rest[cut:end])
        self._state.gather(after, float(batch.rows))

    def _weigh(self, batch: Batch, loss: np.ndarray) -> tuple[float, float]:
        """What a batch weighs, and its loss times that."""
        if self._built.adds_up == "rows":
            return weighed(batch, loss)
        value = float(loss)
        if self._built.adds_up == "sum":  # its mean over the rows is what is told
            return float(batch.rows), value
        return float(batch.rows), value * batch.rows

    def update(self, sums: StepSums) -> None:
        """One step of the optimizer."""
        built, step = self._built, self._step
        if not self._direct:
            divisor = {"sum": 1.0, "mixed": 1.0}.get(built.adds_up or "mean", sums.weight or 1.0)
            self._gradients.divide(divisor)
            if self._limits is not None:
                clip(self._gradients.arrays, self._limits)
            # Copies: an optimizer that remembers a gradient would keep this very memory.
            views = [*self._gradients.views, *self._seen.views]
            self._given = [view.copy() for view in views]
        if step.state:
            self._settle_state(float(sums.rows))
        feeds = {**dict(zip(self._places, self._given, strict=True)), **self._for_update}
        if step.rate_place is not None:
            feeds[step.rate_place] = np.float64(built.learning_rate)
        built.program.run([step.apply], feeds)
        built.iteration += 1

    def _settle_state(self, rows: float) -> None:
        """Take the mean over all rows of the step, so that every rank holds the same."""
        self._state.divide(rows)
        found = {}
        for name, view, kind in zip(self._step.state, self._state.views, self._kinds, strict=True):
            real = np.array(view) if kind.startswith(("float", "bfloat")) else np.rint(view)
            found[name] = real
        if self._place.size > 1:
            self._built.program.load(found)
        self._whole = found

    def restore(self) -> None:
        """Undo what a step that is not taken has changed."""
        if self._whole:
            self._built.program.load(self._whole)

    def score(self) -> Sums | None:
        """Score this rank's part of the validation data."""
        if self._validation is None:
            return None
        scorer = Scorer(self._built, self._metrics)
        scorer.run(self._validation.epoch(0))
        return scorer.sums()

    def scored(self, parts: Sequence[Sums]) -> dict[str, Any]:
        """See `Learner`."""
        return Scorer(self._built, self._metrics).result(parts)

    def end_epoch(self, stats: EpochStats) -> None:
        """Tell a schedule that watches how training goes."""
        if self._built.schedule is not None:
            scores = [v for name, v in stats.scores.items() if name != "val_loss"]
            seen = {"Loss": stats.loss, **({"score": scores[0]} if scores else {})}
            self._built.schedule.observe(self._built.iteration, seen)
