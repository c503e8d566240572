"""One contender's program: `python -m first NAME ORDER ANSWER`.

Each notes the seconds since it was started, Python's own start included.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from tabular.job import Job

_FEW = 20


class Clock:
    """Seconds of each part, and since the start."""

    def __init__(self, started: float) -> None:
        self._started = self._last = started
        self.parts: dict[str, float] = {}

    def done(self, part: str) -> None:
        """A part ends here."""
        now = time.time()
        self.parts[part], self._last = now - self._last, now

    def until(self, name: str) -> None:
        """Note how long it took from the start to here."""
        self.parts[name] = time.time() - self._started


def ours(job: Job, clock: Clock) -> None:
    """A fit, a prediction of few rows, and both again; the model is kept for `loaded`."""
    import torch  # noqa: F401 - as a program that trains does, before the session
    from tabular.job import LABEL, make_frame
    from tabular.ours import make_estimator, start_spark

    import zoo.orca.learn.pytorch  # noqa: F401 - the same
    from zoo.orca import stop_orca_context

    clock.done("imports")
    spark = start_spark(job)
    clock.done("session")
    frame = make_frame(spark, job)
    few = frame.limit(_FEW).persist()
    few.count()
    clock.done("frame")
    for turn in ("first", "second"):
        estimator = make_estimator(job)
        estimator.fit(
            frame, batch_size=job.batches[0], feature_cols=job.features, label_cols=[LABEL]
        )
        clock.done(f"{turn} fit")
        if turn == "first":
            clock.until("start to a trained model")
        estimator.predict(few).collect()
        clock.done(f"{turn} predict")
        if turn == "first":
            clock.until("start to a prediction")
    estimator.save(f"{job.folder}/model")
    few.toPandas().to_parquet(f"{job.folder}/few.parquet")
    stop_orca_context()


def loaded(job: Job, clock: Clock) -> None:
    """A fresh program reads a saved model and predicts a frame."""
    from tabular.job import make_model
    from tabular.ours import start_spark

    from zoo.orca import stop_orca_context
    from zoo.orca.learn.pytorch import Estimator

    clock.done("imports")
    spark = start_spark(job)
    clock.done("session")
    config = {"columns": job.columns, "mark": str(job.mark)}
    estimator = Estimator.from_torch(model=make_model, config=config)
    estimator.load(f"{job.folder}/model")
    few = spark.read.parquet(f"{job.folder}/few.parquet")
    estimator.predict(few, feature_cols=job.features).collect()
    clock.done("load and predict")
    clock.until("start to a prediction")
    stop_orca_context()


def _plain_spark(job: Job) -> SparkSession:
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    made = SparkSession.builder.master(f"local[{job.ranks}]").appName("peer")
    conf = {
        "spark.driver.memory": job.memory,
        "spark.ui.enabled": "false",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
    }
    for name, value in conf.items():
        made = made.config(name, value)
    return made.getOrCreate()


def topandas(job: Job, clock: Clock) -> None:
    """All rows into the driver, and plain torch there."""
    import torch
    from tabular.job import LABEL, make_frame
    from tabular.plain import train_plain

    clock.done("imports")
    spark = _plain_spark(job)
    clock.done("session")
    frame = make_frame(spark, job)
    clock.done("frame")
    for turn in ("first", "second"):
        rows = frame.toPandas()
        features = torch.from_numpy(rows[job.features].to_numpy())
        target = torch.from_numpy(rows[LABEL].to_numpy())
        train_plain(job, job.batches[0], (features, target), gather=True, threads=job.ranks)
        clock.done(f"{turn} fit")
        if turn == "first":
            clock.until("start to a trained model")
    spark.stop()


def torchdistributor(job: Job, clock: Clock) -> None:
    """Spark's TorchDistributor on the frame as it is, with its loader's defaults."""
    _distribute(job, clock, tuned=False)


def tuned(job: Job, clock: Clock) -> None:
    """Spark's TorchDistributor on the frame, tuned as `tabular.peers` says."""
    _distribute(job, clock, tuned=True)


def _distribute(job: Job, clock: Clock, *, tuned: bool) -> None:
    from pyspark.ml.torch.distributor import TorchDistributor
    from pyspark.sql import functions as F
    from tabular.job import LABEL, make_frame
    from tabular.peers import train_partition

    clock.done("imports")
    spark = _plain_spark(job)
    clock.done("session")
    frame = make_frame(spark, job)
    if tuned:
        frame = frame.select(F.array(*job.features).alias("features"), LABEL).persist()
        frame.count()
    clock.done("frame")
    distributor = TorchDistributor(num_processes=job.ranks, local_mode=False, use_gpu=False)
    distributor._train_on_dataframe(train_partition, frame, job, 0 if tuned else 1)
    clock.done("first fit")
    clock.until("start to a trained model")
    spark.stop()


def jvm(job: Job, clock: Clock) -> None:
    """The limit: a Spark that is there."""
    spark = _plain_spark(job)
    clock.until("session")
    spark.stop()


def torch(job: Job, clock: Clock) -> None:
    """The limit: torch imported once."""
    import torch as imported

    assert imported.__version__
    clock.until("import")


CONTENDERS = {
    program.__name__: program
    for program in (ours, loaded, topandas, torchdistributor, tuned, jvm, torch)
}


def main() -> None:
    from tabular.job import Job

    order: dict[str, Any] = json.loads(Path(sys.argv[2]).read_text())
    clock = Clock(order.pop("started"))
    order["batches"] = tuple(order["batches"])
    CONTENDERS[sys.argv[1]](Job(**order), clock)
    Path(sys.argv[3]).write_text(json.dumps(clock.parts))


if __name__ == "__main__":
    main()
