"""The way of a fit on the driver: data to shards, ranks to work, state back."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import Any

from zoo.cluster.ranks.crew import Crew
from zoo.cluster.ranks.launcher import Launcher
from zoo.cluster.ranks.round import launch
from zoo.orca.data.tensors.ingest import forget_ingested
from zoo.orca.learn.driver.progress import Progress
from zoo.orca.learn.driver.resume import data_facts, require_same_data
from zoo.orca.learn.driver.rounds import Keeper, Rounds, Start, Trained, packed
from zoo.orca.learn.driver.sources import Data, Opened, UnequalHostsError, open_sources
from zoo.orca.learn.order import LoaderSource, Order
from zoo.orca.learn.rank.body import evaluate_rank
from zoo.orca.learn.recovery import Recovery

__all__ = ["FitSettings", "evaluate_on_ranks", "train"]

_log = logging.getLogger(__name__)


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
    launcher: Launcher,
    crew: Crew,
    data: Data,
    validation: Data | None,
    order: Order,
    start: Start,
    settings: FitSettings,
) -> Trained:
    """Train on ranks, whatever becomes of single ones.

    Args:
        launcher: Where ranks run.
        crew: How many.
        data: Training data.
        validation: Validation data, of the same kind.
        order: For all rounds; data and state are filled in.
        start: Where it begins.
        settings: How.
    """
    order = replace(order, threads=crew.threads(launcher))
    rounds = Rounds(
        launcher, crew, order, start, settings.recovery, settings.keeper,
        time.perf_counter(),
    )  # fmt: skip
    batch_size, seed = settings.batch_size, settings.order_seed

    def run(opened: Opened) -> Trained:
        facts = data_facts(opened.shards, batch_size, seed)
        if start.extras.get("begun"):
            require_same_data(start.extras.get("fit", {}), facts)
        return rounds.run(opened, facts, progress)

    epochs = range(start.first_epoch, start.until)
    with Progress(epochs, show=settings.show_progress) as progress:
        progress.phase("preparing data")
        with open_sources(
            data, validation, batch_size=batch_size, seed=seed, recovery=settings.recovery
        ) as opened:
            try:
                return run(opened)
            except UnequalHostsError as exc:
                _log.warning("ingesting again: %s", exc)
                for result in opened.ingested:
                    forget_ingested(result)
        progress.phase("preparing data")
        executors, cores = launcher.places()
        with open_sources(
            data, validation, batch_size=batch_size, seed=seed, partitions=executors * cores,
            recovery=settings.recovery,
        ) as opened:  # fmt: skip
            return run(opened)


def evaluate_on_ranks(
    launcher: Launcher, crew: Crew, data: LoaderSource, order: Order
) -> list[Any]:
    """Score the loaders of all ranks.

    Returns:
        The sums of every rank, for `Scorer.result`.
    """
    full = replace(order, validation=data, threads=crew.threads(launcher))
    results = launch(
        packed(evaluate_rank, full),
        launcher=launcher,
        ranks=crew.ranks(launcher),
        per_executor=crew.per_executor,
    )
    return [message.body["sums"] for message in results]
