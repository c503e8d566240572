"""Other ways to train on the same frame."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tabular.job import LABEL, Job, Outcome, Run, first_batch_after, make_frame, make_model
from tabular.memory import PeakMemory
from tabular.ours import start_spark
from tabular.plain import train_plain
from zoo.orca import stop_orca_context


def torch_distributor(job: Job) -> Outcome:
    """Spark's TorchDistributor over its loader of the partition's rows."""
    from pyspark.ml.torch.distributor import TorchDistributor
    from pyspark.sql import functions as F

    frame = make_frame(start_spark(job), job)
    # One array column: its loader is three times as fast with it as with many number columns.
    rows = frame.select(F.array(*job.features).alias("features"), LABEL)
    if job.persisted:
        rows = rows.persist()
        rows.count()
    distributor = TorchDistributor(num_processes=job.ranks, local_mode=False, use_gpu=False)
    with PeakMemory() as memory:
        start = time.time()
        epoch_s, loss, written = distributor._train_on_dataframe(train_partition, rows, job)
        seconds = time.time() - start
    stop_orca_context()
    run = Run(
        "TorchDistributor",
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
    return Outcome([run])


def train_partition(job: Job) -> tuple[list[float], float, int]:
    """What each process of TorchDistributor runs."""
    import torch
    import torch.distributed as dist
    from pyspark.ml.torch import distributor as spark
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    model = make_model({"columns": job.columns, "mark": str(job.mark)})
    model = DistributedDataParallel(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    compare = nn.MSELoss()
    loader = spark._get_spark_partition_data_loader(
        job.rows // job.ranks, job.batches[0] // job.ranks
    )
    epoch_s: list[float] = []
    for _ in range(job.epochs):
        start, total = time.perf_counter(), 0.0
        for features, target in loader:
            optimizer.zero_grad()
            loss = compare(model(features), target.float())
            loss.backward()
            optimizer.step()
            total += loss.item() * len(target)
        epoch_s.append(time.perf_counter() - start)
    written = Path(os.environ[spark.SPARK_PARTITION_ARROW_DATA_FILE]).stat().st_size
    sums = torch.tensor([total, float(written)], dtype=torch.float64)
    dist.all_reduce(sums)
    dist.destroy_process_group()
    return epoch_s, float(sums[0]) / (job.rows // job.ranks * job.ranks), int(sums[1])


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
