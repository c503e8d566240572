"""The batches of one rank.

Rows are gathered a stretch of steps at a time, so that a step only takes views: many small
gathers cost more than one large one, and the stretch stays small enough for the cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from zoo.orca.data.plan import TensorPlan
from zoo.orca.data.schedule import ShardOrder, rank_share, step_bounds, step_count, window_rows
from zoo.orca.data.shard import Shard, open_shard

__all__ = ["ShardFeed"]

_STRETCH_BYTES = 4 << 20


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
        step_bytes = max(1, row_bytes * sum(self._rows) // (self.steps * place[1]))
        # With many shards a stretch must be long enough that each gives it a fair piece.
        least = 16 * len(self._mine) * place[1] * self.steps // max(1, sum(self._rows))
        self._stretch = max(1, _STRETCH_BYTES // step_bytes, least)

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
            total = int(share.starts[-1])
            out = [np.empty((total, *shape), dtype=dtype) for dtype, shape in self._specs]
            for part in share.slices:
                rows = orders[part.shard].take(*part.span)[part.picks]
                for buffer, array in zip(out, self._arrays[part.shard], strict=True):
                    if len(share.slices) == 1:
                        np.take(array, rows, axis=0, out=buffer, mode="clip")
                    else:
                        buffer[part.places] = array[rows]
            yield share.starts, out
