"""Where the time of a fit went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from zoo.orca.learn.loop import EpochStats

__all__ = ["FitReport", "RankTimes", "RoundFacts", "rank_times"]


@dataclass(frozen=True)
class RankTimes:
    """Seconds of one rank, over all epochs of a fit.

    Attributes:
        rank: Which rank.
        rows: Rows that it trained on.
        ready_s: Building the model and opening the data.
        data_s: Waiting for batches.
        compute_s: Forward, backward and update.
        sync_s: Agreeing with the other ranks, waiting for the slowest included.
    """

    rank: int
    rows: int
    ready_s: float
    data_s: float
    compute_s: float
    sync_s: float


@dataclass(frozen=True)
class RoundFacts:
    """One round: a stretch of training by the same ranks.

    Attributes:
        ranks: How many; 0 when it did not begin.
        start_s: Until the first word from a rank that trains.
        seconds: The whole round.
        ended: Why it ended.
    """

    ranks: int
    start_s: float
    seconds: float
    ended: str


@dataclass(frozen=True)
class FitReport:
    """One fit. `print(report)` shows it as a table.

    Attributes:
        seconds: The whole call.
        ingest_s: Writing the frame as shards; near 0 when a persisted frame was ingested before.
        start_s: From ingested data to the first step: tasks, model, data.
        train_s: The epochs.
        rows: Rows of an epoch.
        epochs: How many.
        bytes_ingested: Size of the shards.
        ranks: Times of every rank.
        rounds: Stretches between which ranks changed; one when nothing happened.
        validate_s: Validation, part of no other figure.
    """

    seconds: float
    ingest_s: float
    start_s: float
    train_s: float
    rows: int
    epochs: int
    bytes_ingested: int
    ranks: tuple[RankTimes, ...]
    rounds: tuple[RoundFacts, ...] = ()
    validate_s: float = 0.0

    @property
    def rows_per_s(self) -> float:
        """Rows a second over the whole call."""
        return self.rows * self.epochs / self.seconds

    @property
    def steady_rows_per_s(self) -> float:
        """Rows a second while training."""
        return self.rows * self.epochs / self.train_s if self.train_s else 0.0

    def __str__(self) -> str:
        head = (
            f"{self.epochs} epochs of {self.rows:,} rows in {self.seconds:.2f} s "
            f"({self.rows_per_s:,.0f} rows/s; {self.steady_rows_per_s:,.0f} while training)\n"
            f"ingest {self.ingest_s:.2f} s, start {self.start_s:.2f} s, train {self.train_s:.2f} s"
        )
        lines = [
            f"rank {r.rank}: {r.rows:,} rows, data {r.data_s:.2f} s, compute {r.compute_s:.2f} s, "
            f"synchronise {r.sync_s:.2f} s"
            for r in self.ranks
        ]
        return "\n".join([head, *lines])


def rank_times(
    epochs: Sequence[Sequence[EpochStats]], ready: Mapping[int, float]
) -> tuple[RankTimes, ...]:
    """Sum the epochs of every rank.

    Args:
        epochs: For every epoch its ranks.
        ready: How long each rank took to be ready.
    """
    size = max((len(ranks) for ranks in epochs), default=0)
    by_rank = [[ranks[r] for ranks in epochs if r < len(ranks)] for r in range(size)]
    return tuple(
        RankTimes(
            rank,
            sum(e.own_rows for e in own),
            ready.get(rank, 0.0),
            sum(e.data_s for e in own),
            sum(e.compute_s for e in own),
            sum(e.sync_s for e in own),
        )
        for rank, own in enumerate(by_rank)
    )
