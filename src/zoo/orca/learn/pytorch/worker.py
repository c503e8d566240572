"""What a rank of a torch training does, from its order to its result."""

from __future__ import annotations

import pickle
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from zoo.cluster.host import memory_facts
from zoo.cluster.meeting import Member, Stopped
from zoo.orca.learn.callback import Callback
from zoo.orca.learn.loop import EpochStats
from zoo.orca.learn.pytorch.batches import Source
from zoo.orca.learn.pytorch.device import choose_device
from zoo.orca.learn.pytorch.observer import RankObserver, SnapshotOrder
from zoo.orca.learn.pytorch.operator_learner import learner_kind
from zoo.orca.learn.pytorch.operator_loop import is_torn, make_loop
from zoo.orca.learn.pytorch.operator_scorer import make_scorer, score_batches
from zoo.orca.learn.pytorch.pytorch_metrics import AdditiveMetric
from zoo.orca.learn.pytorch.recipe import Built, Recipe, build
from zoo.orca.learn.pytorch.state import State, apply_state, load_state, read_state
from zoo.orca.learn.spark_estimator import GradientLimits

__all__ = ["Order", "evaluate_rank", "train_rank"]


@dataclass(frozen=True)
class Order:
    """What all ranks of a round work on: from a state to the end of an epoch.

    Attributes:
        recipe: A pickled `Recipe`.
        state: Where training stands, from `save_state`.
        source: The training data.
        validation: The validation data, or None.
        metrics: Computed in validation.
        until: Epochs done, since the estimator was made, when the fit is over.
        threads: Of every rank.
        seed: Of randomness inside the model.
        limits: For gradients, or None.
        callbacks: Called in every rank.
        snapshots: When the driver gets the state.
        facts: Of the fit and its data, kept with the state.
        log_steps: The driver wants the numbers of every step.
        info: For the operator.
    """

    recipe: bytes
    state: bytes
    source: Source
    validation: Source | None
    metrics: Mapping[str, AdditiveMetric]
    until: int
    threads: int
    seed: int
    limits: GradientLimits | None = None
    callbacks: tuple[Callback, ...] = ()
    snapshots: SnapshotOrder = field(default_factory=SnapshotOrder)
    facts: Mapping[str, Any] = field(default_factory=dict)
    log_steps: bool = False
    info: Mapping[str, Any] = field(default_factory=dict)


def train_rank(member: Member, order: Order) -> tuple[bytes, dict[str, Any]]:
    """Train; the driver gets the state before anybody leaves, and from every rank its facts.

    When another rank is lost, a survivor offers what it holds, and hands it over if it is wanted.
    """
    born = time.perf_counter()
    recipe, built = _built(member, order)
    state = read_state(order.state)
    position = apply_state(built, state)
    if built.operator is not None:
        built.operator.position = position
    batches = order.source.open(member)
    validation = order.validation
    learner = learner_kind(built)(
        built,
        member,
        seed=order.seed,
        step_freq=recipe.scheduler_step_freq,
        validate=None if validation is None else lambda: validation.open(member),
        metrics=order.metrics,
        limits=order.limits,
    )
    observer = RankObserver(
        member, built, order.callbacks, order.snapshots,
        extras={**state.extras, "fit": dict(order.facts)}, steps=batches.steps,
        log_steps=order.log_steps,
    )  # fmt: skip
    loop = make_loop(
        member, learner, batches, position, observer=observer, begun=_begun(member, state)
    )
    member.describe = lambda: {**loop.describe(), **memory_facts()}
    observer.watch(loop)
    ready_s = time.perf_counter() - born
    try:
        observer.begin()
        loop.run(order.until)
        observer.end()
        # Nobody leaves before the driver has the state: whoever is left could still give it.
        member.share(None)
    except Stopped:
        offers = member.wants_offers and not is_torn(loop)
        if offers:
            observer.tell_steps()
        if not offers or not member.offer({"iteration": position.iteration}):
            raise
        learner.restore()
        return observer.state(), {}
    return b"", {"ready_s": ready_s, "left": loop.left, "stopped": observer.why}


def _built(member: Member, order: Order) -> tuple[Recipe, Built]:
    """What to work with on this rank, the operator ready, the state not yet loaded."""
    torch.set_num_threads(order.threads)
    recipe: Recipe = pickle.loads(order.recipe)
    if recipe.initialization_hook is not None:
        recipe.initialization_hook()
    built = build(recipe, choose_device(member, recipe.config))
    if built.operator is not None:
        built.operator.info = order.info
        built.operator.start(built, rank=member.rank)
    return recipe, built


def _begun(member: Member, state: State) -> EpochStats | None:
    """What there is of the running epoch. Rows of single ranks stay with the first one."""
    facts = state.extras.get("begun")
    if not facts:
        return None
    stats = EpochStats(**facts)
    if member.rank:
        stats.own_rows, stats.own_loss_sum = 0, 0.0
    return stats


def evaluate_rank(member: Member, order: Order) -> tuple[bytes, dict[str, Any]]:
    """Score this rank's part of the validation data."""
    _, built = _built(member, order)
    load_state(built, order.state)
    assert order.validation is not None
    batches = order.validation.open(member)
    scorer = make_scorer(built, order.metrics)
    built.model.eval()
    with torch.no_grad():
        found = (b.to(built.device) for b in batches.epoch(0) if b is not None)
        score_batches(scorer, found)
    return b"", {"sums": scorer.sums()}
