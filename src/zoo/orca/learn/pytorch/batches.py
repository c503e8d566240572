"""Batches as tensors, from shards or from the loaders that a creator function returns."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler

from zoo.cluster.meeting import Member
from zoo.errors import InputError, ShardsLostError
from zoo.orca.data.moving import move_shards
from zoo.orca.data.plan import TensorPlan
from zoo.orca.data.schedule import ShardOrder, step_bounds, step_count, window_rows
from zoo.orca.data.shard import Shard
from zoo.orca.learn.feed import ShardFeed

__all__ = ["Batch", "LoaderBatches", "LoaderSource", "ShardBatches", "ShardSource", "Source"]


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


def _moved(value: Any, device: torch.device) -> Any:
    return value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value


@dataclass(frozen=True)
class ShardSource:
    """Training data that lies in shards.

    Attributes:
        plan: The tensors.
        shards: All shards of the frame.
        batch_size: Rows of a step over all ranks.
        seed: Of the order; None keeps the order of the frame.
        part: Which data of the fit: 0 for training, 1 for validation.
    """

    plan: TensorPlan
    shards: tuple[Shard, ...]
    batch_size: int
    seed: int | None
    part: int = 0

    def open(self, member: Member) -> ShardBatches:
        """This rank's part of it."""
        return ShardBatches(self, member)


@dataclass(frozen=True)
class LoaderSource:
    """Training data that a creator function makes on every rank.

    Attributes:
        creator: `f(config, batch_size)` that returns a DataLoader.
        config: Its first argument, to which `rank` and `size` are added.
        batch_size: Rows of a step over all ranks.
        seed: Of the order.
    """

    creator: Callable[[dict[str, Any], int], Any]
    config: Mapping[str, Any]
    batch_size: int
    seed: int

    def open(self, member: Member) -> LoaderBatches:
        """This rank's part of it."""
        return LoaderBatches(self, member)


Source = ShardSource | LoaderSource


class ShardBatches:
    """Batches that are views of a stretch gathered from shards."""

    def __init__(self, source: ShardSource, member: Member) -> None:
        here = member.neighbours
        host = member.arrival.host
        # All look before any of them begins, so that all lost shards are known at once.
        mine = [s for s in source.shards if s.host == host]
        lost = [s.index for s in mine if not Path(s.path).is_dir()]
        everyone = sorted({k for part in member.share(lost) for k in part})
        if everyone:
            raise ShardsLostError(
                "the shards of every host on its disk", f"{len(everyone)} missing",
                "They are computed again.", everyone,
            )  # fmt: skip
        shards = move_shards(member, source.shards)
        if shards != source.shards and member.rank == 0:
            moved = [[s.index, s.host, s.path] for s in shards]
            member.report({"moved": moved, "part": source.part})
        try:
            self._feed = ShardFeed(
                source.plan,
                shards,
                host=member.arrival.host,
                place=(here.index(member.rank), len(here)),
                batch_size=source.batch_size,
                seed=source.seed,
                threads=torch.get_num_threads(),
            )
        except FileNotFoundError as exc:
            raise ShardsLostError(
                "the shards of this host on its disk", f"{exc.filename} missing",
                "They are written again from the frame.",
            ) from exc  # fmt: skip
        self._cut = len(source.plan.features)
        self.steps: int | None = self._feed.steps

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

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch | None]:
        """Batches from step `start` on; None for a step without rows for this rank."""
        if self._rows is None or self.steps is None:
            # A loader that cannot be told where to begin is read again up to there.
            for item in itertools.islice(self._loader, start, None):
                yield _batch(item)
            return
        shuffle = isinstance(self._loader.sampler, RandomSampler)
        key = (self._source.seed, epoch, 0)
        order = ShardOrder(self._rows, key, window=window_rows(1), shuffle=shuffle)
        ends = step_bounds([self._rows], self.steps, range(start, self.steps))[:, 0].tolist()
        rank, size = self._place
        picked = []
        for low, high in zip(ends, ends[1:], strict=False):
            mine = slice(rank * (high - low) // size, (rank + 1) * (high - low) // size)
            picked.append(order.take(low, high)[mine].tolist())
        batches = iter(self._with_rows([p for p in picked if p]))
        for rows in picked:
            yield _batch(next(batches)) if rows else None

    def _with_rows(self, rows: list[list[int]]) -> DataLoader[Any]:
        """The user's loader, reading these rows."""
        old = self._loader
        return DataLoader(
            old.dataset,
            batch_sampler=rows,
            num_workers=old.num_workers,
            collate_fn=old.collate_fn,
            timeout=old.timeout,
            worker_init_fn=old.worker_init_fn,
            multiprocessing_context=old.multiprocessing_context,
            prefetch_factor=old.prefetch_factor,
        )


def _split_rows(loader: DataLoader[Any]) -> int:
    """Rows of a loader that takes each row of its dataset once, in order or shuffled; else -1."""
    dataset: Any = loader.dataset
    if isinstance(dataset, IterableDataset) or not loader.batch_size:
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
