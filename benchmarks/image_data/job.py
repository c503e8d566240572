"""The work that every contender does, and what is noted about it."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

CLASSES = 10
PROCESSES = 2
WORKERS = (2, 1, 0)
_DROP = Path("/proc/sys/vm/drop_caches")


@dataclass(frozen=True)
class Job:
    """What is measured.

    Attributes:
        folder: Holds `images`, and a dataset for each contender.
        pixels: Width and height of the pictures; 0 in random access.
        files: How many pictures, or records.
        rounds: Times a warm measurement is made; the median counts.
        cold: Also measure with an empty page cache.
        lookups: Records of random access.
        record_bytes: Of one of them.
    """

    folder: str
    pixels: int
    files: int
    rounds: int
    cold: bool
    lookups: int = 1000
    record_bytes: int = 3000

    @property
    def images(self) -> Path:
        """The folder of class folders with JPEGs."""
        return Path(self.folder) / "images"

    @property
    def batch(self) -> int:
        """Images of a batch: of float32, both 64 of 224 pixels and 16 of 500 are 40 to 50 MB."""
        return 64 if self.pixels <= 224 else 16

    def dataset(self, name: str) -> str:
        """Return where a contender keeps its dataset."""
        return str(Path(self.folder) / f"dataset-{name}")


@dataclass(frozen=True)
class Figure:
    """One measurement.

    Attributes:
        part: "write", "read" or "access".
        name: Who.
        case: What on, such as "32 px".
        how: The settings, such as "2 workers, shuffled, warm".
        seconds: Of all of it.
        rate: Files, images or records a second in all.
        steady: Images a second in the second half.
        mib: Written.
        latency_ms: Median and 99th percentile of single lookups.
        processes: That do the work.
    """

    part: str
    name: str
    case: str
    how: str
    seconds: float
    rate: float
    steady: float | None = None
    mib: float | None = None
    latency_ms: tuple[float, float] | None = None
    processes: int = PROCESSES


def case_of(job: Job) -> str:
    """Name the pictures or records in figures."""
    return f"{job.pixels} px" if job.pixels else f"{job.files:,} records"


def listed(job: Job) -> list[tuple[str, int]]:
    """Return path and class number of each picture, mixed as a written dataset is."""
    found = sorted(job.images.glob("*/*.jpg"))
    random.Random(0).shuffle(found)
    return [(str(path), int(path.parent.name)) for path in found]


def middle(figures: Sequence[Figure]) -> Figure:
    """Return the one with the median time."""
    return sorted(figures, key=lambda figure: figure.seconds)[len(figures) // 2]


def size_mib(folder: str) -> float:
    """Return what all files below a folder take."""
    return sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file()) / 2**20


def drop_page_cache() -> bool:
    """Let the kernel forget file contents, if this user may ask for that."""
    os.sync()
    with contextlib.suppress(OSError):
        _DROP.write_text("3")
        return True
    return False


def states(job: Job) -> Iterator[tuple[str, int]]:
    """Return the states of the page cache to measure in, and how often."""
    if job.cold and drop_page_cache():
        yield "cold", 1
    yield "warm", job.rounds


def in_processes(work: Callable[[Sequence[Any]], Any], items: Sequence[Any], count: int) -> float:
    """Return the seconds that forked processes take over equal shares of the items.

    Their start is not counted: they begin together.
    """
    context = get_context("fork")
    barrier, times = context.Barrier(count), context.SimpleQueue()

    def run(share: Sequence[Any]) -> None:
        barrier.wait()
        start = time.perf_counter()
        work(share)
        times.put(time.perf_counter() - start)

    running = [context.Process(target=run, args=(items[k::count],)) for k in range(count)]
    for process in running:
        process.start()
    for process in running:
        process.join()
        if process.exitcode:
            raise RuntimeError(f"a process ended with {process.exitcode}")
    seconds: list[float] = [times.get() for _ in running]
    return max(seconds)


def epoch_of(batches: Iterable[Any], count: int) -> tuple[float, float]:
    """Go through a loader once.

    Args:
        batches: Dicts with an `image` batch.
        count: Images that must come.

    Returns:
        Seconds in all, and images a second in the second half, when all workers are there.
    """
    seen, half, start = 0, 0, time.perf_counter()
    half_at = start
    for batch in batches:
        seen += len(batch["image"])
        if not half and seen >= count / 2:
            half, half_at = seen, time.perf_counter()
    end = time.perf_counter()
    if seen != count:
        raise RuntimeError(f"{seen} of {count} images came")
    return end - start, (seen - half) / (end - half_at) if seen > half else seen / (end - start)


def read_figures(
    name: str, job: Job, open_loader: Callable[[int, bool], Iterable[Any]]
) -> list[Figure]:
    """Measure a loader for each number of workers, in order and shuffled.

    Args:
        name: Who.
        job: The work.
        open_loader: Makes a loader for a number of workers, shuffled or not.
    """
    import torch

    torch.set_num_threads(1)
    figures = []
    for workers in WORKERS:
        for shuffled in (False, True):
            # What a process does once only, such as imports, is nobody's rate.
            next(iter(open_loader(workers, shuffled)))
            for state, rounds in states(job):
                if state == "warm" and not job.cold:
                    epoch_of(open_loader(workers, shuffled), job.files)
                done = [epoch_of(open_loader(workers, shuffled), job.files) for _ in range(rounds)]
                seconds, steady = (median(kind) for kind in zip(*done, strict=True))
                order = "shuffled" if shuffled else "in order"
                how = f"{workers} workers, {order}, {state}"
                rate = job.files / seconds
                figures.append(
                    Figure(
                        "read", name, case_of(job), how, seconds, rate, steady,
                        processes=max(workers, 1),
                    )
                )  # fmt: skip
    return figures


def records_of(job: Job) -> Iterator[tuple[int, bytes]]:
    """Return number and bytes of the records of random access; the bytes cannot be compressed."""
    pool = np.random.default_rng(0).bytes(2**20 + job.record_bytes)
    for number in range(job.files):
        at = number * 7919 % 2**20
        yield number, number.to_bytes(8, "little") + pool[at : at + job.record_bytes - 8]


def lookup_numbers(job: Job) -> list[int]:
    """Return which records are looked up."""
    draw = np.random.default_rng(1)
    picked: list[int] = draw.choice(job.files, min(job.lookups, job.files), replace=False).tolist()
    return picked


def access_figures(
    name: str,
    job: Job,
    one: Callable[[int], bytes] | None,
    many: Callable[[list[int]], list[bytes]],
) -> list[Figure]:
    """Measure lookups of single records one after the other, and of all in one call.

    Args:
        name: Who.
        job: The work.
        one: Returns the bytes of a record; None where that would be a scan for each.
        many: Returns the bytes of several records, in any order.
    """
    numbers, figures = lookup_numbers(job), []
    for state, rounds in states(job):
        single = [_timed_lookups(one, numbers) for _ in range(rounds)] if one else []
        if single:
            times = np.array(single[-1]) * 1000
            seconds = median(sum(times_s) for times_s in single)
            latency = float(np.median(times)), float(np.percentile(times, 99))
            how, rate = f"one at a time, {state}", len(numbers) / seconds
            figures.append(
                Figure("access", name, case_of(job), how, seconds, rate, latency_ms=latency)
            )
        if state == "cold":
            drop_page_cache()
        seconds = median(_timed_call(many, numbers) for _ in range(rounds))
        how, rate = f"in one call, {state}", len(numbers) / seconds
        figures.append(Figure("access", name, case_of(job), how, seconds, rate))
    return figures


def _timed_lookups(one: Callable[[int], bytes], numbers: Sequence[int]) -> list[float]:
    times = []
    for number in numbers:
        start = time.perf_counter()
        data = one(number)
        times.append(time.perf_counter() - start)
        if int.from_bytes(data[:8], "little") != number:
            raise RuntimeError(f"another record than {number} came")
    return times


def _timed_call(many: Callable[[list[int]], list[bytes]], numbers: list[int]) -> float:
    start = time.perf_counter()
    found = many(numbers)
    seconds = time.perf_counter() - start
    if sorted(int.from_bytes(data[:8], "little") for data in found) != sorted(numbers):
        raise RuntimeError("other records came than were asked for")
    return seconds
