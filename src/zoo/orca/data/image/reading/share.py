"""What one reader of several takes of a dataset: whole chunks, or an equal number of rows."""

from __future__ import annotations

import logging
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from zoo.errors import ContractError, InputError
from zoo.orca.data.image.layout.dataset_folder import DatasetFolder
from zoo.orca.data.image.reading.chunk_files import ChunkFile, list_files

__all__ = ["Share", "Stretch", "say_unused", "share_of", "worker_count"]

_log = logging.getLogger(__name__)

_KEYS = frozenset(("num_shards", "rank", "balance"))


class Stretch(NamedTuple):
    """Consecutive rows of a file, from `start` up to `stop`."""

    file: ChunkFile
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
            the readers take consecutive rows, whose numbers differ by one at most, for any number
            of readers. The config of a data creator of an estimator has `size` in the place of
            `num_shards`, and "rows" is its default. Other keys are left alone.

    Raises:
        ContractError: `num_shards` and `rank` do not fit the dataset or each other.
        InputError: `balance` is unknown, or a chunk is missing or damaged.
    """
    # Not a copy: the config of a creator notes that it was asked for the rank.
    settings = {} if config is None else config
    given = _of_creator(settings)
    balance = settings.get("balance", "rows" if given else "chunks")
    if balance not in ("chunks", "rows"):
        raise InputError("balance 'chunks' or 'rows'", repr(balance), "Choose one of them.")
    limit = len(dataset.chunks) if balance == "chunks" else None
    wanted = settings.get("size" if given else "num_shards")
    shards, rank = _checked(wanted, settings.get("rank"), limit)
    if balance == "rows":
        return _rows(dataset, shards, rank)
    files = list_files(dataset, range(rank, len(dataset.chunks), shards))
    return Share(dataset, tuple(Stretch(file, 0, file.rows) for file in files if file.rows))


def say_unused(config: Mapping[str, Any], known: Iterable[str] = ()) -> None:
    """Warn of keys in a config that its reader does not know: a misspelt one would do nothing.

    Nothing is said of the config of a data creator, which is made for others too.

    Args:
        config: The config.
        known: Keys of the reader beside those of `share_of`.
    """
    unused = sorted(map(str, config.keys() - _KEYS - set(known)))
    if unused and not _of_creator(config):
        _log.warning("keys of config that mean nothing here: %s", ", ".join(unused))


def _of_creator(config: Mapping[str, Any]) -> bool:
    """Whether an estimator has made it for a data creator: with the rank, and of how many."""
    return "num_shards" not in config and "size" in config and "rank" in config


def worker_count(config: Mapping[str, Any]) -> int:
    """Return `num_workers` of a config, 0 when it is left out.

    Raises:
        InputError: It is no number of workers.
    """
    workers = config.get("num_workers")
    if workers is None:
        return 0
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 0:
        raise InputError("num_workers from 0", repr(workers), "Give a number of workers.")
    return workers


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
    files = list_files(dataset, range(len(dataset.chunks)))
    total = sum(file.rows for file in files)
    first, last = rank * total // shards, (rank + 1) * total // shards
    stretches, begin = [], 0
    for file in files:
        start, stop = max(first - begin, 0), min(last - begin, file.rows)
        if start < stop:
            stretches.append(Stretch(file, start, stop))
        begin += file.rows
    return Share(dataset, tuple(stretches))
