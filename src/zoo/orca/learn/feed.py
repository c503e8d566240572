"""The batches of one rank.

Rows are gathered a stretch of steps at a time, so that a step only takes views: many small
gathers cost more than one large one, and the stretch stays small enough for the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from zoo.orca.data.plan import TensorPlan
from zoo.orca.data.schedule import (
    ShardOrder,
    Share,
    rank_share,
    step_bounds,
    step_count,
    window_rows,
)
from zoo.orca.data.shard import Shard, open_shard

__all__ = ["ShardFeed"]

_STRETCH_BYTES = 4 << 20
# Each shard costs some microseconds a stretch, so it must give a fair piece.
_SHARD_BYTES = 16 << 10


class ShardFeed:
    """Batches from shards, by the proportional schedule.

    Args:
        plan: With shapes and dtypes known.
        shards: All shards of the frame, in order.
        host: Key of this host: its shards are read, the others belong to other hosts.
        place: This rank among the ranks of its host, and how many they are.
        batch_size: Rows of a step over all ranks.
        seed: Of the order; None keeps rows in the order of the frame.

    Attributes:
        steps: Steps of an epoch.
    """

    def __init__(
        self,
        plan: TensorPlan,
        shards: Sequence[Shard],
        *,
        host: str,
        place: tuple[int, int],
        batch_size: int,
        seed: int | None,
    ) -> None:
        self._place, self._seed = place, seed
        self.steps = step_count(sum(s.rows for s in shards), batch_size)
        self._window = window_rows(len(shards))
        self._mine = [k for k, s in enumerate(shards) if s.host == host]
        self._all_rows = [s.rows for s in shards]
        self._rows = [shards[k].rows for k in self._mine]
        self._arrays = [open_shard(shards[k], plan) for k in self._mine]
        self._specs = [(t.dtype, t.shape or ()) for t in plan.tensors]
        row_bytes = sum(np.dtype(d).itemsize * int(np.prod(s)) for d, s in self._specs)
        step_bytes = row_bytes * sum(self._rows) // max(1, self.steps * place[1])
        wanted = max(_STRETCH_BYTES, _SHARD_BYTES * len(self._mine))
        self._stretch = max(1, wanted // max(1, step_bytes))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        """The batches of an epoch from step `start` on, a stretch at a time.

        Yields:
            Row bounds of the steps, shape (steps + 1,), and the stretch's rows, one array for
            each tensor.
        """
        orders = [
            ShardOrder(
                n, (self._seed or 0, epoch, k), window=self._window, shuffle=self._seed is not None
            )
            for k, n in zip(self._mine, self._rows, strict=True)
        ]
        for first in range(start, self.steps, self._stretch):
            stretch = range(first, min(first + self._stretch, self.steps))
            bounds = step_bounds(self._all_rows, self.steps, stretch)
            share = rank_share(bounds[:, self._mine], *self._place)
            rows = _rows_to_take(share, orders)
            order = np.empty_like(share.places)
            order[share.places] = np.arange(len(order))
            yield share.starts, [self._gather(k, rows, order) for k in range(len(self._specs))]

    def _gather(self, tensor: int, rows: Sequence[np.ndarray], order: np.ndarray) -> np.ndarray:
        """Rows out of each shard, then in the order of the steps; always fresh memory."""
        dtype, shape = self._specs[tensor]
        found = np.empty((len(order), *shape), dtype=dtype)
        at = 0
        for arrays, mine in zip(self._arrays, rows, strict=True):
            if len(mine):
                # `clip` writes to `out` itself: the default takes a detour to check the indices.
                np.take(arrays[tensor], mine, axis=0, out=found[at : at + len(mine)], mode="clip")
                at += len(mine)
        if sum(len(mine) > 0 for mine in rows) <= 1:
            return found
        return np.take(found, order, axis=0, out=np.empty_like(found), mode="clip")


def _rows_to_take(share: Share, orders: Sequence[ShardOrder]) -> list[np.ndarray]:
    """Row numbers in each shard."""
    found, at = [], 0
    for order, (low, high), end in zip(
        orders, share.spans.tolist(), share.ends.tolist(), strict=True
    ):
        mine = share.picks[at:end]
        # Picks are in order: as many as the span has are all of it.
        whole = len(mine) == high - low
        found.append(order.take(low, high) if whole else order.take(low, high)[mine])
        at = end
    return found
