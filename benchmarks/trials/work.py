"""What is trained in a trial: small, in double precision, with weights that count the rows used."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pyspark import SparkContext
from pyspark.sql import DataFrame, SparkSession
from torch import nn

__all__ = ["BATCH", "Work", "difference", "each_row_once", "work_for"]

BATCH = 12
_SCHEMA = "x0 double, x1 double, x2 double, y double, id long"
_PARTITIONS, _SEED = 7, 3


@dataclass(frozen=True)
class Work:
    """A fit, the same for every trial that has the same fields.

    Attributes:
        optimizer: `adam`, or `momentum`: SGD with momentum and a cosine schedule.
        sizes: Rows of every partition.
        epochs: How many.
        pause_s: What every step waits, as if the model were a larger one.
    """

    optimizer: str
    sizes: tuple[int, ...]
    epochs: int
    pause_s: float

    @property
    def rows(self) -> int:
        """Rows of an epoch."""
        return sum(self.sizes)

    @property
    def epoch_steps(self) -> int:
        """Steps of an epoch."""
        return self.rows // BATCH

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.epochs * self.epoch_steps

    def frame(self, spark: SparkSession) -> DataFrame:
        """The rows; Spark can make each partition again."""
        sizes = self.sizes
        starts = np.concatenate([[0], np.cumsum(sizes)]).tolist()

        def rows(partition: int) -> Iterator[tuple[Any, ...]]:
            draw = np.random.default_rng((5, partition))
            x = draw.normal(size=(sizes[partition], 3))
            y = np.sin(x).sum(axis=1) + 0.1 * draw.normal(size=len(x))
            for k, (features, target) in enumerate(zip(x.tolist(), y.tolist(), strict=True)):
                yield (*features, target, starts[partition] + k)

        context: SparkContext = spark.sparkContext
        spread = context.parallelize(range(len(sizes)), len(sizes))
        return spark.createDataFrame(spread.flatMap(rows), _SCHEMA)

    def recipe(self) -> dict[str, Any]:
        """The arguments of an estimator."""
        rows, pause_s, steps = self.rows, self.pause_s, self.steps
        made: dict[str, Any] = {
            "model": lambda config: _made(rows, pause_s),
            "optimizer": _OPTIMIZERS[self.optimizer],
            "loss": BothLosses(),
            "config": {"seed": _SEED},
        }
        if self.optimizer == "momentum":
            made["scheduler_creator"] = lambda optimizer, config: (
                torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
            )
        return made


def work_for(seed: int, *, steps: int, epochs: int, pause_s: float) -> Work:
    """One of four fits: two optimizers, two ways to spread the rows.

    Args:
        seed: Of the trial.
        steps: In all, about.
        epochs: How many.
        pause_s: What every step waits.
    """
    variant = seed % 4
    rows = BATCH * (steps // epochs)
    cuts = np.random.default_rng((7, variant // 2)).choice(rows - 1, _PARTITIONS - 1, replace=False)
    ends = [0, *sorted(int(c) + 1 for c in cuts), rows]
    sizes = tuple(high - low for low, high in zip(ends, ends[1:], strict=False))
    return Work(("adam", "momentum")[variant % 2], sizes, epochs, pause_s)


class Net(nn.Module):
    """A small network, and one weight for each row.

    The loss has the sum of the weights of its rows in it, so each falls by one whenever its row is
    used: afterwards they tell how often that was.
    """

    def __init__(self, rows: int, pause_s: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))
        self.uses = nn.Embedding(rows, 1)
        nn.init.zeros_(self.uses.weight)
        self.pause_s = pause_s

    def forward(self, x: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        """Predictions beside the weights of the rows."""
        time.sleep(self.pause_s)
        return torch.cat([self.layers(x), self.uses(row)], dim=1)


class BothLosses(nn.Module):
    """The squared errors, and the weights of the rows."""

    reduction = "sum"

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Their sum."""
        return ((output[:, 0] - target) ** 2).sum() / BATCH + output[:, 1].sum()


class Counting:
    """An optimizer that takes whole steps for the weights of the rows, whatever it does else."""

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Take a step."""
        uses = self.param_groups[1]["params"][0]  # type: ignore[attr-defined]
        gradient, uses.grad = uses.grad, None
        with torch.no_grad():
            uses -= gradient
        done = super().step(closure)  # type: ignore[misc]
        uses.grad = gradient
        return done


class CountingAdam(Counting, torch.optim.Adam):
    """Adam."""


class CountingSGD(Counting, torch.optim.SGD):
    """SGD."""


def _adam(model: Net, config: dict[str, Any]) -> torch.optim.Optimizer:
    return CountingAdam(_groups(model), lr=0.003)


def _momentum(model: Net, config: dict[str, Any]) -> torch.optim.Optimizer:
    return CountingSGD(_groups(model), lr=0.02, momentum=0.9)


_OPTIMIZERS = {"adam": _adam, "momentum": _momentum}


def _groups(model: Net) -> list[dict[str, Any]]:
    return [{"params": model.layers.parameters()}, {"params": model.uses.parameters()}]


def _made(rows: int, pause_s: float) -> Net:
    torch.manual_seed(11)
    return Net(rows, pause_s).double()


def difference(model: nn.Module, expected: dict[str, torch.Tensor]) -> float:
    """The largest difference of a weight, relative to it."""
    return max(
        float(((value - expected[name]).abs() / expected[name].abs().clamp_min(1e-12)).max())
        for name, value in model.state_dict().items()
    )


def each_row_once(model: nn.Module, epochs: int) -> bool:
    """Whether each row was used exactly once for each epoch."""
    return bool((model.state_dict()["uses.weight"] == -float(epochs)).all())
