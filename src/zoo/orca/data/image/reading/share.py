"""What one reader of several takes of a dataset: whole chunks, or an equal number of rows."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from zoo.errors import ContractError, InputError
from zoo.orca.data.image.layout.dataset_folder import DatasetFolder
from zoo.orca.data.image.reading.part_file import Part
from zoo.orca.data.image.reading.part_list import list_parts

__all__ = ["Share", "Stretch", "share_of"]


class Stretch(NamedTuple):
    """Consecutive rows of a file, from `start` up to `stop`."""

    part: Part
    start: int
    stop: int


@dataclass(frozen=True)
class Share:
    """The rows that one reader takes, in the order of the dataset."""

    dataset: DatasetFolder
    stretches: tuple[Stretch, ...]

    @property
    def rows(self) -> int:
        """The number of records."""
        return sum(stretch.stop - stretch.start for stretch in self.stretches)


def share_of(dataset: DatasetFolder, config: Mapping[str, Any] | None = None) -> Share:
    """Return what a reader takes of a dataset.

    Args:
        dataset: The dataset.
        config: `num_shards` readers in all, of which this one is `rank`; without both, the reader
            takes everything. `balance` says how they share: "chunks" (the default), where a
            reader takes every chunk whose number modulo `num_shards` is `rank`, or "rows", where
            the readers take consecutive stretches whose lengths differ by one row at most, for
            any number of readers. Other keys are left alone.

    Raises:
        ContractError: `num_shards` and `rank` do not fit the dataset or each other.
        InputError: `balance` is unknown, or a chunk is missing or damaged.
    """
    settings = dict(config or {})
    balance = settings.get("balance", "chunks")
    if balance not in ("chunks", "rows"):
        raise InputError("balance 'chunks' or 'rows'", repr(balance), "Choose one of them.")
    limit = len(dataset.chunks) if balance == "chunks" else None
    shards, rank = _checked(settings.get("num_shards"), settings.get("rank"), limit)
    if balance == "rows":
        return _rows(dataset, shards, rank)
    parts = list_parts(dataset, range(rank, len(dataset.chunks), shards))
    return Share(dataset, tuple(Stretch(part, 0, part.rows) for part in parts if part.rows))


def _checked(num_shards: Any, rank: Any, limit: int | None) -> tuple[int, int]:
    if num_shards is None and rank is None:
        return 1, 0
    # Half a setting would let every reader take everything.
    if num_shards is None or rank is None:
        given = "rank" if num_shards is None else "num_shards"
        raise ContractError("num_shards and rank", f"{given} alone", "Set both in the config.")
    shards, number = _whole("num_shards", num_shards), _whole("rank", rank)
    if shards < 1 or (limit is not None and shards > limit):
        raise ContractError(
            "num_shards from 1" + (f" to the number of chunks, {limit}" if limit else ""),
            str(num_shards),
            "Use fewer shards, balance='rows', or write the dataset with a smaller block_size.",
        )
    if not 0 <= number < shards:
        raise ContractError(f"rank from 0 to {shards - 1}", str(rank), "Count ranks from 0.")
    return shards, number


def _whole(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError as exc:
        raise ContractError(f"{name} as an int", repr(value), "Give a whole number.") from exc


def _rows(dataset: DatasetFolder, shards: int, rank: int) -> Share:
    parts = list_parts(dataset, range(len(dataset.chunks)))
    total = sum(part.rows for part in parts)
    first, last = rank * total // shards, (rank + 1) * total // shards
    stretches, begin = [], 0
    for part in parts:
        start, stop = max(first - begin, 0), min(last - begin, part.rows)
        if start < stop:
            stretches.append(Stretch(part, start, stop))
        begin += part.rows
    return Share(dataset, tuple(stretches))
