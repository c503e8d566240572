"""Every engine, any number of ranks and any partitioning reach the weights of plain torch."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from pyspark.sql import DataFrame, SparkSession
from torch import nn

from zoo.cluster.host import host_key
from zoo.cluster.launch import launcher_for
from zoo.cluster.meeting import Message
from zoo.cluster.round import launch
from zoo.orca.data.ingest import forget_ingested
from zoo.orca.data.plan import TensorPlan, plan_columns
from zoo.orca.data.schedule import epoch_batches
from zoo.orca.data.shard import Shard, ShardWriter
from zoo.orca.learn.loop import Position
from zoo.orca.learn.pytorch import Estimator
from zoo.orca.learn.pytorch.batches import ShardSource
from zoo.orca.learn.pytorch.recipe import Recipe, build
from zoo.orca.learn.pytorch.rounds import packed
from zoo.orca.learn.pytorch.state import save_state
from zoo.orca.learn.pytorch.worker import Order, train_rank

pytestmark = pytest.mark.spark

SCHEMA = "x0 double, x1 double, x2 double, y double, id long"
EPOCHS, BATCH, SEED = 2, 48, 3
PARTITIONS = {
    "one": [500],
    "two": [250, 250],
    "seven": [71, 72, 71, 72, 71, 72, 71],
    "forty, some empty": [0 if k % 5 == 0 else 16 for k in range(39)] + [4],
    "skewed": [10, 450, 0, 12, 8, 20],
}


class Net(nn.Module):
    """Small and not linear, in double precision."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x).squeeze(-1)


def make_net(config: dict[str, object]) -> nn.Module:
    torch.manual_seed(11)
    return Net().double()


def make_adam(model: nn.Module, config: dict[str, object]) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.01)


def make_rows(sizes: Sequence[int]) -> list[np.ndarray]:
    """The rows of each partition: x0, x1, x2, y, id."""
    draw = np.random.default_rng(5)
    total = sum(sizes)
    x = draw.normal(size=(total, 3))
    y = np.sin(x).sum(axis=1) + 0.1 * draw.normal(size=total)
    table = np.column_stack([x, y, np.arange(total)])
    return np.split(table, np.cumsum(sizes)[:-1])


