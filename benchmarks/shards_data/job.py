"""The work that every contender does: the CSV files, the transform and the training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

PROCESSES = 2
BATCH = 1024
LABEL = "y"
FLOATS = [f"f{i}" for i in range(10)]
FEATURES = [*FLOATS[:9], "ratio", "product", "logarithm", "third"]
LEAST = -1.0
"""Rows whose last float is not above this are left out."""

_CHUNK_ROWS = 100_000


@dataclass(frozen=True)
class Job:
    """What is measured.

    Attributes:
        folder: Holds `csv`, and files for a while.
        memory: Of the driver's JVM.
    """

    folder: str
    memory: str

    @property
    def csv(self) -> Path:
        """The folder of CSV files."""
        return Path(self.folder) / "csv"

    @property
    def files(self) -> list[str]:
        """The CSV files."""
        return [str(file) for file in sorted(self.csv.glob("*.csv"))]


@dataclass
class Run:
    """What one contender gives back.

    Attributes:
        name: Who.
        stages: Seconds of each stage.
        rows: Trained on, after the filter.
        loss: The mean loss of the epoch.
        start_s: Seconds that Spark took to start, which no stage counts.
        processes: Peaks of the Python processes: what each is, RSS and anonymous MiB.
    """

    name: str
    stages: dict[str, float] = field(default_factory=dict)
    rows: int = 0
    loss: float = 0.0
    start_s: float = 0.0
    processes: list[tuple[str, float, float]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Seconds of all stages."""
        return sum(self.stages.values())

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        start = time.perf_counter()
        yield
        self.stages[name] = time.perf_counter() - start


def write_csv(job: Job, files: int, enough: Callable[[int, int], bool]) -> tuple[int, int]:
    """Write the CSV files, in turns, so that they are of the same size.

    Args:
        job: Where.
        files: How many.
        enough: Says for rows and bytes written whether that will do.

    Returns:
        Rows, and bytes.
    """
    import pyarrow as pa
    from pyarrow import csv

    job.csv.mkdir()
    draw = np.random.default_rng(0)
    places = [job.csv / f"part-{number:03d}.csv" for number in range(files)]
    rows = size = turn = 0
    while not enough(rows, size) or turn < files:
        place = places[turn % files]
        with place.open("ab") as stream:
            header = csv.WriteOptions(include_header=turn < files)
            csv.write_csv(pa.table(_chunk(draw)), stream, header)
            size += stream.tell()
        size -= 0 if turn < files else _before(place, turn)
        rows, turn = rows + _CHUNK_ROWS, turn + 1
    return rows, sum(place.stat().st_size for place in places)
