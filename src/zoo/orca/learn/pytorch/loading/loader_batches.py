"""Batches of torch's loaders, shared by ranks."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler

from zoo.cluster.ranks.member import Member
from zoo.errors import InputError
from zoo.orca.data.tensors.schedule import RowOrder, step_bounds, step_count, window_rows
from zoo.orca.learn.order import LoaderSource
from zoo.orca.learn.pytorch.batches import Batch
from zoo.orca.learn.pytorch.loading.given_loader import GivenLoader, has_indices, same_randomness

__all__ = ["GivenBatches", "LoaderBatches", "open_loader"]


def open_loader(source: LoaderSource, member: Member) -> LoaderBatches | GivenBatches:
    """The part of a rank in a loader."""
    if not isinstance(source.creator, GivenLoader):
        return LoaderBatches(source, member)
    loader = source.creator(dict(source.config), source.batch_size)
    if _split_rows(loader) < 0:
        return GivenBatches(loader, source.seed, member)
    return LoaderBatches(source, member, loader)


class LoaderBatches:
    """Batches of a user's DataLoader.

    A loader over a map-style dataset, in order or shuffled, is split between the ranks: each step
    takes the next rows of the dataset, and each rank its part of them. Any other loader is used
    as it comes: the creator gives every rank its own data. See `GivenBatches` for others that were
    made on the driver.

    Args:
        source: Makes the loader.
        member: This rank.
        given: The loader, where it was made on the driver.
    """

    def __init__(
        self, source: LoaderSource, member: Member, given: DataLoader[Any] | None = None
    ) -> None:
        self._source, self._place = source, (member.rank, member.size)
        config = {**source.config, "rank": member.rank, "size": member.size}
        own = max(1, source.batch_size // member.size)
        self._loader = source.creator(config, own) if given is None else given
        if not isinstance(self._loader, DataLoader):
            raise InputError(
                "a torch DataLoader from the data creator",
                type(self._loader).__name__,
                "Return DataLoader(dataset, batch_size=batch_size, ...).",
            )
        rows = _split_rows(self._loader)
        same = set(member.share(rows))
        self._rows = rows if len(same) == 1 and rows > 0 else None
        # A loader that ignores the size it was given has one of its own, for every rank; one that
        # was made on the driver has that of a step.
        chosen = self._loader.batch_size or own
        whole = given is not None or chosen == own
        batch = source.batch_size if whole else chosen * member.size
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


class GivenBatches:
    """Batches of a loader that was made on the driver, whose rows are drawn in a way of its own.

    A step is a batch of the loader, and each rank takes its part of it. Where a sampler draws the
    rows, each rank reads its own only; the ranks compare what they have drawn.

    Args:
        loader: In this rank.
        seed: Of what is drawn in an epoch.
        member: This rank.
    """

    def __init__(self, loader: DataLoader[Any], seed: int, member: Member) -> None:
        self._loader, self._seed, self._member = loader, seed, member
        self.steps: int | None = None  # known after an epoch, and not the same in each
        self._picked = _DrawnRows((member.rank, member.size))
        self._split = _with_rows(loader, self._picked) if has_indices(loader) else None

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch | None]:
        """Batches from step `start` on; None for a step without rows for this rank."""
        if self._split is None:
            yield from self._cut_batches(epoch, start)
            return
        self._picked.begin(self._drawn(epoch)[start:])
        batches = iter(self._split)
        for rows in self._picked.parts():
            yield _batch(next(batches)) if rows else None

    def _drawn(self, epoch: int) -> list[list[Any]]:
        """The rows of all batches of an epoch, the same on every rank."""
        drawn_by: Any = self._loader.batch_sampler
        for part in (drawn_by, self._loader.sampler, getattr(drawn_by, "sampler", None)):
            if isinstance(own := getattr(part, "generator", None), torch.Generator):
                own.manual_seed(hash((self._seed, epoch)) & 0xFFFFFFFF)
        with same_randomness(self._seed, epoch):
            drawn = [list(batch) for batch in drawn_by]
        if len(set(self._member.share(zlib.crc32(repr(drawn).encode())))) > 1:
            kinds = (self._loader.sampler, drawn_by)
            raise InputError(
                "a sampler that draws the same rows on every rank",
                " in ".join(dict.fromkeys(type(kind).__name__ for kind in kinds)),
                "Let it draw from torch, random or numpy, or give fit a function "
                "f(config, batch_size) that makes a loader over the part of config['rank'].",
            )
        return drawn

    def _cut_batches(self, epoch: int, start: int) -> Iterator[Batch | None]:
        member, ended = self._member, object()
        with same_randomness(self._seed, epoch):
            items = iter(self._loader)
            first = next(items, ended)
        given = itertools.chain([] if first is ended else [first], items)
        for item in itertools.islice(given, start, None):
            batch = _batch(item)
            low, high = _part(batch.rows, member.rank, member.size)
            whole = member.size == 1
            yield batch if whole else batch.cut(low, high) if high > low else None


def _part(rows: int, rank: int, size: int) -> tuple[int, int]:
    """Which of a step's rows, counted in the step, are a rank's."""
    return rank * rows // size, (rank + 1) * rows // size


class _DrawnRows:
    """The rows of this rank in batches that were drawn, as the loader asks for them.

    Args:
        place: Number of this rank, and of how many.
    """

    def __init__(self, place: tuple[int, int]) -> None:
        self._place = place
        self._batches: Sequence[list[Any]] = ()

    def begin(self, batches: Sequence[list[Any]]) -> None:
        """From here on it is about these batches."""
        self._batches = batches

    def parts(self) -> Iterator[list[Any]]:
        """The rows of this rank in each batch, which may be none."""
        for batch in self._batches:
            low, high = _part(len(batch), *self._place)
            yield batch[low:high]

    def __iter__(self) -> Iterator[list[Any]]:
        return (rows for rows in self.parts() if rows)


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
        return _part(high - low, *self._place)

    def __iter__(self) -> Iterator[list[int]]:
        order = self._order
        assert order is not None
        for low, high in itertools.pairwise(self._ends):
            first, last = self.part(int(low), int(high))
            if last > first:
                yield order.take(int(low), int(high))[first:last].tolist()


def _with_rows(old: DataLoader[Any], rows: _PickedRows | _DrawnRows) -> DataLoader[Any]:
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
    return Batch(features, targets, _rows([*features, *targets]))


def _rows(values: Sequence[Any]) -> int:
    """Rows of the first that has some; a dict has those of what is in it."""
    for value in values:
        if isinstance(value, Mapping):
            return _rows(list(value.values()))
        if isinstance(value, list) or (isinstance(value, torch.Tensor | np.ndarray) and value.ndim):
            return len(value)
    return 1
