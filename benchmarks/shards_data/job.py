"""The work that every contender does: the CSV files, the transform and the training."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from pyarrow import csv

if TYPE_CHECKING:
    import torch

PROCESSES = 2
BATCH = 1024
LABEL = "y"
FLOATS = [f"f{i}" for i in range(10)]
FEATURES = [*FLOATS[:9], "ratio", "product", "logarithm", "third"]
NOISE = 0.1
LEAST = -1.0
"""Rows whose last float is not above this are left out."""

_CHUNK_ROWS = 100_000


@dataclass(frozen=True)
class Job:
    """What is measured.

    Attributes:
        folder: Holds `csv`, and files for a while.
        memory: Of the driver's JVM.
        rounds: Times that those with a Spark session do the work in it.
    """

    folder: str
    memory: str
    rounds: int

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
    """All of the work, done once.

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


def row_bytes() -> float:
    """Return how long a row of the CSV files is."""
    stream = io.BytesIO()
    csv.write_csv(_rows(np.random.default_rng(0), _CHUNK_ROWS), stream)
    return stream.tell() / _CHUNK_ROWS


def write_csv(job: Job, rows: int, files: int) -> int:
    """Write CSV files of about equal size.

    Returns:
        Their bytes in all.
    """
    job.csv.mkdir()
    draw = np.random.default_rng(0)
    for number in range(files):
        left = rows * (number + 1) // files - rows * number // files
        place = job.csv / f"part-{number:03d}.csv"
        with csv.CSVWriter(place, _rows(draw, 0).schema) as writer:
            while left:
                count = min(left, _CHUNK_ROWS)
                writer.write_table(_rows(draw, count))
                left -= count
    return sum(Path(file).stat().st_size for file in job.files)


def _rows(draw: np.random.Generator, count: int) -> pa.Table:
    """Ten normal columns, a small whole number, and a label that they decide but for noise."""
    floats = draw.standard_normal((count, len(FLOATS))).round(6)
    kind = draw.integers(0, 10, count)
    label = floats[:, 0] - floats[:, 2] * floats[:, 3] / 2 + (kind == 3)
    label = (label + NOISE * draw.standard_normal(count)).round(6)
    columns = dict(zip(FLOATS, floats.T, strict=True))
    return pa.table({**columns, "kind": kind, LABEL: label})


def transform(frame: Any) -> Any:
    """The user's function: new columns, and a filter. For a DataFrame of pandas, or of Spark's."""
    frame = frame[frame["f9"] > LEAST]
    frame = frame.assign(
        ratio=frame["f0"] / (1 + frame["f1"].abs()),
        product=frame["f2"] * frame["f3"],
        logarithm=np.log1p(frame["f4"].abs()),
        third=(frame["kind"] == 3).astype("float64"),
    )
    return frame[[*FEATURES, LABEL]].astype("float32")


def make_model(_: dict[str, Any]) -> torch.nn.Module:
    """A small network; weights are the same everywhere."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(len(FEATURES), 64), nn.ReLU(), nn.Linear(64, 1), nn.Flatten(0))


def make_optimizer(model: torch.nn.Module, _: dict[str, Any]) -> torch.optim.Optimizer:
    """Adam as it comes."""
    import torch

    return torch.optim.Adam(model.parameters(), lr=1e-3)