def plain_weights(parts: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
    """One process, no Zoo: the batches of the schedule, in a torch loop."""
    filled = [p for p in parts if len(p)]
    model = make_net({})
    optimizer, loss = make_adam(model, {}), nn.MSELoss()
    for epoch in range(EPOCHS):
        for step in epoch_batches([len(p) for p in filled], BATCH, seed=SEED, epoch=epoch):
            rows = np.concatenate([filled[s][r] for s, r in step])
            optimizer.zero_grad()
            x, y = torch.from_numpy(rows[:, :3].copy()), torch.from_numpy(rows[:, 3].copy())
            loss(model(x), y).backward()
            optimizer.step()
    return model.state_dict()


def on_spark(spark: SparkSession, parts: Sequence[np.ndarray], ranks: int) -> nn.Module:
    estimator = Estimator.from_torch(
        model=make_net,
        optimizer=make_adam,
        loss=nn.MSELoss(),
        config={"seed": SEED},
        workers_per_node=ranks,
    )
    estimator.fit(
        frame_of(spark, parts),
        epochs=EPOCHS,
        batch_size=BATCH,
        feature_cols=["x0", "x1", "x2"],
        label_cols=["y"],
    )
    return estimator.get_model()


FRAMES: dict[tuple[str, ...], DataFrame] = {}


def frame_of(spark: SparkSession, parts: Sequence[np.ndarray]) -> DataFrame:
    """A frame with these rows in each partition, made once for all tests that want the same."""
    key = (spark.sparkContext.applicationId, *(str(len(p)) for p in parts))
    if key not in FRAMES:
        rows = [[(*map(float, r[:4]), int(r[4])) for r in part] for part in parts]
        spread = spark.sparkContext.parallelize(range(len(parts)), len(parts))
        FRAMES[key] = spark.createDataFrame(spread.flatMap(lambda k: rows[k]), SCHEMA).persist()
    return FRAMES[key]


@pytest.fixture(scope="module", autouse=True)
def unpersisted() -> Iterator[None]:
    """Leaves nothing in Spark for the tests of other modules."""
    yield
    while FRAMES:
        FRAMES.popitem()[1].unpersist()
    forget_ingested()


def on_processes(folder: Path, parts: Sequence[np.ndarray], ranks: int) -> nn.Module:
    """The local engine: shards written here, ranks as processes, no Spark."""
    plan, shards = write_shards(folder, parts)
    recipe = Recipe(model=make_net, optimizer=make_adam, loss=nn.MSELoss())
    built = build(recipe)
    order = Order(
        recipe=dumped(recipe),
        state=save_state(built, Position()),
        source=ShardSource(plan, shards, BATCH, SEED),
        validation=None,
        metrics={},
        until=EPOCHS,
        threads=1,
        seed=0,
    )
    states: list[Message] = []
    launch(
        packed(train_rank, order), launcher=launcher_for("local"), ranks=ranks, per_executor=ranks,
        on_progress=states.append,
    )  # fmt: skip
    state = torch.load(io.BytesIO([m for m in states if m.payload][-1].payload), weights_only=True)
    built.model.load_state_dict(state["model"])
    return built.model


def dumped(recipe: Recipe) -> bytes:
    from zoo.cluster.launch import pickled

    return pickled(recipe, "a recipe")


def write_shards(folder: Path, parts: Sequence[np.ndarray]) -> tuple[TensorPlan, tuple[Shard, ...]]:
    from pyspark.sql.types import _parse_datatype_string

    schema = _parse_datatype_string(SCHEMA)
    plan = plan_columns(schema, ["x0", "x1", "x2"], ["y"], float_dtype="float64", assemble=True)
    shards = []
    for k, part in enumerate(parts):
        if len(part):
            place = folder / f"{k}-{uuid.uuid4().hex}"
            with ShardWriter(place, 2) as writer:
                writer.append([part[:, :3], part[:, 3]])
            shards.append(Shard(k, writer.rows, host_key(), str(place), writer.bytes))
    return plan, tuple(shards)


def assert_same(model: nn.Module, expected: dict[str, torch.Tensor]) -> None:
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("sizes", PARTITIONS.values(), ids=PARTITIONS)
def test_spark_reaches_the_weights_of_plain_torch(
    spark: SparkSession, sizes: list[int], ranks: int
) -> None:
    parts = make_rows(sizes)
    assert_same(on_spark(spark, parts, ranks), plain_weights(parts))


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("sizes", [PARTITIONS["seven"], PARTITIONS["skewed"]])
def test_processes_reach_the_weights_of_plain_torch(
    tmp_path: Path, sizes: list[int], ranks: int
) -> None:
    parts = make_rows(sizes)
    assert_same(on_processes(tmp_path, parts, ranks), plain_weights(parts))


class RowLog(nn.Module):
    """One weight for each row; with a summed loss it falls by one each time the row is used."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.uses = nn.Embedding(rows, 1)
        nn.init.zeros_(self.uses.weight)

    def forward(self, row: torch.Tensor) -> torch.Tensor:
        return self.uses(row)


class SumLoss(nn.Module):
    """The sum of the output."""

    reduction = "sum"

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return output.sum()


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("sizes", PARTITIONS.values(), ids=PARTITIONS)
def test_every_row_is_used_exactly_once_an_epoch(
    spark: SparkSession, sizes: list[int], ranks: int
) -> None:
    model = RowLog(sum(sizes))
    estimator = Estimator.from_torch(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        loss=SumLoss(),
        workers_per_node=ranks,
    )
    estimator.fit(
        frame_of(spark, make_rows(sizes)),
        epochs=3,
        batch_size=32,
        feature_cols=["id"],
        label_cols=["y"],
    )
    assert model.uses.weight.detach().flatten().tolist() == [-3.0] * sum(sizes)
