"""A dataset as a torch `DataLoader`."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import load_extra
from zoo.orca.data.image.layout.dataset_folder import DatasetFolder, open_dataset
from zoo.orca.data.image.on_error import OnError
from zoo.orca.data.image.reading.batch_tensors import Ring, collate, scaled
from zoo.orca.data.image.reading.batches import BatchRecords, EpochBatches, Fetched
from zoo.orca.data.image.reading.records import Decoder, Records, choose_decoders
from zoo.orca.data.image.reading.share import say_unused, share_of, worker_count
from zoo.orca.data.image.reading.shuffle import RowPlan, runs_of

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

__all__ = ["read_as_dataloader"]

_log = logging.getLogger(__name__)

# Batches that workers make in advance when these are small; torch's default is 2.
_SMALL_BATCH, _AHEAD = 1 << 20, 8
_TORCH_KEYS = (
    "multiprocessing_context",
    "num_workers",
    "persistent_workers",
    "pin_memory",
    "pin_memory_device",
    "prefetch_factor",
    "timeout",
    "worker_init_fn",
)


def read_as_dataloader(  # noqa: PLR0913 - what existing programs pass, and settings of the order
    path: str,
    transforms: Callable[[dict[str, Any]], Any] | None = None,
    config: Mapping[str, Any] | None = None,
    batch_size: int = 1,
    *,
    columns: Sequence[str] | None = None,
    decoders: Mapping[str, Decoder | None] | None = None,
    shuffle: bool = False,
    shuffle_buffer: int = 10_000,
    seed: int = 0,
    drop_last: bool = False,
    on_error: OnError = "fail",
    collate_fn: Callable[[list[Any]], Any] | None = None,
) -> DataLoader[Any]:
    """Read a dataset, or one reader's share of it, as a torch `DataLoader`.

    Each record comes once an epoch, and only the last batch may be short. Batches and their order
    depend on the data and the settings here, not on the number of workers. `loader.dataset` is
    also a sequence of the records.

    A shuffled loader has another order each epoch. The first iteration is epoch 0, each further
    one the next; `loader.dataset.set_epoch(n)` chooses, as when training is resumed.

    Args:
        path: The folder of the dataset.
        transforms: Applied to each record, a dict from column to value. Images are float32
            arrays (channel, height, width) from 0 to 1. Columns that its attribute `wants_bytes`
            names stay bytes.
        config: `num_shards`, `rank` and `balance` (see `share_of`), and what torch's loader
            takes: `num_workers`, the processes that decode, `prefetch_factor`,
            `persistent_workers`, `pin_memory` and so on; those for workers count only with
            workers. Other keys are left alone, with a warning.
        batch_size: Records in a batch, which torch's default rule collates.
        columns: The columns to read; all when None.
        decoders: Other decoders for columns; None as a decoder keeps the bytes.
        shuffle: Whether to shuffle: runs of rows over the whole share, and within a buffer single
            records.
        shuffle_buffer: Records of the buffer, of which only the numbers take memory, unless
            another program than ours wrote the dataset: then the row groups around them do.
        seed: Of the order.
        drop_last: Whether to leave out a last batch that is short.
        on_error: What happens when a record cannot be decoded or transformed: "fail"; "skip",
            where batches get shorter by it and `loader.dataset.skipped` counts it; or
            "quarantine", where `loader.dataset.quarantined` lists file, row and reason, too. A
            file that is not as it was written is always an error.
        collate_fn: Makes a batch of a list of records, instead of torch's default rule.

    Raises:
        InputError: There is no whole dataset at the path, or a setting is out of its range.
        ContractError: `num_shards` and `rank` do not fit the dataset or each other.
        MissingExtraError: torch is not installed.
    """
    settings = dict(config or {})
    say_unused(settings, _TORCH_KEYS)
    loader_class = _loader_class()
    dataset = open_dataset(path)
    share = share_of(dataset, settings)
    undecoded = tuple(getattr(transforms, "wants_bytes", ()))
    records = Records(
        share,
        columns=columns,
        decoders=choose_decoders(dataset.schema, decoders, undecoded),
        transform=transforms,
    )
    batched = BatchRecords(records, collate_fn=collate_fn, on_error=on_error, seed=seed)
    plan = RowPlan(
        runs_of(share, shuffle_buffer), batch_size, shuffle, shuffle_buffer, seed, drop_last
    )
    return loader_class(batched, plan, _torch_settings(settings, dataset))


def _torch_settings(settings: Mapping[str, Any], dataset: DatasetFolder) -> dict[str, Any]:
    found = {name: settings[name] for name in _TORCH_KEYS if name in settings}
    found["num_workers"] = worker_count(settings)
    if not found["num_workers"]:
        # Programs pass one config to loaders with workers and without.
        for name in ("multiprocessing_context", "persistent_workers", "prefetch_factor"):
            found.pop(name, None)
    elif not isinstance(dataset.path, Path) and getattr(dataset.path.fs, "async_impl", False):
        # The threads behind such file systems do not survive a fork.
        found.setdefault("multiprocessing_context", "spawn")
    return found


@functools.cache
def _loader_class() -> Callable[[BatchRecords, RowPlan, Mapping[str, Any]], DataLoader[Any]]:
    """Return our kind of loader, a class that can only be made once torch is there."""
    load_extra("torch.utils.data", "torch")
    from torch.utils.data import DataLoader, RandomSampler

    class ParquetLoader(DataLoader[Any]):
        """A loader that counts what its workers leave out, and knows the epoch."""

        def __init__(
            self, dataset: BatchRecords, plan: RowPlan, settings: Mapping[str, Any]
        ) -> None:
            data: Any = dataset
            sampler: Any = EpochBatches(dataset, plan)
            if settings.get("num_workers") and _image_bytes(dataset, plan) < _SMALL_BATCH:
                # They are made in less time than a batch may wait to be passed on.
                settings = {"prefetch_factor": _AHEAD, **settings}
            super().__init__(data, batch_sampler=sampler, collate_fn=collate, **settings)
            self._plan = plan
            # What was pinned must stay where it is.
            dataset.scales_late = dataset.by_column and self.num_workers > 0 and not self.pin_memory
            # What torch leaves empty beside a batch sampler, and trainers look for.
            object.__setattr__(self, "batch_size", plan.batch_size)
            object.__setattr__(self, "drop_last", plan.drop_last)
            if plan.shuffle and len(dataset):
                object.__setattr__(self, "sampler", RandomSampler(dataset))

        def __iter__(self) -> Any:
            records: Any = self.dataset
            if self._iterator is None and records.scales_late:
                # Of its own for each iteration, as two may run at once; persistent workers keep it.
                records.ring = self._ring(records)
            batches = super().__iter__()
            records.begin_epoch()
            return _received(records, batches, records.ring)

        def _ring(self, records: BatchRecords) -> Ring | None:
            size = _image_bytes(records, self._plan)
            return Ring.if_there_is_room(self.num_workers, self.prefetch_factor or 2, size)

    return ParquetLoader


def _image_bytes(dataset: BatchRecords, plan: RowPlan) -> int:
    """Bytes of those images of a batch whose size is known."""
    return plan.batch_size * sum(math.prod(d.shape or ()) for d in dataset.images.values())


def _received(
    dataset: BatchRecords, batches: Iterator[Fetched], ring: Ring | None
) -> Iterator[Any]:
    decoders = dataset.records.decoders
    try:
        for fetched in batches:
            dataset.note(fetched.bad)
            if fetched.error is not None:
                raise fetched.error
            if fetched.values is not None:
                late = dataset.scales_late
                values = fetched.values
                yield scaled(values, decoders, dataset.memory, ring) if late else values
    finally:
        # An error holds this frame, and the frame the error. Workers that such a ring holds, too,
        # are only stopped by torch's timeouts.
        del batches
    if dataset.skipped:
        _log.warning(
            "%d of %d records left out, which could not be used", dataset.skipped, len(dataset)
        )
