"""Where the time of a fit went."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from zoo.orca.learn.steps import EpochStats

__all__ = ["End", "FitReport", "RankTimes", "RoundFacts", "rank_times"]

# What would show as 0.00 s is not shown.
_SHOWN_S = 0.005


class End(StrEnum):
    """Why a round ended."""

    DONE = "done"
    """The work is done."""
    CHANGED = "ranks changed"
    """More ranks could take part, so all agreed to leave."""
    RANK_LOST = "a rank was lost"
    """A rank is gone; the others gave what they held."""
    SHARDS_LOST = "shards were lost"
    """Rows are gone with the disk that held them."""
    NOT_BEGUN = "a task was lost before it began"
    """A task is gone before all ranks were there."""

    @property
    def is_loss(self) -> bool:
        """Whether the round was cut short."""
        return self not in (End.DONE, End.CHANGED)


@dataclass(frozen=True)
class RankTimes:
    """Seconds of one rank, over the epochs of a fit that it took part in.

    Attributes:
        rank: Which rank.
        rows: Rows that it trained on. When ranks changed inside an epoch, only what one of them
            had done of it before is counted, for the first rank.
        ready_s: Building the model and opening the data.
        data_s: Waiting for batches.
        compute_s: Forward, backward and update.
        sync_s: Agreeing with the other ranks, waiting for the slowest included.
        observe_s: Callbacks, and copying the state for snapshots.
        snapshot_s: Copying the state alone; the first rank does that.
        seconds: Its epochs, validation not included.
        steps: Steps of these epochs.
        host: Name of its host.
    """

    rank: int
    rows: int
    ready_s: float
    data_s: float
    compute_s: float
    sync_s: float
    observe_s: float = 0.0
    snapshot_s: float = 0.0
    seconds: float = 0.0
    steps: int = 0
    host: str = ""


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
    ended: End


@dataclass(frozen=True)
class FitReport:
    """One fit. `print(report)` shows it as a table, `zoo.orca.learn.explain` in words.

    Attributes:
        seconds: The whole call.
        ingest_s: Writing the frame as shards; near 0 when a persisted frame was ingested before.
        start_s: What is neither ingest nor epochs nor validation: tasks, models and data that
            start, in every round, and the state on its way back.
        train_s: The epochs.
        rows: Rows of an epoch.
        epochs: How many.
        bytes_ingested: Size of the shards; 0 for loaders.
        ranks: Times of every rank.
        rounds: Stretches between which ranks changed; one when nothing happened.
        validate_s: Validation, part of no other figure.
        shards: Into how many parts the rows were written; 0 for loaders.
        validation_rows: Rows of validation; 0 for loaders.
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
    shards: int = 0
    validation_rows: int = 0

    @property
    def rows_per_s(self) -> float:
        """Rows a second over the whole call."""
        return self.rows * self.epochs / self.seconds if self.seconds else 0.0

    @property
    def steady_rows_per_s(self) -> float:
        """Rows a second while training."""
        return self.rows * self.epochs / self.train_s if self.train_s else 0.0

    @property
    def steps(self) -> int:
        """Steps of all epochs."""
        return max((r.steps for r in self.ranks), default=0)

    @property
    def snapshot_s(self) -> float:
        """Copying the state for snapshots, part of the epochs; it is written beside them."""
        return max((r.snapshot_s for r in self.ranks), default=0.0)

    @property
    def first_start_s(self) -> float:
        """From ingested data to the first step, without what that step took."""
        # A rank is first heard of after its first step, which is part of the epochs.
        return min(self.rounds[0].start_s, self.start_s) if self.rounds else self.start_s

    @property
    def change_s(self) -> float:
        """Starting again with other ranks, in all rounds after the first."""
        starts_s = sum(r.start_s for r in self.rounds[1:])
        return min(starts_s, self.start_s - self.first_start_s)

    @property
    def losses(self) -> int:
        """Rounds that were cut short."""
        return sum(r.ended.is_loss for r in self.rounds)

    def _repr_html_(self) -> str:
        """The text, for notebooks."""
        return f"<pre>{html.escape(str(self))}</pre>"

    def __str__(self) -> str:
        epochs = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        parts = {
            "ingest": self.ingest_s,
            "start": self.start_s,
            "train": self.train_s,
            "validate": self.validate_s,
            "of train, copying for snapshots": self.snapshot_s,
        }
        always = ("ingest", "start", "train")
        shown = [
            f"{name} {s:.2f} s" for name, s in parts.items() if s >= _SHOWN_S or name in always
        ]
        lines = [
            f"{epochs} of {self.rows:,} rows in {self.seconds:.2f} s "
            f"({self.rows_per_s:,.0f} rows/s; {self.steady_rows_per_s:,.0f} while training)",
            ", ".join(shown),
            *_rank_table(self.ranks),
        ]
        if len(self.rounds) > 1:
            lines += [f"{len(self.rounds)} rounds, {self.losses} of them cut short by a loss"]
            lines += _round_table(self.rounds)
        return "\n".join(lines)


def rank_times(
    epochs: Sequence[Sequence[EpochStats]],
    ready: Mapping[int, float],
    hosts: Mapping[int, str] = MappingProxyType({}),
) -> tuple[RankTimes, ...]:
    """Sum the epochs of every rank.

    Args:
        epochs: For every epoch its ranks.
        ready: How long each rank took to be ready.
        hosts: Where each rank was.
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
            sum(e.observe_s for e in own),
            sum(e.snapshot_s for e in own),
            sum(e.seconds for e in own),
            sum(e.steps for e in own),
            hosts.get(rank, ""),
        )
        for rank, own in enumerate(by_rank)
    )


def _rank_table(ranks: Sequence[RankTimes]) -> list[str]:
    head = ["rank", "rows", "ready", "data", "compute", "synchronise", "callbacks"]
    rows = [
        [str(r.rank), f"{r.rows:,}"]
        + [f"{s:.2f} s" for s in (r.ready_s, r.data_s, r.compute_s, r.sync_s, r.observe_s)]
        for r in ranks
    ]
    seen = any(r.observe_s >= _SHOWN_S for r in ranks)
    return _aligned([row[: len(head) if seen else -1] for row in [head, *rows]])


def _round_table(rounds: Sequence[RoundFacts]) -> list[str]:
    rows = [
        [str(number), str(r.ranks), f"{r.start_s:.2f} s", f"{r.seconds:.2f} s", r.ended]
        for number, r in enumerate(rounds, 1)
    ]
    return _aligned([["round", "ranks", "start", "all", "ended because"], *rows], words=1)


def _aligned(rows: Sequence[Sequence[str]], words: int = 0) -> list[str]:
    """Columns of equal width, numbers to the right, the last `words` columns to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numbers = len(widths) - words
    return [
        "  ".join(
            cell.rjust(width) if k < numbers else cell.ljust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
