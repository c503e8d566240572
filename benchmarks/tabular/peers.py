"""Other ways to train on the same frame."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tabular.job import (
    LABEL,
    Job,
    Outcome,
    Run,
    first_batch_after,
    make_frame,
    make_model,
    make_optimizer,
)
from tabular.memory import PeakMemory
from tabular.ours import start_spark
from tabular.plain import train_plain
from zoo.orca import stop_orca_context

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def torch_distributor(job: Job) -> Outcome:
    """Spark's TorchDistributor over its loader of the partition's rows.

    Once on the frame as it is and the loader's defaults, and once as somebody would who has found
    out what makes that loader fast: one array column, and no process of its own for loading.
    """
    from pyspark.sql import functions as F

    frame = make_frame(start_spark(job), job)
    outcome = Outcome([_distributed(job, frame, "TorchDistributor", loader_processes=1)])
    array = frame.select(F.array(*job.features).alias("features"), LABEL)
    if job.persisted:
        array = array.persist()
        array.count()
    outcome.runs.append(_distributed(job, array, "TorchDistributor, tuned", loader_processes=0))
    stop_orca_context()
    return outcome


def _distributed(job: Job, frame: DataFrame, name: str, *, loader_processes: int) -> Run:
    from pyspark.ml.torch.distributor import TorchDistributor

    distributor = TorchDistributor(num_processes=job.ranks, local_mode=False, use_gpu=False)
    with PeakMemory() as memory:
        start = time.time()
        epoch_s, loss, written = distributor._train_on_dataframe(
            train_partition, frame, job, loader_processes
        )
        seconds = time.time() - start
    return Run(
        name,
        job.batches[0],
        job.rows,
        seconds,
        epoch_s,
        first_batch_after(start, job),
        loss,
        memory.driver_mib,
        memory.rank_mib,
        written / 2**20,
    )


def train_partition(job: Job, loader_processes: int) -> tuple[list[float], float, int]:
    """What each process of TorchDistributor runs."""
    import torch
    import torch.distributed as dist
    from pyspark.ml.torch import distributor as spark
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    network = make_model({"columns": job.columns, "mark": str(job.mark)})
    model, compare = DistributedDataParallel(network), nn.MSELoss()
    optimizer = make_optimizer(model, {})
    rows = job.rows // job.ranks
    loader = spark._get_spark_partition_data_loader(
        rows, job.batches[0] // job.ranks, num_workers=loader_processes
    )
    epoch_s: list[float] = []
    for _ in range(job.epochs):
        start, total = time.perf_counter(), 0.0
        for *columns, target in loader:
            # One array column is the matrix already; many number columns become one here.
            features = columns[0] if len(columns) == 1 else torch.stack(columns, dim=1)
            optimizer.zero_grad()
            loss = compare(model(features.float()), target.float())
            loss.backward()
            optimizer.step()
            total += loss.item() * len(target)
        epoch_s.append(time.perf_counter() - start)
    written = Path(os.environ[spark.SPARK_PARTITION_ARROW_DATA_FILE]).stat().st_size
    sums = torch.tensor([total, float(written)], dtype=torch.float64)
    dist.all_reduce(sums)
    dist.destroy_process_group()
    return epoch_s, float(sums[0]) / (rows * job.ranks), int(sums[1])


def to_pandas(job: Job) -> Outcome:
    """All rows into the driver, then plain torch there, one thread for each rank of the others."""
    import torch

    frame = make_frame(start_spark(job), job)
    with PeakMemory() as memory:
        start = time.time()
        rows = frame.toPandas()
        features = torch.from_numpy(rows[job.features].to_numpy())
        target = torch.from_numpy(rows[LABEL].to_numpy())
        result = train_plain(
            job, job.batches[0], (features, target), gather=True, threads=job.ranks
        )
        seconds = time.time() - start
    stop_orca_context()
    run = Run(
        "toPandas + torch",
        job.batches[0],
        job.rows,
        seconds,
        result.epoch_s,
        first_batch_after(start, job),
        result.loss,
        memory.driver_mib,
    )
    return Outcome([run])
