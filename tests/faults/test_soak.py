"""Many fits in one session: nothing piles up in the driver."""

import os
import threading
from collections.abc import Callable

import psutil
import pytest
import torch
from pyspark.sql import SparkSession
from torch import nn

from zoo.orca.learn.pytorch import Estimator

FITS, GROWTH_BYTES = 500, 100e6

pytestmark = [pytest.mark.long, pytest.mark.spark, pytest.mark.timeout(2 * 3600)]


def held() -> tuple[int, int, int]:
    """Open files and sockets, threads, and files in shared memory."""
    shared = sum("zoo" in entry.name for entry in os.scandir("/dev/shm"))
    return len(os.listdir("/proc/self/fd")), threading.active_count(), shared


def soak(work: Callable[[], object], times: int) -> tuple[tuple[int, int, int], float]:
    """How much more is held after so many times than after the first tenth, and memory."""
    process = psutil.Process()
    for _ in range(max(2, times // 10)):
        work()
    before, memory = held(), process.memory_info().rss
    for _ in range(times):
        work()
    more = [b - a for a, b in zip(before, held(), strict=True)]
    return (more[0], more[1], more[2]), process.memory_info().rss - memory


def test_fits_leave_nothing_in_the_driver(spark: SparkSession) -> None:
    frame = spark.range(0, 64, 1, 4).selectExpr("double(id) a", "double(id) y")

    def fit() -> None:
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)
        estimator = Estimator.from_torch(
            model=model, optimizer=optimizer, loss=nn.MSELoss(), workers_per_node=2
        )
        estimator.fit(frame, feature_cols=[["a"]], label_cols=[["y"]], batch_size=16)

    more, memory = soak(fit, FITS)
    # Py4J keeps a connection for each thread that has ended until it is collected.
    assert more[0] <= 10
    assert more[1:] == (0, 0)
    assert memory < GROWTH_BYTES
