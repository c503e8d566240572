"""What needs no dataset library: the limits, a folder of files, and a scan of Parquet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from image_data.job import (
    PROCESSES,
    Figure,
    Job,
    access_figures,
    case_of,
    in_processes,
    listed,
    read_figures,
    states,
)
from zoo.orca.data.image import ImageDecoder


def read_files(job: Job) -> list[Figure]:
    """The limit of writing: read all files, and write nothing."""
    paths = [path for path, _ in listed(job)]
    figures = []

    def work(share: Sequence[str]) -> None:
        for path in share:
            with open(path, "rb", buffering=0) as file:
                file.read()

    for state, rounds in states(job):
        seconds = median(in_processes(work, paths, PROCESSES) for _ in range(rounds))
        rate = job.files / seconds
        figures.append(Figure("write", "limit: files read", case_of(job), state, seconds, rate))
    return figures


def decode(job: Job) -> list[Figure]:
    """The limit of reading: decode bytes that are in memory, and make no batches."""
    data = [Path(path).read_bytes() for path, _ in listed(job)]
    decoder = ImageDecoder(size=(job.pixels, job.pixels))
    figures = []

    def work(share: Sequence[bytes]) -> None:
        for one in share:
            decoder(one)

    work(data[: job.batch])
    for count in (1, PROCESSES):
        seconds = median(in_processes(work, data, count) for _ in range(job.rounds))
        rate, how = job.files / seconds, f"{count} processes, from memory"
        figures.append(
            Figure("read", "limit", case_of(job), how, seconds, rate, rate, processes=count)
        )
    return figures


class _Files:
    """What torch's loader takes for a dataset; most here need no torch."""

    def __init__(self, files: Sequence[tuple[str, int]], decoder: Callable[[bytes], Any]) -> None:
        self.files, self.decoder = files, decoder

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, label = self.files[index]
        return {"image": self.decoder(Path(path).read_bytes()), "label": label}


def read_folder(job: Job) -> list[Figure]:
    """The files as they are, under torch's loader."""
    from torch.utils.data import DataLoader

    files: Any = _Files(listed(job), ImageDecoder(size=(job.pixels, job.pixels)))

    def loader(workers: int, shuffled: bool) -> Iterable[Any]:
        return DataLoader(files, job.batch, shuffle=shuffled, num_workers=workers)

    return read_figures("folder of files", job, loader)


def scan(job: Job) -> list[Figure]:
    """Look records up in our dataset with pyarrow: a filter on their number, or `take`."""
    data = ds.dataset(job.dataset("ours"), format="parquet")

    def filtered(numbers: list[int]) -> list[bytes]:
        wanted = ds.field("number").isin(pa.array(numbers))
        found: list[bytes] = data.to_table(columns=["data"], filter=wanted)["data"].to_pylist()
        return found

    def taken(numbers: list[int]) -> list[bytes]:
        found: list[bytes] = data.take(numbers, columns=["data"])["data"].to_pylist()
        return found

    return [
        *access_figures("Parquet scan (filter)", job, None, filtered),
        *access_figures("Parquet scan (take)", job, None, taken),
    ]
