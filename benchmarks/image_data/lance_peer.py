"""Lance: `write_dataset` from a reader of batches; `take` and scans under torch's loader."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lance  # type: ignore[import-not-found, unused-ignore]
import pyarrow as pa
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate, get_worker_info

from image_data.job import (
    Figure,
    Job,
    access_figures,
    case_of,
    drop_page_cache,
    listed,
    middle,
    read_figures,
    records_of,
    size_mib,
)
from zoo.orca.data.image import ImageDecoder

_SCHEMA = pa.schema(
    {"image": pa.binary(), "label": pa.int64(), "image_id": pa.string(), "label_str": pa.string()}
)
_RECORDS = pa.schema({"number": pa.int64(), "data": pa.binary()})
_ROWS = 1024


def write(job: Job) -> list[Figure]:
    """One call; its own threads encode and write while Python reads the files."""
    figures = [middle([_written(job, "warm") for _ in range(job.rounds)])]
    if job.cold and drop_page_cache():
        figures.append(_written(job, "cold"))
    return figures


def _written(job: Job, how: str) -> Figure:
    target = job.dataset("lance")
    shutil.rmtree(target, ignore_errors=True)
    start = time.perf_counter()
    reader = pa.RecordBatchReader.from_batches(_SCHEMA, _batches(listed(job)))
    lance.write_dataset(reader, target, schema=_SCHEMA)
    seconds = time.perf_counter() - start
    rate, mib = job.files / seconds, size_mib(target)
    return Figure("write", "Lance", case_of(job), how, seconds, rate, mib=mib)


def _batches(files: Sequence[tuple[str, int]]) -> Iterator[pa.RecordBatch]:
    for at in range(0, len(files), _ROWS):
        some = files[at : at + _ROWS]
        paths, labels = [path for path, _ in some], [label for _, label in some]
        images = [Path(path).read_bytes() for path in paths]
        columns = [images, labels, paths, [str(label) for label in labels]]
        arrays = [pa.array(c, f.type) for c, f in zip(columns, _SCHEMA, strict=True)]
        yield pa.record_batch(arrays, schema=_SCHEMA)


class _Taken(Dataset[dict[str, Any]]):
    """A map-style dataset; opened in the process that reads, as Lance does not survive a fork."""

    def __init__(self, path: str, count: int, decoder: Callable[[bytes], Any]) -> None:
        self.path, self.count, self.decoder = path, count, decoder
        self.data: Any = None

    def __len__(self) -> int:
        return self.count

    def __getitems__(self, numbers: list[int]) -> list[dict[str, Any]]:
        if self.data is None:
            self.data = lance.dataset(self.path)
        return _decoded(self.data.take(numbers, columns=["image", "label"]), self.decoder)


class _Scanned(IterableDataset[dict[str, Any]]):
    """Batches in order; worker k of n has the k-th of n stretches."""

    def __init__(self, path: str, count: int, decoder: Callable[[bytes], Any], batch: int) -> None:
        self.path, self.count, self.decoder, self.batch = path, count, decoder, batch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        low, high = (self.count * k // workers for k in (number, number + 1))
        data = lance.dataset(self.path)
        for batch in data.to_batches(
            columns=["image", "label"], batch_size=self.batch, offset=low, limit=high - low
        ):
            yield default_collate(_decoded(batch, self.decoder))


def _decoded(rows: Any, decoder: Callable[[bytes], Any]) -> list[dict[str, Any]]:
    images, labels = rows["image"].to_pylist(), rows["label"].to_pylist()
    return [
        {"image": decoder(data), "label": label} for data, label in zip(images, labels, strict=True)
    ]


def read(job: Job) -> list[Figure]:
    """Scans in order, and `take` of shuffled numbers, in spawned workers as its manual asks."""
    decoder = ImageDecoder(size=(job.pixels, job.pixels))
    place = job.dataset("lance"), job.files, decoder

    def loader(workers: int, shuffled: bool) -> Iterable[Any]:
        start = {"num_workers": workers, "multiprocessing_context": "spawn" if workers else None}
        if shuffled:
            return DataLoader(_Taken(*place), job.batch, shuffle=True, **start)  # type: ignore[arg-type]
        return DataLoader(_Scanned(*place, job.batch), None, **start)  # type: ignore[arg-type]

    return read_figures("Lance", job, loader)


def access(job: Job) -> list[Figure]:
    """Write the records, then look some up."""
    target = job.dataset("lance")
    start = time.perf_counter()
    reader = pa.RecordBatchReader.from_batches(_RECORDS, _record_batches(job))
    lance.write_dataset(reader, target, schema=_RECORDS)
    seconds = time.perf_counter() - start
    written = Figure(
        "access", "Lance", case_of(job), "written by one process", seconds, job.files / seconds,
        mib=size_mib(target),
    )  # fmt: skip
    data = lance.dataset(target)

    def one(number: int) -> bytes:
        found: bytes = data.take([number], columns=["data"])["data"][0].as_py()
        return found

    def many(numbers: list[int]) -> list[bytes]:
        found: list[bytes] = data.take(numbers, columns=["data"])["data"].to_pylist()
        return found

    figures = [written, *access_figures("Lance", job, one, many)]
    shutil.rmtree(target)
    return figures


def _record_batches(job: Job) -> Iterator[pa.RecordBatch]:
    numbers: list[int] = []
    values: list[bytes] = []
    for number, data in records_of(job):
        numbers.append(number)
        values.append(data)
        if len(numbers) == _ROWS or number == job.files - 1:
            arrays = [pa.array(numbers, pa.int64()), pa.array(values, pa.binary())]
            yield pa.record_batch(arrays, schema=_RECORDS)
            numbers, values = [], []
