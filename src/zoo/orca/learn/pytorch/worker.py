"""What a rank of a torch training does, from its order to its result."""

from __future__ import annotations

import pickle
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from zoo.cluster.meeting import Member
from zoo.orca.learn.loop import EpochStats, run_epochs
from zoo.orca.learn.pytorch.batches import Source
from zoo.orca.learn.pytorch.learner import Scorer, TorchLearner
from zoo.orca.learn.pytorch.pytorch_metrics import AdditiveMetric
from zoo.orca.learn.pytorch.recipe import Recipe, build, load_state, save_state

__all__ = ["Order", "evaluate_rank", "train_rank"]

_REPORT_S = 0.3


@dataclass(frozen=True)
class Order:
    """A stretch of training for all ranks: from a state, some epochs.

    Attributes:
        recipe: A pickled `Recipe`.
        state: Where training stands, from `save_state`.
        source: The training data.
        validation: The validation data, or None.
        metrics: Computed in validation.
        epochs: Numbers of the epochs, counted from 0 since the estimator was made.
        threads: Of every rank.
        seed: Of randomness inside the model.
    """

    recipe: bytes
    state: bytes
    source: Source
    validation: Source | None
    metrics: Mapping[str, AdditiveMetric]
    epochs: range
    threads: int
    seed: int


def train_rank(member: Member, order: Order) -> tuple[bytes, dict[str, Any]]:
    """Train; rank 0 hands back the state, every rank its epochs."""
    born = time.perf_counter()
    torch.set_num_threads(order.threads)
    recipe: Recipe = pickle.loads(order.recipe)
    built = build(recipe)
    _, iteration = load_state(built, order.state)
    batches = order.source.open(member)
    validation = order.validation

    learner = TorchLearner(
        built,
        member,
        seed=order.seed,
        step_freq=recipe.scheduler_step_freq,
        validate=None if validation is None else lambda: validation.open(member),
        metrics=order.metrics,
    )
    learner.iteration = iteration
    reporter = _Reporter(member, batches.steps) if member.rank == 0 else None
    ready = time.perf_counter()
    stats = run_epochs(
        member,
        learner,
        batches,
        epochs=order.epochs,
        on_step=reporter.step if reporter is not None else lambda _: None,
    )
    state = b""
    if member.rank == 0:
        state = save_state(built, epoch=order.epochs.stop, iteration=learner.iteration)
    facts = {"epochs": [asdict(s) for s in stats], "ready_s": ready - born}
    return state, facts


def evaluate_rank(member: Member, order: Order) -> tuple[bytes, dict[str, Any]]:
    """Score this rank's part of the validation data."""
    torch.set_num_threads(order.threads)
    recipe: Recipe = pickle.loads(order.recipe)
    built = build(recipe)
    load_state(built, order.state)
    assert order.validation is not None
    batches = order.validation.open(member)
    scorer = Scorer(built, order.metrics)
    built.model.eval()
    with torch.no_grad():
        for batch in batches.epoch(0):
            if batch is not None:
                scorer.add(batch)
    return b"", {"sums": scorer.sums()}


class _Reporter:
    """Says now and then how far training is."""

    def __init__(self, member: Member, steps: int | None) -> None:
        self._member, self._steps, self._last = member, steps, 0.0

    def step(self, stats: EpochStats) -> None:
        now = time.monotonic()
        if now - self._last > _REPORT_S:
            self._last = now
            loss = stats.loss / max(1, stats.rows)
            self._member.report(
                {
                    "epoch": stats.epoch,
                    "step": stats.steps,
                    "steps": self._steps,
                    "rows": stats.rows,
                    "loss": loss,
                }
            )
