"""The library itself: `read_csv`, `transform_shard`, `Estimator.fit`."""

from __future__ import annotations

import time

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


def start_spark(job: Job, run: Run) -> None:
    """The same Spark for everyone who needs one."""
    start = time.perf_counter()
    init_orca_context(
        cores=PROCESSES,
        memory=job.memory,
        conf={"spark.ui.enabled": "false", "spark.sql.execution.arrow.pyspark.enabled": "true"},
    )
    run.start_s = time.perf_counter() - start


def spark_backend(job: Job) -> Run:
    """Spark reads."""
    return _ours(job, Run("ours, spark backend"), "spark")


def pandas_backend(job: Job) -> Run:
    """Pandas reads, a file in each of Spark's tasks."""
    return _ours(job, Run("ours, pandas backend"), "pandas")


def _ours(job: Job, run: Run, backend: str) -> Run:
    start_spark(job, run)
    OrcaContext.pandas_read_backend = backend
    with PeakProcesses() as memory:
        with run.stage("read"):
            shards = read_csv(str(job.csv))
        with run.stage("transform"):
            shards = shards.transform_shard(transform)
        with run.stage("train"):
            fit(run, shards)
    run.processes = list(memory.found.values())
    stop_orca_context()
    return run


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
