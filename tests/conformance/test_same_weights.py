"""Every engine, any number of ranks and any partitioning reach the weights of plain code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import types as T

from conformance.engines import ENGINES, FRAMEWORKS, Engine, Framework, Torch, Weights
from local_round import run_round, write_shards
from zoo.cluster.ranks.carried import pickled
from zoo.orca.data.tensors.ingest import forget_ingested
from zoo.orca.data.tensors.plan_columns import plan_columns
from zoo.orca.data.tensors.schedule import epoch_batches
from zoo.orca.learn.order import Order, TensorSource
from zoo.orca.learn.pytorch import Estimator

DOUBLES = [T.StructField(name, T.DoubleType()) for name in ("x0", "x1", "x2", "y")]
SCHEMA = T.StructType([*DOUBLES, T.StructField("row", T.LongType())])
EPOCHS, BATCH, SEED, MODEL_SEED = 2, 48, 3, 11
PARTITIONS = {
    "one": [500],
    "two": [250, 250],
    "seven": [71, 72, 71, 72, 71, 72, 71],
    "forty, some empty": [0 if k % 5 == 0 else 16 for k in range(39)] + [4],
    "skewed": [10, 450, 0, 12, 8, 20],
}
MATRIX = list(product(PARTITIONS, (1, 2, 4)))
DIAGONAL = [("one", 2), ("forty, some empty", 1), ("skewed", 4)]


def make_rows(sizes: Sequence[int]) -> list[np.ndarray]:
    """The rows of each partition: x0, x1, x2, y, row."""
    draw = np.random.default_rng(5)
    total = sum(sizes)
    x = draw.normal(size=(total, 3))
    y = np.sin(x).sum(axis=1) + 0.1 * draw.normal(size=total)
    table = np.column_stack([x, y, np.arange(total)])
    return np.split(table, np.cumsum(sizes)[:-1])


def plain_weights(framework: Framework, parts: Sequence[np.ndarray]) -> Weights:
    """One process, no Zoo but for its schedule."""
    filled = [p for p in parts if len(p)]
    sizes = [len(p) for p in filled]
    return framework.plain(
        MODEL_SEED,
        (
            np.concatenate([filled[s][r] for s, r in step])
            for epoch in range(EPOCHS)
            for step in epoch_batches(sizes, BATCH, seed=SEED, epoch=epoch)
        ),
    )


def trained(
    engine: Engine, framework: Framework, parts: Sequence[np.ndarray], ranks: int, folder: Path
) -> Weights:
    """The weights after a round on this engine, from shards that are written here."""
    plan = plan_columns(SCHEMA, framework.features, ["y"], float_dtype="float64")
    columns = {name: k for k, name in enumerate(SCHEMA.names)}

    def tensors(rows: np.ndarray) -> list[np.ndarray]:
        found = [rows[:, [columns[c.name] for c in t.columns]] for t in plan.tensors]
        return [a.reshape(-1, *(t.shape or ())) for a, t in zip(found, plan.tensors, strict=True)]

    shards = write_shards(folder, plan, [tensors(rows) for rows in parts], engine.hosts)
    recipe = framework.recipe(MODEL_SEED)
    order = Order(
        framework=framework.name,
        recipe=pickled(recipe, "a recipe"),
        state=framework.state(recipe),
        source=TensorSource(plan, shards, BATCH, SEED),
        until=EPOCHS,
    )
    return framework.weights(run_round(order, ranks, engine.launcher()))


def assert_same(found: Weights, expected: Weights, tolerance: float) -> None:
    """Equal weights, and every row used exactly once an epoch."""
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=tolerance, atol=1e-12, err_msg=name)
    if "uses" in found:
        used = found["uses"][found["uses"] > 0.5]
        assert len(used) == 500
        np.testing.assert_allclose(used, EPOCHS, rtol=1e-12)


def cells() -> list[Any]:
    """The whole matrix on the reference, a diagonal on the other engines."""
    first, *_ = ENGINES
    found = []
    for (engine, made), name in product(ENGINES.items(), FRAMEWORKS):
        marks = [pytest.mark.spark] if engine == "spark" else []
        for partitions, ranks in MATRIX if engine == first else DIAGONAL:
            if ranks >= len(made.hosts):  # each host needs a rank: else the driver moves its shards
                case = (engine, name, partitions, ranks)
                found.append(pytest.param(*case, marks=marks, id=", ".join(map(str, case))))
    return found


@pytest.mark.usefixtures("warm_launcher")
@pytest.mark.parametrize(("engine", "name", "partitions", "ranks"), cells())
def test_engines_reach_the_weights_of_plain_code(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    engine: str,
    name: str,
    partitions: str,
    ranks: int,
) -> None:
    if engine == "spark":
        request.getfixturevalue("spark")
    framework, parts = FRAMEWORKS[name], make_rows(PARTITIONS[partitions])
    found = trained(ENGINES[engine], framework, parts, ranks, tmp_path)
    assert_same(found, plain_weights(framework, parts), framework.tolerance)


# The estimator, from a frame


@pytest.fixture
def frame_of(spark: SparkSession) -> Iterator[Callable[[Sequence[np.ndarray]], DataFrame]]:
    """Makes a frame with these rows in each partition."""
    made = []

    def frame(parts: Sequence[np.ndarray]) -> DataFrame:
        rows = [[(*map(float, r[:4]), int(r[4])) for r in part] for part in parts]
        spread = spark.sparkContext.parallelize(range(len(parts)), len(parts))
        made.append(spark.createDataFrame(spread.flatMap(lambda k: rows[k]), SCHEMA).persist())
        return made[-1]

    yield frame
    for one in made:
        one.unpersist()
    forget_ingested()


FIRST_OF_EACH = [pytest.param(*case, id=f"{case[0]}, {case[1]}") for case in DIAGONAL]
OTHERS = [
    pytest.param(*case, marks=pytest.mark.long, id=f"{case[0]}, {case[1]}")
    for case in MATRIX
    if case not in DIAGONAL
]


@pytest.mark.spark
@pytest.mark.parametrize(("partitions", "ranks"), [*FIRST_OF_EACH, *OTHERS])
def test_estimator_reaches_the_weights_of_plain_torch(
    frame_of: Callable[[Sequence[np.ndarray]], DataFrame], partitions: str, ranks: int
) -> None:
    torch, parts = Torch(), make_rows(PARTITIONS[partitions])
    recipe = torch.recipe(MODEL_SEED)
    estimator = Estimator.from_torch(
        model=recipe.model,
        optimizer=recipe.optimizer,
        loss=recipe.loss,
        config={"seed": SEED},
        workers_per_node=ranks,
    )
    estimator.fit(
        frame_of(parts),
        epochs=EPOCHS,
        batch_size=BATCH,
        feature_cols=torch.features,
        label_cols=["y"],
    )
    found = torch.named(estimator.get_model().state_dict())
    assert_same(found, plain_weights(torch, parts), torch.tolerance)
