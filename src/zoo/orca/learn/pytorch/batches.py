"""Batches as tensors, from shards or from the loaders that a creator function returns."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler

from zoo.cluster.ranks.member import Member
from zoo.errors import InputError
from zoo.orca.data.tensors.schedule import RowOrder, step_bounds, step_count, window_rows
from zoo.orca.learn.order import LoaderSource, Source, TensorSource
from zoo.orca.learn.rank.feed import TensorFeed
from zoo.orca.learn.rank.opening import open_feed

__all__ = ["Batch", "LoaderBatches", "TensorBatches", "on_device", "open_source"]


@dataclass(frozen=True)
class Batch:
    """What the model is called with and what the loss compares with.

    Attributes:
        features: Arguments of the model.
        targets: Targets of the loss; empty when the model's output is the loss.
        rows: Rows of the batch.
    """

    features: tuple[Any, ...]
    targets: tuple[Any, ...]
    rows: int

    def parts(self, count: int) -> list[Batch]:
        """At most so many parts of about equal size, in order, none of them empty."""
        count = min(count, self.rows)
        if count <= 1:
            return [self]
        ends = [k * self.rows // count for k in range(count + 1)]
        return [
            Batch(
                tuple(_cut(f, low, high) for f in self.features),
                tuple(_cut(t, low, high) for t in self.targets),
                high - low,
            )
            for low, high in itertools.pairwise(ends)
        ]

    def to(self, device: torch.device) -> Batch:
        """The batch on a device; the same one where it is there already."""
        if device.type == "cpu":
            return self
        return Batch(
            tuple(_moved(f, device) for f in self.features),
            tuple(_moved(t, device) for t in self.targets),
            self.rows,
        )


def _cut(value: Any, low: int, high: int) -> Any:
    if isinstance(value, torch.Tensor | np.ndarray | list):
        return value[low:high]
    raise InputError(
        "tensors in the batches, to go through them in parts",
        type(value).__name__,
        "Use gradient_accumulation=1 with this loader, or let it return tensors.",
    )


def on_device(batches: Iterable[Batch | None], device: torch.device) -> Iterator[Batch]:
    """The batches that have rows, on a device."""
    return (batch.to(device) for batch in batches if batch is not None)


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value


class TensorBatches:
    """Batches that are views of a stretch gathered from shards.

    Args:
        feed: The rows of this rank.
        features: How many of the tensors the model is called with; the others are targets.
    """

    def __init__(self, feed: TensorFeed, features: int) -> None:
        self._feed, self._cut = feed, features
        self.steps: int | None = feed.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch | None]:
        """Batches from step `start` on; None for a step without rows for this rank."""
        for starts, arrays in self._feed.epoch(epoch, start):
            sizes = np.diff(starts).tolist()
            views = zip(*(torch.from_numpy(a).split(sizes) for a in arrays), strict=True)
            for rows, tensors in zip(sizes, views, strict=True):
                if rows:
                    yield Batch(tensors[: self._cut], tensors[self._cut :], rows)
                else:
                    yield None


class LoaderBatches:
    """Batches of a user's DataLoader.

    A loader over a map-style dataset, in order or shuffled, is split between the ranks: each step
    takes the next rows of the dataset, and each rank its part of them. Any other loader is used
    as it comes: the creator gives every rank its own data.
    """

    def __init__(self, source: LoaderSource, member: Member) -> None:
        self._source, self._place = source, (member.rank, member.size)
        config = {**source.config, "rank": member.rank, "size": member.size}
        own = max(1, source.batch_size // member.size)
        self._loader = source.creator(config, own)
        if not isinstance(self._loader, DataLoader):
            raise InputError(
                "a torch DataLoader from the data creator",
                type(self._loader).__name__,
                "Return DataLoader(dataset, batch_size=batch_size, ...).",
            )
        rows = _split_rows(self._loader)
        same = set(member.share(rows))
        self._rows = rows if len(same) == 1 and rows > 0 else None
        # A loader that ignores the size it was given has one of its own, for every rank.
        chosen = self._loader.batch_size or own
        batch = source.batch_size if chosen == own else chosen * member.size
        self.steps = None if self._rows is None else step_count(self._rows, batch)
        if not any(n for n in same):
            raise InputError("rows to work on", "an empty dataset", "Check the data creator.")
        self._picked = _PickedRows(self._place)
        # One for all epochs: workers that are to persist do.
        self._split = None if self._rows is None else _with_rows(self._loader, self._picked)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch | None]:
        """Batches from step `start` on; None for a step without rows for this rank."""
        if self._rows is None or self.steps is None or self._split is None:
            # A loader that cannot be told where to begin is read again up to there.
            for item in itertools.islice(self._loader, start, None):
                yield _batch(item)
            return
        shuffle = isinstance(self._loader.sampler, RandomSampler)
        key = (self._source.seed, epoch, 0)
        order = RowOrder(self._rows, key, window=window_rows(1), shuffle=shuffle)
        ends = step_bounds([self._rows], self.steps, range(start, self.steps))[:, 0]
        self._picked.begin(order, ends)
        batches = iter(self._split)
        for low, high in itertools.pairwise(ends):
            first, last = self._picked.part(int(low), int(high))
            yield _batch(next(batches)) if last > first else None


class _PickedRows:
    """The rows of this rank, batch by batch, told as the loader asks for them.

    An epoch may have more rows than a list of Python numbers should hold.

    Args:
        place: Number of this rank, and of how many.
    """

    def __init__(self, place: tuple[int, int]) -> None:
        self._place = place
        self._order: RowOrder | None = None
        self._ends = np.zeros(1, dtype=np.int64)

    def begin(self, order: RowOrder, ends: np.ndarray) -> None:
        """From here on it is about an epoch.

        Args:
            order: Of the rows of the dataset.
            ends: Where in it each step begins, and where the last one ends.
        """
        self._order, self._ends = order, ends

    def part(self, low: int, high: int) -> tuple[int, int]:
        """Which of a step's rows, counted in the step, are this rank's."""
        rank, size = self._place
        return rank * (high - low) // size, (rank + 1) * (high - low) // size

    def __iter__(self) -> Iterator[list[int]]:
        order = self._order
        assert order is not None
        for low, high in itertools.pairwise(self._ends):
            first, last = self.part(int(low), int(high))
            if last > first:
                yield order.take(int(low), int(high))[first:last].tolist()


def _with_rows(old: DataLoader[Any], rows: _PickedRows) -> DataLoader[Any]:
    """The user's loader, reading these rows."""
    return DataLoader(
        old.dataset,
        batch_sampler=rows,
        num_workers=old.num_workers,
        collate_fn=old.collate_fn,
        pin_memory=old.pin_memory,
        timeout=old.timeout,
        worker_init_fn=old.worker_init_fn,
        multiprocessing_context=old.multiprocessing_context,
        generator=old.generator,
        prefetch_factor=old.prefetch_factor,
        persistent_workers=old.persistent_workers,
    )


