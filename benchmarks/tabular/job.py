"""The job that every contender does: the data, the model, and what is noted about a run."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch
    from pyspark.sql import DataFrame, SparkSession

NOISE = 0.1
LABEL = "y"


@dataclass(frozen=True)
class Job:
    """What is trained, and how.

    Attributes:
        rows: Rows of the frame.
        columns: Float columns besides the label.
        batches: Rows of a step over all ranks. All contenders run the first; ours and the limit
            run the others too.
        ranks: Of a distributed training; also the cores of Spark.
        epochs: Times every row is used.
        persisted: Whether Spark holds the frame.
        memory: Of the driver's JVM.
        folder: Temporary files of the run.
    """

    rows: int
    columns: int
    batches: tuple[int, ...]
    ranks: int
    epochs: int
    persisted: bool
    memory: str
    folder: str

    @property
    def features(self) -> list[str]:
        """Names of the feature columns."""
        return [f"c{i}" for i in range(self.columns)]

    @property
    def mark(self) -> Path:
        """The file in which `mark_first_batch` notes the time."""
        return Path(self.folder) / "first-batch"


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        name: Who ran it.
        batch: Rows of a step.
        rows: Rows of an epoch.
        seconds: All of it, from a Spark frame (of the limit: from tensors) to a trained model.
        epoch_s: Seconds of each epoch.
        first_batch_s: From the start to the first forward pass.
        loss: Mean loss of the last epoch.
        driver_mib: Peak of the driver's anonymous memory.
        rank_mib: Peak of the anonymous memory of one rank.
        written_mib: Written to disk.
    """

    name: str
    batch: int
    rows: int
    seconds: float
    epoch_s: list[float]
    first_batch_s: float | None = None
    loss: float | None = None
    driver_mib: float | None = None
    rank_mib: float | None = None
    written_mib: float | None = None

    @property
    def rate(self) -> float:
        """Rows a second in all."""
        return self.rows * len(self.epoch_s) / self.seconds

    @property
    def steady_rate(self) -> float:
        """Rows a second in an epoch after the first."""
        return self.rows / median(self.epoch_s[1:] or self.epoch_s)

    def numbers(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self) | {"rows_per_s": self.rate, "steady_rows_per_s": self.steady_rate}


@dataclass
class Outcome:
    """What one contender gives back: trainings, and figures that are none."""

    runs: list[Run] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)


def weights(columns: int) -> list[float]:
    """Of the columns in the label."""
    return [(i % 5 - 2) / 4 for i in range(columns)]


def make_frame(spark: SparkSession, job: Job) -> DataFrame:
    """Uniform columns and a noisy label; one partition a rank, as TorchDistributor asks."""
    from pyspark.sql import functions as F

    columns = [F.rand(seed=i).cast("float").alias(name) for i, name in enumerate(job.features)]
    frame = spark.range(0, job.rows, 1, job.ranks).select(*columns, F.randn(seed=99).alias("noise"))
    linear = sum(
        (F.col(c) * w for c, w in zip(job.features, weights(job.columns), strict=True)), F.lit(0.0)
    )
    label = linear + 2 * F.col("c0") * F.col(job.features[-1]) + NOISE * F.col("noise")
    frame = frame.select(*job.features, label.cast("float").alias(LABEL))
    if job.persisted:
        frame = frame.persist()
        frame.count()
    return frame


def make_arrays(job: Job) -> tuple[np.ndarray, np.ndarray]:
    """The same distribution in memory."""
    import numpy as np

    draw = np.random.default_rng(0)
    x = draw.random((job.rows, job.columns), dtype=np.float32)
    label = x @ np.array(weights(job.columns), np.float32) + 2 * x[:, 0] * x[:, -1]
    return x, label + np.float32(NOISE) * draw.standard_normal(job.rows, dtype=np.float32)


def make_model(config: dict[str, Any]) -> torch.nn.Module:
    """An ordinary tabular network; weights are the same everywhere."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(config["columns"], 128), nn.ReLU(),
        nn.Linear(128, 64), nn.ReLU(),
        nn.Linear(64, 1), nn.Flatten(0),
    )  # fmt: skip
    mark_first_batch(model, Path(config["mark"]))
    return model


def make_optimizer(model: torch.nn.Module, _: dict[str, Any]) -> torch.optim.Optimizer:
    """Adam as it comes."""
    import torch

    return torch.optim.Adam(model.parameters(), lr=1e-3)


def mark_first_batch(model: torch.nn.Module, file: Path) -> None:
    """Let the model's first forward pass write down when it was, then leave no trace in it."""

    def note(*_: Any) -> None:
        hook.remove()
        file.write_text(str(time.time()))

    hook = model.register_forward_pre_hook(note)


def first_batch_after(start: float, job: Job) -> float:
    """Seconds from `start` (of `time.time`) to the first forward pass."""
    return float(job.mark.read_text()) - start
