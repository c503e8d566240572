"""The driver's side of a torch fit: data to shards, ranks to work, state back."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zoo.cluster.launch import Launcher
from zoo.cluster.round import Crew, launch
from zoo.orca.data.ingest import forget_ingested
from zoo.orca.learn.pytorch.batches import LoaderSource
from zoo.orca.learn.pytorch.resume import data_facts, require_same_data
from zoo.orca.learn.pytorch.rounds import Keeper, Rounds, Start, Trained, packed
from zoo.orca.learn.pytorch.sources import Data, Opened, UnequalHostsError, open_sources
from zoo.orca.learn.pytorch.worker import Order, evaluate_rank
from zoo.orca.learn.recovery import Recovery

__all__ = ["FitSettings", "World", "evaluate_on_ranks", "train"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class World:
    """Where ranks run and how many.

    Attributes:
        launcher: Starts them.
        per_executor: Ranks of one executor.
        least: Fewer do not train.
        most: More are not used; None for all executors there are.
    """

    launcher: Launcher
    per_executor: int
    least: int = 1
    most: int | None = None

    @property
    def ranks(self) -> int:
        """Most ranks."""
        return self.most or self.launcher.places()[0] * self.per_executor

    @property
    def threads(self) -> int:
        """Threads of each rank: the executor's cores, shared by its ranks."""
        return max(1, self.launcher.places()[1] // self.per_executor)

    @property
    def crew(self) -> Crew:
        """How many ranks a round may have."""
        return Crew(min(self.least, self.ranks), self.ranks, self.per_executor)


@dataclass(frozen=True)
class FitSettings:
    """How a fit is done.

    Attributes:
        batch_size: Rows of a step over all ranks.
        order_seed: Of the order of rows; None keeps the frame's.
        recovery: What is put up with.
        keeper: Takes snapshots and numbers.
        show_progress: None shows it where a person looks.
    """

    batch_size: int
    order_seed: int | None
    recovery: Recovery
    keeper: Keeper
    show_progress: bool | None = None


def train(
    world: World,
    data: Data,
    validation: Data | None,
    order: Mapping[str, Any],
    start: Start,
    settings: FitSettings,
) -> Trained:
    """Train on ranks, whatever becomes of single ones.

    Args:
        world: The ranks.
        data: Training data.
        validation: Validation data, of the same kind.
        order: The fields of `Order` besides data and state.
        start: Where it begins.
        settings: How.
    """
    rounds = Rounds(
        world.launcher, world.crew, order, start, settings.recovery, settings.keeper,
        time.perf_counter(),
    )  # fmt: skip
    batch_size, seed = settings.batch_size, settings.order_seed

    def run(opened: Opened) -> Trained:
        facts = data_facts(opened.shards, batch_size, seed)
        if start.extras.get("begun"):
            require_same_data(start.extras.get("fit", {}), facts)
        return rounds.run(opened, facts, settings.show_progress)

    with open_sources(data, validation, batch_size=batch_size, seed=seed) as opened:
        try:
            return run(opened)
        except UnequalHostsError as exc:
            _log.warning("ingesting again: %s", exc)
            for result in opened.ingested:
                forget_ingested(result)
    executors, cores = world.launcher.places()
    with open_sources(
        data, validation, batch_size=batch_size, seed=seed, partitions=executors * cores
    ) as opened:
        return run(opened)


def evaluate_on_ranks(world: World, data: LoaderSource, order: Mapping[str, Any]) -> list[Any]:
    """Score the loaders of all ranks.

    Returns:
        The sums of every rank, for `Scorer.result`.
    """
    full = Order(source=data, validation=data, **order)
    results = launch(
        packed(evaluate_rank, full),
        launcher=world.launcher,
        ranks=world.ranks,
        per_executor=world.per_executor,
    )
    return [message.body["sums"] for message in results]