def _split_rows(loader: DataLoader[Any]) -> int:
    """Rows of a loader that takes each row of its dataset once, in order or shuffled; else -1."""
    dataset: Any = loader.dataset
    # A subclass that goes through its data in a way of its own is left to it.
    if isinstance(dataset, IterableDataset) or not loader.batch_size:
        return -1
    if type(loader).__iter__ is not DataLoader.__iter__:
        return -1
    sampler = loader.sampler
    # Not a subclass: that may choose rows in a way of its own.
    plain = type(sampler) is SequentialSampler or (
        type(sampler) is RandomSampler
        and not sampler.replacement
        and sampler.num_samples == len(dataset)
    )
    return len(dataset) if plain else -1


def _batch(item: Any) -> Batch:
    """A loader's batch: features, then the target."""
    if not isinstance(item, tuple | list) or len(item) < 2:
        raise InputError(
            "batches (feature, ..., target) from the DataLoader",
            f"{type(item).__name__}" + (f" of {len(item)}" if isinstance(item, list) else ""),
            "Let the dataset return a tuple, or give the loader a collate_fn.",
        )
    features = tuple(item[:-1])
    if len(features) == 1 and isinstance(features[0], tuple | list):
        features = tuple(features[0])
    target = item[-1]
    targets = tuple(target) if isinstance(target, tuple | list) else (target,)
    return Batch(features, targets, _rows(features[0]))


def _rows(feature: Any) -> int:
    try:
        return len(feature)
    except TypeError:
        return 1


def open_source(source: Source, member: Member) -> TensorBatches | LoaderBatches:
    """The part of a rank in some data."""
    if isinstance(source, TensorSource):
        feed = open_feed(source, member, threads=torch.get_num_threads())
        return TensorBatches(feed, len(source.plan.features))
    return LoaderBatches(source, member)
