"""The proportional schedule: which rows make up which step. Pure arithmetic on counts.

With R rows in all and batches of B, an epoch has T = ceil(R / B) steps of floor(R / T) or
ceil(R / T) rows. Think of the n rows of a shard as spread evenly over the epoch, row i at time
(i + 1/2) / n: a step takes the next rows of all shards in order of time. So every shard gives to
every step in proportion to its rows and ends at the last step, each row is used once an epoch,
and nothing is padded or dropped. What a step is made of depends on the shards alone, so any
number of ranks computes the same updates.

(Cutting each shard by itself, at floor(t n / T), is simpler and wrong for many small shards: all
of them then give their next row in the same step, and other steps are empty.)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "Share",
    "ShardOrder",
    "ShardSlice",
    "epoch_batches",
    "rank_share",
    "step_bounds",
    "step_count",
    "window_rows",
]


def step_count(rows: int, batch_size: int) -> int:
    """Steps of an epoch: the last one may be short, none is empty."""
    return -(-rows // batch_size)


def window_rows(shards: int) -> int:
    """Rows that are shuffled together.

    A shard is shuffled inside windows, and its windows among each other. All shards are read at
    once, one window of each: fewer rows in a window when there are more shards keeps the memory
    for the orders under 100 MB, and reading stays local however long a shard is.
    """
    return max(1 << 10, min(1 << 20, (1 << 24) // max(1, shards)))


class ShardOrder:
    """The order in which one epoch uses the rows of one shard.

    Args:
        rows: Rows in the shard.
        key: What the order depends on, such as (seed, epoch, shard).
        window: Rows shuffled together.
        shuffle: False keeps the rows as they are.
    """

    def __init__(
        self, rows: int, key: Sequence[int], *, window: int = 1 << 20, shuffle: bool = True
    ) -> None:
        self._key, self._shuffle = tuple(key), shuffle
        windows = max(1, -(-rows // window))
        visit = np.random.default_rng(self._key).permutation(windows) if shuffle else None
        cuts = np.arange(windows + 1, dtype=np.int64) * rows // windows
        self._windows = np.arange(windows) if visit is None else visit
        self._first = cuts[self._windows]
        self._starts = np.concatenate([[0], np.cumsum(np.diff(cuts)[self._windows])])
        self._held: tuple[int, np.ndarray] | None = None

    def take(self, start: int, stop: int) -> np.ndarray:
        """Row numbers at positions `start` up to `stop`, int64."""
        if not self._shuffle or start == stop:
            return np.arange(start, stop, dtype=np.int64)
        parts = []
        index = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            base, end = int(self._starts[index]), int(self._starts[index + 1])
            inside = self._window(index)[start - base : min(stop, end) - base]
            parts.append(inside.astype(np.int64) + self._first[index])
            start, index = min(stop, end), index + 1
        return np.concatenate(parts) if len(parts) != 1 else parts[0]

    def _window(self, index: int) -> np.ndarray:
        if self._held is None or self._held[0] != index:
            size = int(self._starts[index + 1] - self._starts[index])
            draw = np.random.default_rng((*self._key, int(self._windows[index])))
            self._held = (index, draw.permutation(np.arange(size, dtype=np.int32)))
        return self._held[1]


@dataclass(frozen=True)
class ShardSlice:
    """Rows of one shard for a stretch of steps, and where each goes.

    Attributes:
        shard: Index in the list of shards.
        span: First position in the shard's order, and the one after the last.
        picks: Which of that span this rank takes, int64.
        places: Row of the stretch's buffer for each of them, int64.
    """

    shard: int
    span: tuple[int, int]
    picks: np.ndarray
    places: np.ndarray


@dataclass(frozen=True)
class Share:
    """What one rank does in a stretch of steps.

    Attributes:
        starts: Row of the buffer where each step begins, shape (steps + 1,).
        slices: Where the rows come from; shards that give none are left out.
    """

    starts: np.ndarray
    slices: tuple[ShardSlice, ...]


def step_bounds(shard_rows: Sequence[int], steps: int, stretch: range) -> np.ndarray:
    """Rows that each shard has given before each step of a stretch, and after its last.

    Args:
        shard_rows: Rows of every shard of the frame.
        steps: Steps of the epoch.
        stretch: The steps wanted.

    Returns:
        int64, shape (len(stretch) + 1, shards): step t takes positions [t, s] up to [t + 1, s].
    """
    sizes = np.asarray(shard_rows, dtype=np.int64)
    rows, shards = int(sizes.sum()), len(sizes)
    goal = np.arange(stretch.start, stretch.stop + 1, dtype=np.int64) * rows // steps
    # Time is cut into cells so fine that one holds hardly a row. In which cell the goal is
    # reached is found by halving; inside it, shards give in their order.
    cells = 16 << max(rows, 1).bit_length()

    def given(cell: np.ndarray) -> np.ndarray:
        time = np.minimum(cell / cells, 1.0)[:, None]
        return np.floor(time * sizes[None, :] + 0.5).astype(np.int64)

    low = np.maximum(0, np.floor((goal - shards) * (cells / rows))).astype(np.int64)
    high = np.ceil((goal + shards) * (cells / rows)).astype(np.int64) + 1
    while (high - low).max() > 1:
        middle = (low + high) // 2
        early = given(middle).sum(axis=1) <= goal
        low, high = np.where(early, middle, low), np.where(early, high, middle)
    before = given(low)
    room = given(high) - before
    missing = (goal - before.sum(axis=1))[:, None]
    return before + np.clip(missing - (np.cumsum(room, axis=1) - room), 0, room)


def rank_share(bounds: np.ndarray, rank: int, ranks: int) -> Share:
    """The rows of one rank, out of the shards that it splits with the ranks of its host.

    Args:
        bounds: From `step_bounds`, the columns of the host's shards.
        rank: Which of the host's ranks.
        ranks: How many ranks the host has.
    """
    counts = np.diff(bounds, axis=0)
    ends = np.cumsum(counts, axis=1)
    offsets = ends - counts
    total = counts.sum(axis=1, keepdims=True)
    low, high = rank * total // ranks, (rank + 1) * total // ranks
    begin = np.clip(low - offsets, 0, counts)
    finish = np.clip(high - offsets, 0, counts)
    starts = np.concatenate([[0], np.cumsum(high - low)])
    slices = []
    for shard in np.flatnonzero((finish > begin).any(axis=0)):
        first, length = begin[:, shard], finish[:, shard] - begin[:, shard]
        span = int(bounds[0, shard]), int(bounds[-1, shard])
        picks = _ranges(bounds[:-1, shard] + first - span[0], length)
        places = _ranges(starts[:-1] + offsets[:, shard] + first - low[:, 0], length)
        slices.append(ShardSlice(int(shard), span, picks, places))
    return Share(starts, tuple(slices))


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Ranges one after another: starts[i], starts[i] + 1, ... lengths[i] of them."""
    ends = np.cumsum(lengths)
    return np.arange(int(ends[-1]) if ends.size else 0) + np.repeat(
        starts - (ends - lengths), lengths
    )


def epoch_batches(
    shard_rows: Sequence[int],
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    shuffle: bool = True,
) -> Iterator[list[tuple[int, np.ndarray]]]:
    """The batches of one epoch in plain form, the reference that every way of training equals.

    Yields:
        For each step a list of (shard, row numbers).
    """
    steps = step_count(sum(shard_rows), batch_size)
    window = window_rows(len(shard_rows))
    orders = [
        ShardOrder(n, (seed, epoch, s), window=window, shuffle=shuffle)
        for s, n in enumerate(shard_rows)
    ]
    bounds = step_bounds(shard_rows, steps, range(steps))
    for low, high in itertools.pairwise(bounds.tolist()):
        yield [(s, orders[s].take(low[s], high[s])) for s in range(len(shard_rows))]
