"""What is trained in a trial: small, in double precision, with weights that count the rows used."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from pyspark import SparkContext
from pyspark.sql import DataFrame, SparkSession

__all__ = ["BATCH", "SEED", "Weights", "Work", "difference", "each_row_once", "work_for"]

Weights = dict[str, np.ndarray]
BATCH, SEED = 12, 3
_SCHEMA = "x0 double, x1 double, x2 double, y double, id long"
_PARTITIONS = 7


@dataclass(frozen=True)
class Work:
    """A fit, the same for every trial that has the same fields.

    Attributes:
        optimizer: `adam`, or `momentum`: SGD with momentum and a cosine schedule.
        sizes: Rows of every partition.
        epochs: How many.
        pause_s: What every step waits, as if the model were a larger one.
        framework: `torch`, `keras` or `graph`: `trials.torch_net` and its like have the models.
    """

    optimizer: str
    sizes: tuple[int, ...]
    epochs: int
    pause_s: float
    framework: str = "torch"

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

    @property
    def _net(self) -> Any:
        return importlib.import_module(f"trials.{self.framework}_net")

    def estimator(self, **options: Any) -> Any:
        """What trains it, with more arguments of the estimator's."""
        return self._net.estimator(self, **options)

    def weights(self, estimator: Any) -> Weights:
        """Of its model, by name; `uses` are those of the rows."""
        found: Weights = self._net.weights(estimator)
        return found


def work_for(
    seed: int, *, steps: int, epochs: int, pause_s: float, framework: str = "torch"
) -> Work:
    """One of four fits: two optimizers, two ways to spread the rows.

    Args:
        seed: Of the trial.
        steps: In all, about.
        epochs: How many.
        pause_s: What every step waits.
        framework: Of the model.
    """
    variant = seed % 4
    rows = BATCH * (steps // epochs)
    cuts = np.random.default_rng((7, variant // 2)).choice(rows - 1, _PARTITIONS - 1, replace=False)
    ends = [0, *sorted(int(c) + 1 for c in cuts), rows]
    sizes = tuple(high - low for low, high in zip(ends, ends[1:], strict=False))
    return Work(("adam", "momentum")[variant % 2], sizes, epochs, pause_s, framework)


def difference(weights: Weights, expected: Weights) -> float:
    """The largest difference of a weight, relative to it."""
    return max(
        float((np.abs(value - expected[name]) / np.abs(expected[name]).clip(1e-12)).max())
        for name, value in weights.items()
    )


def each_row_once(weights: Weights, epochs: int) -> bool:
    """Whether each row was used exactly once for each epoch."""
    return bool((weights["uses"] == -float(epochs)).all())
