"""The library itself: fits on a Spark frame, and its ingest against Spark's Arrow export."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from statistics import median
from typing import TYPE_CHECKING

import pyarrow as pa

from tabular.job import LABEL, Job, Outcome, Run, first_batch_after, make_frame, make_model
from tabular.job import make_optimizer as make_adam
from tabular.memory import PeakMemory, bare_rank_mib
from zoo.orca import OrcaContext, init_orca_context, stop_orca_context

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from zoo.orca.learn.pytorch.estimator import TorchEstimator

_ROUNDS = 3


def start_spark(job: Job) -> SparkSession:
    """The same Spark for everyone who needs one."""
    init_orca_context(
        cores=job.ranks,
        memory=job.memory,
        conf={"spark.ui.enabled": "false", "spark.sql.execution.arrow.pyspark.enabled": "true"},
    )
    session: SparkSession = OrcaContext.get_spark_session()
    return session


def ours(job: Job) -> Outcome:
    """Fits of one session: the first, the second, and one for every further batch size."""
    outcome = Outcome()
    frame = make_frame(start_spark(job), job)
    names = ["ours, first fit", "ours, second fit", *["ours, later fit"] * (len(job.batches) - 1)]
    for name, batch in zip(names, [job.batches[0], *job.batches], strict=True):
        run, ingest_s = _fit(job, frame, name, batch)
        outcome.runs.append(run)
        outcome.figures[f"ingest_s of {name}, batch {batch}"] = ingest_s
    stop_orca_context()
    outcome.figures["bare_rank_mib"] = bare_rank_mib(job.columns)
    return outcome


def make_estimator(job: Job) -> TorchEstimator:
    """What is trained."""
    from torch import nn

    from zoo.orca.learn.pytorch import Estimator

    return Estimator.from_torch(
        model=make_model,
        optimizer=make_adam,
        loss=nn.MSELoss(),
        config={"columns": job.columns, "mark": str(job.mark)},
        workers_per_node=job.ranks,
    )


def _fit(job: Job, frame: DataFrame, name: str, batch: int) -> tuple[Run, float]:
    estimator = make_estimator(job)
    with PeakMemory() as memory:
        start = time.time()
        epochs = estimator.fit(
            frame,
            epochs=job.epochs,
            batch_size=batch,
            profile=True,
            feature_cols=job.features,
            label_cols=[LABEL],
        )
        seconds = time.time() - start
    report = estimator.report
    assert report is not None
    run = Run(
        name,
        batch,
        job.rows,
        seconds,
        [e["profile"]["mean_train_epoch_s"] for e in epochs],
        first_batch_after(start, job),
        epochs[-1]["train_loss"],
        memory.driver_mib,
        memory.rank_mib,
        report.bytes_ingested / 2**20,
    )
    return run, report.ingest_s


def export(job: Job) -> Outcome:
    """Ingest and Spark's own Arrow export of the same frame, in turns after a warm-up."""
    frame = make_frame(start_spark(job), job)
    times = [(_export_s(frame), _ingest_s(job, frame)) for _ in range(_ROUNDS + 1)]
    stop_orca_context()
    export_s, ingest_s = (median(kind) for kind in zip(*times[1:], strict=True))
    figures = {"export_rows_per_s": job.rows / export_s, "ingest_rows_per_s": job.rows / ingest_s}
    return Outcome(figures=figures)


def _discard(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    rows = sum(batch.num_rows for batch in batches)
    yield pa.RecordBatch.from_pydict({"rows": [rows]})


def _export_s(frame: DataFrame) -> float:
    start = time.perf_counter()
    frame.mapInArrow(_discard, "rows long").collect()
    return time.perf_counter() - start


def _ingest_s(job: Job, frame: DataFrame) -> float:
    from zoo.orca.data.tensors.ingest import forget_ingested, ingest
    from zoo.orca.data.tensors.plan_columns import plan_columns

    plan = plan_columns(frame.schema, job.features, [LABEL], assemble=True)
    start = time.perf_counter()
    result = ingest(frame, plan)
    seconds = time.perf_counter() - start
    result.release()
    forget_ingested()
    return seconds
