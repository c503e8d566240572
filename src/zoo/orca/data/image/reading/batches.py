"""Batches of a dataset's records, made in the process that decodes them."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from zoo.errors import InputError, ZooError, load_extra
from zoo.orca.data.image.image_decoder import ImageDecoder
from zoo.orca.data.image.on_error import OnError, check_on_error
from zoo.orca.data.image.reading.batch_tensors import (
    InSlot,
    Recycler,
    Ring,
    collate_columns,
    collate_records,
    makes_bytes,
    scaled,
    unscaled,
)
from zoo.orca.data.image.reading.records import Records
from zoo.orca.data.image.reading.row_reader import Column
from zoo.orca.data.image.reading.shuffle import RowPlan

__all__ = [
    "BatchRecords",
    "EpochBatches",
    "Fetched",
    "LeftOut",
    "PendingBatch",
    "Wanted",
]

_log = logging.getLogger(__name__)


class LeftOut(NamedTuple):
    """A record that was left out: its file, its row there, and why."""

    file: str
    row: int
    reason: str


class Wanted(NamedTuple):
    """A batch that our loader wants: the numbers of its records."""

    epoch: int
    numbers: npt.NDArray[np.int64]


class Fetched(NamedTuple):
    """A batch that was made for our loader, and what could not be.

    Errors travel as values: torch would turn one of ours into a `RuntimeError` on its way from a
    worker.
    """

    values: Any
    bad: list[LeftOut]
    error: ZooError | None = None


class BatchRecords(Sequence[Any]):
    """The dataset of a loader: a sequence of records that also makes whole batches.

    Args:
        records: The records.
        collate_fn: Makes a batch of a list of records; torch's default rule when None.
        on_error: "fail", "skip", or "quarantine" for what cannot be decoded.
        seed: Of what transforms draw.

    Attributes:
        epoch: The number of the epoch that the next iteration runs; each iteration moves it on.
        skipped: Records that the latest epoch left out, as far as it has come.
        quarantined: What was left out and why, with `on_error="quarantine"`.
        scales_late: Whether our loader scales images when they arrive. Bytes are a quarter of
            what workers would pass on otherwise, and fresh shared memory costs more than scaling.
        ring: How workers of the current iteration send images; None without workers, and where
            the size of a batch is not known.
        memory: Where batches lie in the process that trains.
    """

    def __init__(
        self,
        records: Records,
        *,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        on_error: OnError = "fail",
        seed: int = 0,
    ) -> None:
        check_on_error(on_error)
        self.records, self.collate_fn, self.on_error = records, collate_fn, on_error
        self.seed, self.epoch, self.skipped = seed, 0, 0
        self.quarantined: list[LeftOut] = []
        self.scales_late = False
        self.ring: Ring | None = None
        self.memory = Recycler()
        self._turn = 0

    @property
    def images(self) -> dict[str, ImageDecoder]:
        """Columns whose images all have one size, so that their place in a batch is known."""
        decoders = self.records.decoders.items()
        return {n: d for n, d in decoders if makes_bytes(d) and d.shape is not None}

    def places(self, count: int) -> dict[str, tuple[Any, InSlot | None]]:
        """Return where the images of a batch are to be decoded to.

        Args:
            count: How many of each column.

        Returns:
            For each of `images` a tensor of bytes, and where it is in the ring if it is there.
        """
        torch = load_extra("torch", "torch")
        worker = load_extra("torch.utils.data", "torch").get_worker_info()
        shapes = {name: (count, *(d.shape or ())) for name, d in self.images.items()}
        if self.ring is None or worker is None:
            if worker is not None:
                return {}
            found = {name: self.memory.tensor(s, torch.uint8) for name, s in shapes.items()}
            return {name: (place, None) for name, place in found.items()}
        slot, start = self._turn % self.ring.slots, 0
        self._turn += 1
        result: dict[str, tuple[Any, InSlot | None]] = {}
        for name, shape in shapes.items():
            where = InSlot(worker.id, slot, start, shape)
            result[name] = self.ring.tensor(where), where
            start += math.prod(shape)
        return result

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.records)

    def __getitem__(self, index: Any) -> Any:
        """Return one record, or those of a slice."""
        return self.records[index]

    def __getitems__(self, wanted: Wanted | Sequence[int]) -> PendingBatch:
        """Return the records that a loader asks for, to be put together by `collate`."""
        if isinstance(wanted, Wanted):
            return PendingBatch(self, wanted.numbers, (self.seed, wanted.epoch))
        return PendingBatch(self, self.records.numbers(wanted))

    @property
    def by_column(self) -> bool:
        """Whether batches are made of whole columns, as nobody wants to see the records."""
        return self.collate_fn is None and self.records.transform is None

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration, whose number and the seed give the order."""
        self.epoch = epoch

    def begin_epoch(self) -> None:
        """Count anew; called by the loader when an iteration has started."""
        self.epoch += 1
        self.skipped, self.quarantined = 0, []

    def note(self, bad: Sequence[LeftOut]) -> None:
        """Count records that were left out; called by the loader as batches arrive."""
        self.skipped += len(bad)
        if self.on_error == "quarantine":
            self.quarantined.extend(bad)

    def left_out(self, error: InputError, row: int) -> LeftOut:
        """Return what to say of a record that cannot be used, unless that is an error.

        Raises:
            InputError: It is.
        """
        if self.on_error == "fail":
            raise error
        place = self.records.place_of(row)
        return LeftOut(place.file, place.row, error.received)


