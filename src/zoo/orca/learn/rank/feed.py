"""The batches of one rank.

Rows are gathered a stretch of steps at a time, so that a step only takes views: many small
gathers cost more than one large one, and the stretch stays small enough for the cache. Cells that
are decoded anew each epoch, such as images with random crops, are decoded by threads while the
model trains on the stretch before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from zoo.errors import ColumnError
from zoo.orca.data.tensors.plan import TEXT, ColumnPlan, TensorPlan
from zoo.orca.data.tensors.schedule import (
    RowOrder,
    Share,
    rank_share,
    step_bounds,
    step_count,
    window_rows,
)
from zoo.orca.data.tensors.tensor_shard import Blobs, TensorShard, open_tensors

__all__ = ["TensorFeed"]

_STRETCH_BYTES = 4 << 20
# Each shard costs some microseconds a stretch, so it must give a fair piece.
_SHARD_BYTES = 16 << 10
# Stretches that are decoded while one trains, and cells that a thread takes at a time.
_AHEAD, _CELLS = 2, 4


@dataclass(frozen=True)
class _Cells:
    """Cells to decode into some rows of a batch.

    Attributes:
        column: How.
        blobs: The cells of a shard.
        key: What randomness depends on besides the row: seed, epoch, shard.
        rows: Which cells.
        places: Rows of `out` that they become.
        out: The batch.
    """

    column: ColumnPlan
    blobs: Blobs
    key: tuple[int, int, int]
    rows: np.ndarray
    places: np.ndarray
    out: np.ndarray

    def decode(self) -> None:
        for row, place in zip(self.rows.tolist(), self.places.tolist(), strict=True):
            self.out[place] = self._cell(row)

    def _cell(self, row: int) -> np.ndarray:
        decode = self.column.decode
        assert decode is not None
        try:
            cell = decode(self.blobs[row], key=(*self.key, row))
        except Exception as exc:
            raise self._bad(row, f"{type(exc).__name__}: {exc}") from exc
        if cell.shape != self.out.shape[1:] or cell.dtype != self.out.dtype:
            raise self._bad(row, f"{cell.dtype} of shape {cell.shape}")
        return cell

    def _bad(self, row: int, received: str) -> ColumnError:
        wanted = f"{self.out.dtype} of shape {self.out.shape[1:]}"
        return ColumnError(
            f"cells of column '{self.column.name}' that decode to {wanted}",
            f"{received} in row {row} of partition {self.key[2]}",
            "Give the decoder a size, and take bad images out before: transform_images(frame, "
            "decoder, on_error='quarantine') of zoo.orca.data.image lists them.",
        )


class TensorFeed:
    """Batches from shards, by the proportional schedule.

    Args:
        plan: With shapes and dtypes known.
        shards: All shards of the frame, in order.
        host: Key of this host: its shards are read, the others belong to other hosts.
        place: This rank among the ranks of its host, and how many they are.
        batch_size: Rows of a step over all ranks.
        seed: Of the order; None keeps rows in the order of the frame.
        threads: How many decode cells that stay bytes until then.

    Attributes:
        steps: Steps of an epoch.
    """

    def __init__(
        self,
        plan: TensorPlan,
        shards: Sequence[TensorShard],
        *,
        host: str,
        place: tuple[int, int],
        batch_size: int,
        seed: int | None,
        threads: int = 1,
    ) -> None:
        self._place, self._seed, self._threads = place, seed, threads
        self.steps = step_count(sum(s.rows for s in shards), batch_size)
        self._window = window_rows(len(shards))
        self._mine = [k for k, s in enumerate(shards) if s.host == host]
        self._all_rows = [s.rows for s in shards]
        self._rows = [shards[k].rows for k in self._mine]
        self._arrays = [open_tensors(shards[k], plan) for k in self._mine]
        self._specs = [(t.dtype, t.shape or ()) for t in plan.tensors]
        self._live = {k: t.columns[0] for k, t in enumerate(plan.tensors) if t.live}
        step_bytes = plan.row_bytes * sum(self._rows) // max(1, self.steps * place[1])
        wanted = max(_STRETCH_BYTES, _SHARD_BYTES * len(self._mine))
        self._stretch = max(1, wanted // max(1, step_bytes))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
        """The batches of an epoch from step `start` on, a stretch at a time.

        Yields:
            Row bounds of the steps, shape (steps + 1,), and the stretch's rows, one array for
            each tensor.
        """
        orders = [
            RowOrder(
                n, (self._seed or 0, epoch, k), window=self._window, shuffle=self._seed is not None
            )
            for k, n in zip(self._mine, self._rows, strict=True)
        ]
        if not self._live:
            for share, rows, order in self._stretches(orders, start):
                yield share.starts, [self._gather(k, rows, order) for k in range(len(self._specs))]
            return
        ready: deque[tuple[np.ndarray, list[np.ndarray], list[Future[None]]]] = deque()
        with ThreadPoolExecutor(self._threads, "decode") as pool:
            try:
                for share, rows, order in self._stretches(orders, start):
                    arrays, cells = self._begin(epoch, share, rows, order)
                    ready.append((share.starts, arrays, [pool.submit(c.decode) for c in cells]))
                    if len(ready) > _AHEAD:
                        yield _finished(*ready.popleft())
                while ready:
                    yield _finished(*ready.popleft())
            finally:
                # The training may have ended early, or a cell may be bad.
                pool.shutdown(wait=False, cancel_futures=True)

    def _stretches(
        self, orders: Sequence[RowOrder], start: int
    ) -> Iterator[tuple[Share, list[np.ndarray], np.ndarray]]:
        """What each stretch of an epoch is made of.

        Yields:
            The share; the row numbers in each shard; and which of these rows, one shard after
            another, comes where.
        """
        for first in range(start, self.steps, self._stretch):
            stretch = range(first, min(first + self._stretch, self.steps))
            bounds = step_bounds(self._all_rows, self.steps, stretch)
            share = rank_share(bounds[:, self._mine], *self._place)
            order = np.empty_like(share.places)
            order[share.places] = np.arange(len(order))
            yield share, _rows_to_take(share, orders), order

    def _begin(
        self, epoch: int, share: Share, rows: Sequence[np.ndarray], order: np.ndarray
    ) -> tuple[list[np.ndarray], list[_Cells]]:
        """The arrays of a stretch, and what has to be decoded into them."""
        arrays, cells = [], []
        for k, (dtype, shape) in enumerate(self._specs):
            if k not in self._live:
                arrays.append(self._gather(k, rows, order))
                continue
            out, at = np.empty((len(order), *shape), dtype=dtype), 0
            for shard, held, mine in zip(self._mine, self._arrays, rows, strict=True):
                places = share.places[at : at + len(mine)]
                at += len(mine)
                key = ((self._seed or 0) % (1 << 63), epoch, shard)
                for i in range(0, len(mine), _CELLS):
                    part = slice(i, i + _CELLS)
                    cells.append(_Cells(self._live[k], held[k], key, mine[part], places[part], out))
            arrays.append(out)
        # In the order of the batches: the first step should not wait for the last.
        return arrays, sorted(cells, key=lambda c: int(c.places[0]))

    def _gather(self, tensor: int, rows: Sequence[np.ndarray], order: np.ndarray) -> np.ndarray:
        """Rows out of each shard, then in the order of the steps; always fresh memory."""
        dtype, shape = self._specs[tensor]
        if dtype == TEXT:
            held = zip(self._arrays, rows, strict=True)
            texts = [arrays[tensor].take(mine, shape) for arrays, mine in held if len(mine)]
            return np.concatenate(texts)[order] if texts else np.empty((0, *shape), TEXT)
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


def _finished(
    starts: np.ndarray, arrays: list[np.ndarray], work: Sequence[Future[None]]
) -> tuple[np.ndarray, list[np.ndarray]]:
    for part in work:
        part.result()
    return starts, arrays


def _rows_to_take(share: Share, orders: Sequence[RowOrder]) -> list[np.ndarray]:
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
