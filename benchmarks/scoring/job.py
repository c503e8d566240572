"""What everyone predicts: images in a Parquet folder, and the settings of a run."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from zoo.orca import OrcaContext, init_orca_context

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

FILES = 16


@dataclass(frozen=True)
class Job:
    """A run.

    Attributes:
        rows: Images.
        size: Their height and width; they have three channels.
        batch: Rows that the model sees at once.
        cores: Of Spark, of each peer and of each limit.
        rounds: Passes over the images, after one over a few of them; the median counts.
        folder: Where images and models are.
    """

    rows: int
    size: int
    batch: int
    cores: int
    rounds: int
    folder: str

    @classmethod
    def read(cls, path: str) -> Job:
        """The job that a file of JSON describes."""
        return cls(**json.loads(Path(path).read_text()))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image, channels first."""
        return 3, self.size, self.size

    def model(self, name: str) -> str:
        """The path of a model file."""
        return f"{self.folder}/models/{name}"


def write_images(job: Job) -> None:
    """Random pixels as bytes: what they show does not change how long they take."""
    folder = Path(job.folder) / "images"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for part, rows in enumerate(np.array_split(np.arange(job.rows), FILES)):
        pixels = draw.integers(0, 256, (len(rows), *job.shape), dtype=np.uint8)
        cells = [image.tobytes() for image in pixels]
        table = pa.table({"id": rows, "image": pa.array(cells, pa.binary())})
        pq.write_table(table, folder / f"{part}.parquet", compression="none")


def pixels(job: Job) -> np.ndarray:
    """All images as one array of bytes, for loops without Spark."""
    tables = [pq.read_table(path) for path in sorted((Path(job.folder) / "images").iterdir())]
    cells = [cell for table in tables for cell in table["image"].to_pylist()]
    return np.frombuffer(b"".join(cells), np.uint8).reshape(-1, *job.shape)


def as_numbers(images: np.ndarray) -> np.ndarray:
    """Bytes as the network takes them."""
    return np.divide(images, np.float32(255), dtype=np.float32)


def open_frame(job: Job) -> DataFrame:
    """The images as a frame of a Spark with the cores of the job."""
    # Each file is a partition: with fewer of them some cores would wait for the last.
    conf = {"spark.ui.enabled": "false", "spark.sql.files.openCostInBytes": "128m"}
    init_orca_context(cores=job.cores, memory="3g", conf=conf)
    return OrcaContext.get_spark_session().read.parquet(f"{job.folder}/images")


def timed(job: Job, predict: Any) -> list[float]:
    """Seconds of each round.

    Args:
        job: How many rounds.
        predict: Predicts all images, or a few when it is called with True.
    """
    predict(True)
    seconds = []
    for _ in range(job.rounds):
        start = time.perf_counter()
        predict(False)
        seconds.append(time.perf_counter() - start)
    return seconds


def predict_frame(job: Job, frame: DataFrame, scored: Any) -> list[float]:
    """Seconds in which Spark computes a prediction for each row of a frame.

    Args:
        job: How many rounds.
        frame: The images.
        scored: Gives the frame with predictions.
    """

    def run(few: bool) -> None:
        rows = frame.limit(4 * job.batch) if few else frame
        scored(rows).select("id", "prediction").write.format("noop").mode("overwrite").save()

    return timed(job, run)
