"""The library itself: `read_csv`, `transform_shard`, `Estimator.fit`."""

from __future__ import annotations

import time
from collections.abc import Callable

from shards_data.job import (
    BATCH,
    FEATURES,
    LABEL,
    PROCESSES,
    Job,
    Run,
    make_model,
    make_optimizer,
    transform,
)
from shards_data.memory import PeakProcesses
from zoo.orca import OrcaContext, init_orca_context, stop_orca_context
from zoo.orca.data.pandas import read_csv


def start_spark(job: Job) -> float:
    """Start the same Spark for everyone who needs one, and return the seconds."""
    start = time.perf_counter()
    init_orca_context(
        cores=PROCESSES,
        memory=job.memory,
        conf={"spark.ui.enabled": "false", "spark.sql.execution.arrow.pyspark.enabled": "true"},
    )
    return time.perf_counter() - start


def spark_backend(job: Job) -> list[Run]:
    """Spark reads."""
    return _ours(job, "spark")


def pandas_backend(job: Job) -> list[Run]:
    """Pandas reads, a file in each of Spark's tasks."""
    return _ours(job, "pandas")


def in_session(job: Job, name: str, work: Callable[[Job, Run], None]) -> list[Run]:
    """Do work in a new session, as often as the job says; workers are warm after the first.

    Args:
        job: The job.
        name: Who works.
        work: Does the job, and notes the stages.
    """
    runs = []
    start_s = start_spark(job)
    for number in range(job.rounds):
        run = Run(f"{name}, again" if number else name, start_s=0.0 if number else start_s)
        with PeakProcesses() as memory:
            work(job, run)
        run.processes = list(memory.found.values())
        runs.append(run)
    stop_orca_context()
    return runs


def _ours(job: Job, backend: str) -> list[Run]:
    def work(job: Job, run: Run) -> None:
        OrcaContext.pandas_read_backend = backend
        with run.stage("read"):
            shards = read_csv(str(job.csv))
        with run.stage("transform"):
            shards = shards.transform_shard(transform)
        with run.stage("train"):
            fit(run, shards)

    return in_session(job, f"ours, {backend} backend", work)


def fit(run: Run, data: object) -> None:
    """Train an epoch on shards or on a frame."""
    from torch import nn

    from zoo.orca.learn.pytorch import Estimator

    estimator = Estimator.from_torch(
        model=make_model,
        optimizer=make_optimizer,
        loss=nn.MSELoss(),
        workers_per_node=PROCESSES,
    )
    (epoch,) = estimator.fit(
        data, epochs=1, batch_size=BATCH, feature_cols=FEATURES, label_cols=[LABEL]
    )
    run.rows, run.loss = epoch["num_samples"], epoch["train_loss"]
