"""The others: pandas on one core, pandas on Spark, and the limit."""

from __future__ import annotations

import os

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pyarrow import csv
from torch import nn

from shards_data.job import (
    BATCH,
    FEATURES,
    FLOATS,
    LABEL,
    LEAST,
    PROCESSES,
    Job,
    Run,
    make_model,
    make_optimizer,
    transform,
)
from shards_data.memory import PeakProcesses
from shards_data.ours import fit, in_session


def pandas_and_torch(job: Job) -> list[Run]:
    """What a user has before: all of it in one process, on one core, batches shuffled."""
    run = Run("pandas + torch, one core")
    torch.set_num_threads(1)
    with PeakProcesses() as memory:
        with run.stage("read"):
            frame = pd.concat([pd.read_csv(file) for file in job.files], ignore_index=True)
        with run.stage("transform"):
            frame = transform(frame)
        with run.stage("train"):
            features = torch.from_numpy(frame[FEATURES].to_numpy())
            _train(run, features, torch.from_numpy(frame[LABEL].to_numpy()), shuffle=True)
    run.processes = list(memory.found.values())
    return [run]


def pandas_on_spark(job: Job) -> list[Run]:
    """Spark's API of pandas, then its frame to our estimator.

    It is lazy: most of reading and transforming is done when the training asks for rows.
    """
    # pyspark.pandas warns of time zones without it.
    os.environ.setdefault("PYARROW_IGNORE_TIMEZONE", "1")

    def work(job: Job, run: Run) -> None:
        import pyspark.pandas as ps

        ps.set_option("compute.default_index_type", "distributed")
        with run.stage("read"):
            frame = ps.read_csv(str(job.csv))
        with run.stage("transform"):
            table = transform(frame).to_spark()
        with run.stage("train"):
            fit(run, table)

    return in_session(job, "pandas API on Spark + our fit", work)


def limit(job: Job) -> list[Run]:
    """Arrow reads on all cores, columns are tensors of torch, batches are slices."""
    run = Run(f"limit: Arrow + torch, {PROCESSES} threads")
    pa.set_cpu_count(PROCESSES)
    torch.set_num_threads(PROCESSES)
    # The first optimizer of a process loads a second's worth of modules: not part of the limit.
    make_optimizer(make_model({}), {})
    with PeakProcesses() as memory:
        with run.stage("read"):
            table = pa.concat_tables([csv.read_csv(file) for file in job.files])
        with run.stage("transform"):
            features, target = _transformed(table)
        with run.stage("train"):
            _train(run, features, target, shuffle=False)
    run.processes = list(memory.found.values())
    return [run]


def _transformed(table: pa.Table) -> tuple[torch.Tensor, torch.Tensor]:
    table = table.filter(pc.greater(table["f9"], LEAST))
    of = {name: torch.from_numpy(table[name].to_numpy()) for name in [*FLOATS, "kind", LABEL]}
    made = [
        of["f0"] / (1 + of["f1"].abs()),
        of["f2"] * of["f3"],
        of["f4"].abs().log1p(),
        of["kind"] == 3,
    ]
    columns = [*(of[name] for name in FLOATS[:9]), *made]
    return torch.stack([column.float() for column in columns], dim=1), of[LABEL].float()


def _train(run: Run, features: torch.Tensor, target: torch.Tensor, *, shuffle: bool) -> None:
    model, compare, total = make_model({}), nn.MSELoss(), 0.0
    optimizer = make_optimizer(model, {})
    order = torch.randperm(len(target)) if shuffle else None
    for low in range(0, len(target), BATCH):
        pick = slice(low, low + BATCH) if order is None else order[low : low + BATCH]
        optimizer.zero_grad()
        loss = compare(model(features[pick]), target[pick])
        loss.backward()
        optimizer.step()
        total += loss.item() * len(target[pick])
    run.rows, run.loss = len(target), total / len(target)