class PendingBatch(Sequence[Any]):
    """Records of a batch, which are decoded when someone looks or puts them together.

    A loader of ours makes tensors of whole columns, which is quicker; for anybody else this is
    a list of records.

    Args:
        dataset: Where they come from.
        rows: Their numbers.
        draw: Seed and epoch, when a loader of ours asks, which also counts what is left out.
    """

    def __init__(
        self,
        dataset: BatchRecords,
        rows: npt.NDArray[np.int64],
        draw: tuple[int, int] | None = None,
    ) -> None:
        self._dataset, self._records, self._rows = dataset, dataset.records, rows
        self._draw = draw
        self._bad: list[LeftOut] = []
        self._list: list[Any] | None = None

    def __len__(self) -> int:
        """Return the number of records, without those left out."""
        return len(self._made())

    def __getitem__(self, index: Any) -> Any:
        """Return one record."""
        return self._made()[index]

    def collated(self) -> Any:
        """Return the batch, within a `Fetched` for a loader of ours.

        Raises:
            InputError: A record cannot be used, and nobody is there to be told in another way.
        """
        if self._draw is None:
            values = self._values()
            if self._bad:
                _log.warning("%d records left out, the first: %s", len(self._bad), self._bad[0])
            if values is None:
                raise InputError("a record that can be used", "none in a batch", "See the log.")
            return values
        try:
            return Fetched(self._values(), self._bad)
        except ZooError as exc:
            return Fetched(None, self._bad, exc)

    def _values(self) -> Any:
        collate = self._dataset.collate_fn
        if self._dataset.by_column:
            return self._columns()
        return (collate or collate_records)(made) if (made := self._made()) else None

    def _made(self) -> list[Any]:
        if self._list is None:
            self._list = list(self._finished())
        return self._list

    def _finished(self) -> Iterator[Any]:
        for row, record in self._records.raw_records(self._rows):
            try:
                yield self._records.finish(record, row, self._draw)
            except InputError as exc:
                self._bad.append(self._dataset.left_out(exc, row))

    def _columns(self) -> Any:
        dataset, decoders = self._dataset, self._records.decoders
        values: dict[str, Any] = self._records.values(self._rows)
        good = np.ones(len(self._rows), bool)
        places = dataset.places(len(self._rows))
        for name in decoders:
            place, _ = places.get(name, (None, None))
            values[name] = self._decoded(name, values[name], good, place)
        if not good.any():
            return None
        if not good.all():
            values = {name: _only(column, good) for name, column in values.items()}
        for name, (_, where) in places.items():
            if where is not None:
                values[name] = where._replace(shape=tuple(values[name].shape))
        batch = collate_columns(values, decoders)
        late = self._draw is not None and dataset.scales_late
        return batch if late else scaled(batch, decoders, dataset.memory)

    def _decoded(
        self, name: str, column: Column, good: npt.NDArray[np.bool_], place: Any
    ) -> list[Any] | Any:
        """Decode a column, into its place if there is one, and mark the rows where that fails."""
        decoder = self._records.decoders[name]
        decode, found = self._records.decoded, [None] * len(column)
        rows, plain = self._rows.tolist(), unscaled(decoder)
        pixels = None if place is None else _rows_first(place.numpy(), decoder)
        for position, value in enumerate(column):
            if good[position]:
                try:
                    made = decode(name, plain, value, rows[position])
                except InputError as exc:
                    self._bad.append(self._dataset.left_out(exc, rows[position]))
                    good[position] = False
                    continue
                if pixels is None:
                    found[position] = made
                else:
                    pixels[position] = made
        return found if place is None else place


class EpochBatches:
    """A batch sampler: what torch asks for the batches of the dataset's current epoch.

    Args:
        dataset: The dataset, which knows the epoch.
        plan: The order.
    """

    def __init__(self, dataset: BatchRecords, plan: RowPlan) -> None:
        self.dataset, self.plan = dataset, plan

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self.plan)

    def __iter__(self) -> Iterator[Wanted]:
        """Return the batches of the epoch that is current now, whatever comes later."""
        epoch = self.dataset.epoch
        return (Wanted(epoch, numbers) for numbers in self.plan.batches(epoch))


def _rows_first(batch: npt.NDArray[np.uint8], decoder: Any) -> npt.NDArray[np.uint8]:
    """A view of a batch of images with the channels behind, as they are decoded."""
    return batch.transpose(0, 2, 3, 1) if decoder.layout == "CHW" else batch


def _only(column: Any, chosen: npt.NDArray[np.bool_]) -> Any:
    if isinstance(column, np.ndarray):
        return column[chosen]
    if not isinstance(column, list):  # a place for images: they move up, and stay in it
        kept = int(chosen.sum())
        column[:kept] = column[np.flatnonzero(chosen)]
        return column[:kept]
    return [value for value, is_chosen in zip(column, chosen, strict=True) if is_chosen]
