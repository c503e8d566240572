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
    "RowOrder",
    "Share",
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


class RowOrder:
    """The order in which one epoch uses the rows of one shard.

    Args:
        rows: Rows in the shard.
        key: Whole numbers that the order depends on, such as (seed, epoch, shard).
        window: Rows shuffled together.
        shuffle: False keeps the rows as they are.
    """

    def __init__(
        self, rows: int, key: Sequence[int], *, window: int = 1 << 20, shuffle: bool = True
    ) -> None:
        self._key, self._shuffle = tuple(k % (1 << 64) for k in key), shuffle
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
            parts.append(inside + self._first[index])
            start, index = min(stop, end), index + 1
        return np.concatenate(parts) if len(parts) != 1 else parts[0]

    def _window(self, index: int) -> np.ndarray:
        if self._held is None or self._held[0] != index:
            size = int(self._starts[index + 1] - self._starts[index])
            draw = np.random.default_rng((*self._key, int(self._windows[index])))
            self._held = (index, draw.permutation(size).astype(np.int32))
        return self._held[1]


@dataclass(frozen=True)
class Share:
    """What one rank does in a stretch of steps: gather rows shard by shard, then put them in order.

    Attributes:
        starts: Row of the buffer where each step begins, shape (steps + 1,).
        spans: First position in the order of each shard that the stretch uses, and the one after
            the last, shape (shards, 2).
        ends: How many rows were gathered with those of a shard, shape (shards,).
        picks: Which of the shard's span each gathered row is, int64.
        places: Row of the buffer for each gathered row, int64.
    """

    starts: np.ndarray
    spans: np.ndarray
    ends: np.ndarray
    picks: np.ndarray
    places: np.ndarray


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
    if not rows:
        return np.zeros((len(stretch) + 1, shards), dtype=np.int64)
    number = np.arange(stretch.start, stretch.stop + 1, dtype=np.int64)
    # Not number * rows // steps: the product may be too large.
    goal = number * (rows // steps) + number * (rows % steps) // steps
    # Time is cut into cells so fine that one holds hardly a row. In which cell the goal is
    # reached is found by halving; inside it, shards give in their order.
    cells = 16 << rows.bit_length()

    width, buffer = sizes.astype(np.float64), np.empty((len(goal), shards))

    def given(cell: np.ndarray) -> np.ndarray:
        np.multiply(np.minimum(cell / cells, 1.0)[:, None], width, out=buffer)
        np.add(buffer, 0.5, out=buffer)
        return np.floor(buffer, out=buffer)

    low = np.maximum(0, np.floor((goal - shards) * (cells / rows))).astype(np.int64)
    high = np.ceil((goal + shards) * (cells / rows)).astype(np.int64) + 1
    while (high - low).max() > 1:
        middle = (low + high) // 2
        early = given(middle).sum(axis=1) <= goal
        low, high = np.where(early, middle, low), np.where(early, high, middle)
    before = given(low).astype(np.int64)
    room = given(high).astype(np.int64) - before
    missing = (goal - before.sum(axis=1))[:, None]
    bounds: np.ndarray = before + np.clip(missing - (np.cumsum(room, axis=1) - room), 0, room)
    return bounds


def rank_share(bounds: np.ndarray, rank: int, ranks: int) -> Share:
    """The rows of one rank, out of the shards that it splits with the ranks of its host.

    Args:
        bounds: From `step_bounds`, the columns of the host's shards.
        rank: Which of the host's ranks.
        ranks: How many ranks the host has.
    """
    counts = np.diff(bounds, axis=0)
    offsets = np.cumsum(counts, axis=1) - counts
    total = counts.sum(axis=1, keepdims=True)
    low, high = rank * total // ranks, (rank + 1) * total // ranks
    begin, finish = np.clip(low - offsets, 0, counts), np.clip(high - offsets, 0, counts)
    starts = np.concatenate([[0], np.cumsum(high - low)])
    # From here on shard by shard.
    lengths = (finish - begin).T
    picks = _ranges((bounds[:-1] - bounds[0] + begin).T, lengths)
    places = _ranges((starts[:-1, None] + offsets + begin - low).T, lengths)
    return Share(starts, bounds[[0, -1]].T, np.cumsum(lengths.sum(axis=1)), picks, places)


def _ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Ranges one after another: starts[i], starts[i] + 1, ... lengths[i] of them."""
    flat = lengths.reshape(-1)
    ends = np.cumsum(flat)
    shift = np.repeat(starts.reshape(-1) - (ends - flat), flat)
    return np.asarray(np.arange(len(shift)) + shift)


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
        RowOrder(n, (seed, epoch, s), window=window, shuffle=shuffle)
        for s, n in enumerate(shard_rows)
    ]
    bounds = step_bounds(shard_rows, steps, range(steps))
    for low, high in itertools.pairwise(bounds.tolist()):
        yield [(s, orders[s].take(low[s], high[s])) for s in range(len(shard_rows))]
