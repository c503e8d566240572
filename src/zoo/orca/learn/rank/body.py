"""What a rank does, from its order to its result, in whatever framework."""

from __future__ import annotations

import time
from typing import Any

from zoo.cluster.host import memory_facts
from zoo.cluster.ranks.member import Member
from zoo.cluster.ranks.messages import Stopped
from zoo.orca.learn.framework import Place, State, framework_for
from zoo.orca.learn.order import Order
from zoo.orca.learn.rank.observer import RankObserver
from zoo.orca.learn.steps import EpochStats

__all__ = ["evaluate_rank", "train_rank"]


def train_rank(member: Member, order: Order) -> tuple[bytes, dict[str, Any]]:
    """Train; the driver gets the state before anybody leaves, and from every rank its facts.

    When another rank is lost, a survivor offers what it holds, and hands it over if it is wanted.
    """
    born = time.perf_counter()
    framework = framework_for(order.framework)
    built = framework.begin(order, member)
    state = framework.read(order.state)
    position = framework.apply(built, state)
    assert order.source is not None
    batches = framework.open(order.source, member)
    checked = None if order.validation is None else framework.open(order.validation, member)
    learner = framework.learner(built, order, Place(member.rank, member.size), checked)
    observer = RankObserver(
        member, framework, built, order, extras=state.extras, steps=batches.steps
    )  # fmt: skip
    loop = framework.loop(learner)(
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
        offers = member.wants_offers and not loop.torn
        if offers:
            observer.tell_steps()
        if not offers or not member.offer({"iteration": position.iteration}):
            raise
        learner.restore()
        return observer.state(), {}
    return b"", {"ready_s": ready_s, "left": loop.left, "stopped": observer.why}


def _begun(member: Member, state: State) -> EpochStats | None:
    """What there is of the running epoch. Rows of single ranks stay with the first one."""
    facts = state.extras.get("begun")
    if not facts:
        return None
    # Snapshots of earlier versions counted losses by rows.
    stats = EpochStats(**{"weight": facts["rows"], "own_weight": facts["own_rows"], **facts})
    if member.rank:
        stats.own_rows, stats.own_weight, stats.own_loss_sum = 0, 0.0, 0.0
    return stats


def evaluate_rank(member: Member, order: Order) -> tuple[bytes, dict[str, Any]]:
    """Score this rank's part of the validation data."""
    framework = framework_for(order.framework)
    built = framework.begin(order, member)
    framework.apply(built, framework.read(order.state))
    assert order.validation is not None
    scorer = framework.evaluate(built, order, framework.open(order.validation, member))
    return b"", {"sums": scorer.sums()}
