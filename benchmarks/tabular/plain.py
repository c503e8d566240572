"""Plain torch on tensors in memory: the limit."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import nn

from tabular.job import (
    Job,
    Outcome,
    Run,
    first_batch_after,
    make_arrays,
    make_model,
    make_optimizer,
)


@dataclass(frozen=True)
class Trained:
    """Seconds of each epoch, and the mean loss of the last."""

    epoch_s: list[float]
    loss: float


def limit(job: Job) -> Outcome:
    """Batches as slices of shuffled tensors, and batches gathered at random, as shuffling needs."""
    x, y = make_arrays(job)
    data = torch.from_numpy(x), torch.from_numpy(y)
    # The first optimizer of a process loads a second's worth of modules: not part of the limit.
    make_optimizer(make_model({"columns": job.columns, "mark": str(job.mark)}), {})
    outcome = Outcome()
    for batch in job.batches:
        for gather, threads in [(False, 1), (True, 1), *[(False, job.ranks)] * (job.ranks > 1)]:
            start = time.time()
            trained = train_plain(job, batch, data, gather=gather, threads=threads)
            seconds = time.time() - start
            how = "gathered" if gather else "sliced"
            name = f"limit, {how}, {threads} thread{'s' if threads > 1 else ''}"
            first = first_batch_after(start, job)
            run = Run(name, batch, job.rows, seconds, trained.epoch_s, first, trained.loss)
            outcome.runs.append(run)
    return outcome


def train_plain(
    job: Job,
    batch: int,
    data: tuple[torch.Tensor, torch.Tensor],
    *,
    gather: bool,
    threads: int,
) -> Trained:
    """The loop that everyone writes.

    Args:
        job: Model and epochs.
        batch: Rows of a step.
        data: Features and target.
        gather: A new random order in every epoch, a gather for every batch.
        threads: Of torch.
    """
    torch.set_num_threads(threads)
    model = make_model({"columns": job.columns, "mark": str(job.mark)})
    optimizer, compare = make_optimizer(model, {}), nn.MSELoss()
    features, target = data
    rows, epoch_s, total = len(target), [], 0.0
    for _ in range(job.epochs):
        start, total = time.perf_counter(), 0.0
        order = torch.randperm(rows) if gather else None
        for low in range(0, rows, batch):
            pick = slice(low, low + batch) if order is None else order[low : low + batch]
            wanted = target[pick]
            optimizer.zero_grad()
            loss = compare(model(features[pick]), wanted)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(wanted)
        epoch_s.append(time.perf_counter() - start)
    return Trained(epoch_s, total / rows)
