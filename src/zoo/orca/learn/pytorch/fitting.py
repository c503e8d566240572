"""The driver's side of a torch fit: data to shards, ranks to work, state back."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from zoo.cluster.launch import Launcher, launch, pickled
from zoo.cluster.meeting import Member, Message, Peer
from zoo.errors import ShardsLostError
from zoo.orca.data.ingest import Ingested, forget_ingested, ingest
from zoo.orca.data.plan import TensorPlan
from zoo.orca.data.rows import Rows
from zoo.orca.data.shard import Shard
from zoo.orca.learn.loop import EpochStats
from zoo.orca.learn.progress import TrainingBar
from zoo.orca.learn.pytorch.batches import LoaderSource, ShardSource, Source
from zoo.orca.learn.pytorch.worker import Order, evaluate_rank, train_rank
from zoo.orca.learn.report import FitReport, rank_times

__all__ = ["TableData", "Trained", "World", "evaluate_on_ranks", "train"]

_log = logging.getLogger(__name__)
_VALIDATION_BYTES = 16 << 20


@dataclass(frozen=True)
class World:
    """Where ranks run and how many.

    Attributes:
        launcher: Starts them.
        per_executor: Ranks of one executor.
    """

    launcher: Launcher
    per_executor: int

    @property
    def ranks(self) -> int:
        """Ranks in all."""
        return self.launcher.places()[0] * self.per_executor

    @property
    def threads(self) -> int:
        """Threads of each rank: the executor's cores, shared by its ranks."""
        return max(1, self.launcher.places()[1] // self.per_executor)

    def run(
        self,
        body: Callable[[Member, Order], tuple[bytes, dict[str, Any]]],
        order: Order,
        **watch: Any,
    ) -> list[Message]:
        """Run `body` with the order on every rank."""

        def task(member: Member) -> tuple[bytes, dict[str, Any]]:
            return body(member, order)

        return launch(
            pickled(task, "a model, optimizer, loss, metrics and data creator"),
            launcher=self.launcher,
            ranks=self.ranks,
            per_executor=self.per_executor,
            **watch,
        )


@dataclass(frozen=True)
class TableData:
    """Rows and the layout of their tensors."""

    rows: Rows
    plan: TensorPlan


@dataclass(frozen=True)
class Trained:
    """What a fit gives back.

    Attributes:
        state: Weights, optimizer and position.
        epochs: For every rank, its epochs.
        report: Where the time went.
        plan: The layout of the data, shapes known; None for loaders.
    """

    state: bytes
    epochs: tuple[tuple[EpochStats, ...], ...]
    report: FitReport
    plan: TensorPlan | None


Data = TableData | LoaderSource


def train(
    world: World,
    data: Data,
    validation: Data | None,
    order: Mapping[str, Any],
    *,
    batch_size: int,
    order_seed: int | None,
    show_progress: bool | None = None,
) -> Trained:
    """Train on ranks.

    Args:
        world: The ranks.
        data: Training data.
        validation: Validation data, of the same kind.
        order: The fields of `Order` besides the data.
        batch_size: Rows of a step over all ranks.
        order_seed: Of the order of rows; None keeps the frame's.
        show_progress: None shows it where a person looks.
    """
    start = time.perf_counter()
    job = _Job(world, order, show_progress, start)
    with _sources(world, data, validation, batch_size, order_seed) as opened:
        try:
            return job.run(*opened)
        except ShardsLostError as exc:
            _log.warning("ingesting again: %s", exc)
            for result in opened[2]:
                forget_ingested(result)
    with _sources(world, data, validation, batch_size, order_seed, spread=True) as opened:
        return job.run(*opened, last_try=True)


@dataclass(frozen=True)
class _Job:
    """One training over opened sources.

    Attributes:
        world: The ranks.
        order: The fields of `Order` besides the data.
        show_progress: None shows it where a person looks.
        start: When the fit began, by the performance counter.
    """

    world: World
    order: Mapping[str, Any]
    show_progress: bool | None
    start: float

    def run(
        self,
        source: Source,
        validation: Source | None,
        ingested: Sequence[Ingested],
        *,
        last_try: bool = False,
    ) -> Trained:
        ready = time.perf_counter()
        full = Order(source=source, validation=validation, **self.order)
        rows = ingested[0].rows if ingested else None
        with TrainingBar(full.epochs, rows, show=self.show_progress) as bar:
            results = self.world.run(
                train_rank,
                full,
                on_world=lambda peers: _require_placed(ingested, peers, last_try),
                on_progress=lambda message: bar.show(message.body),
            )
        ended = time.perf_counter()
        epochs = tuple(tuple(EpochStats(**e) for e in r.body["epochs"]) for r in results)
        train_s = sum(e.seconds for e in epochs[0])
        report = FitReport(
            seconds=ended - self.start,
            ingest_s=ready - self.start,
            start_s=max(0.0, ended - ready - train_s),
            train_s=train_s,
            rows=epochs[0][0].rows if epochs[0] else 0,
            epochs=len(epochs[0]),
            bytes_ingested=sum(i.bytes for i in ingested),
            ranks=rank_times(epochs, [r.body["ready_s"] for r in results]),
        )
        plan = ingested[0].plan if ingested else None
        return Trained(results[0].payload, epochs, report, plan)


def evaluate_on_ranks(world: World, data: LoaderSource, order: Mapping[str, Any]) -> list[Any]:
    """Score the loaders of all ranks.

    Returns:
        The sums of every rank, for `Scorer.result`.
    """
    full = Order(source=data, validation=data, **order)
    return [message.body["sums"] for message in world.run(evaluate_rank, full)]


@contextmanager
def _sources(
    world: World,
    data: Data,
    validation: Data | None,
    batch_size: int,
    seed: int | None,
    *,
    spread: bool = False,
) -> Iterator[tuple[Source, Source | None, list[Ingested]]]:
    """Ingest what are rows in Spark, and remove the shards afterwards."""
    if isinstance(data, LoaderSource):
        yield data, cast("LoaderSource | None", validation), []
        return
    results: list[Ingested] = []
    try:
        results.append(_ingest(world, data, batch_size, spread))
        source = ShardSource(results[0].plan, results[0].shards, batch_size, seed)
        checked = None
        if isinstance(validation, TableData):
            results.append(_ingest(world, validation, None, spread))
            # No order to keep and nothing to agree on: as few, large batches as memory likes.
            large = max(batch_size, min(1024, _VALIDATION_BYTES // results[1].plan.row_bytes))
            checked = ShardSource(results[1].plan, results[1].shards, large, None)
        yield source, checked, results
    finally:
        for result in results:
            result.release()


def _ingest(world: World, data: TableData, batch_size: int | None, spread: bool) -> Ingested:
    rows = data.rows
    if spread:
        executors, cores = world.launcher.places()
        rows = rows.spread(executors * cores)
    return ingest(rows, data.plan, batch_size=batch_size)


def _require_placed(ingested: Sequence[Ingested], peers: Sequence[Peer], last_try: bool) -> None:
    """Refuse a world in which a shard has no rank on its host, or hosts have unequal work.

    Raises:
        ShardsLostError: So that the frame is spread anew.
    """
    ranks = Counter(p.host for p in peers)
    for result in ingested:
        strays = sum(s.rows for s in result.shards if s.host not in ranks)
        if strays:
            raise ShardsLostError(
                "a rank on every host that holds shards", f"{strays} rows on other hosts",
                "Ranks and tasks of Spark should run on the same hosts.",
            )  # fmt: skip
        if not last_try and unequal(result.shards, ranks):
            raise ShardsLostError(
                "hosts with about equal rows for each rank", "very unequal ones",
                "The frame is repartitioned.",
            )  # fmt: skip


def unequal(shards: Sequence[Shard], ranks: Mapping[str, int]) -> bool:
    """Whether the fullest host has over half as many rows again for each rank as the mean."""
    rows: Counter[str] = Counter()
    for shard in shards:
        rows[shard.host] += shard.rows
    mean = sum(rows.values()) / sum(ranks.values())
    return any(rows[host] / count > 1.5 * mean for host, count in ranks.items())
