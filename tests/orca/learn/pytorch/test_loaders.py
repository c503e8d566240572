"""Data that a creator function makes on every rank."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from pyspark import cloudpickle
from pyspark.sql import SparkSession
from torch import nn
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
)

from zoo.errors import InputError
from zoo.orca.learn.metrics import MAE
from zoo.orca.learn.pytorch import Estimator

# Ranks cannot import a test module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("spark")]

ROWS = 50
Creator = Callable[[dict[str, Any], int], DataLoader[Any]]


def tensors(rows: int = ROWS) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.linspace(-1, 1, rows).unsqueeze(1)
    return x, (3 * x + 1).squeeze(1)


def loader(config: dict[str, Any], batch_size: int, **options: Any) -> DataLoader[Any]:
    data = TensorDataset(*tensors(config.get("rows", ROWS)))
    return DataLoader(data, **({"batch_size": batch_size} | options))


def shuffled(config: dict[str, Any], batch_size: int) -> DataLoader[Any]:
    return loader(config, batch_size, shuffle=True)


def linear() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(1, 1), nn.Flatten(0))


def estimator(ranks: int = 1, *, lr: float = 0.1, **config: Any) -> Any:
    return Estimator.from_torch(
        model=linear(),
        optimizer=lambda model, config: torch.optim.SGD(model.parameters(), lr=lr, momentum=0.5),
        loss=nn.MSELoss(),
        metrics=[MAE()],
        workers_per_node=ranks,
        config=config,
    )


def weights(est: Any) -> np.ndarray:
    return torch.cat([p.detach().reshape(-1) for p in est.get_model().parameters()]).numpy()


def trained(creator: Creator, ranks: int, **given: Any) -> np.ndarray:
    est = estimator(ranks)
    est.fit(creator, **({"epochs": 2, "batch_size": 8} | given))
    return weights(est)


def in_order(batch_size: int, epochs: int = 2) -> np.ndarray:
    """Plain torch over the rows in order; the batches of an epoch are of about equal size."""
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    x, y = tensors()
    steps = -(-ROWS // batch_size)
    for _ in range(epochs):
        for rows in np.array_split(np.arange(ROWS), steps):
            optimizer.zero_grad()
            nn.MSELoss()(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()]).numpy()


@pytest.mark.parametrize("ranks", [1, 2])
def test_rows_in_order_equal_plain_torch(ranks: int) -> None:
    np.testing.assert_allclose(trained(loader, ranks, batch_size=10), in_order(10), rtol=1e-5)


@pytest.mark.parametrize("batch_size", [8, 10, 50])
def test_number_of_ranks_does_not_change_weights(batch_size: int) -> None:
    one, two = (trained(shuffled, ranks, batch_size=batch_size) for ranks in (1, 2))
    np.testing.assert_allclose(one, two, rtol=1e-5)


def test_shuffled_differs_from_in_order() -> None:
    assert not np.allclose(trained(shuffled, 1), trained(loader, 1), rtol=1e-4)


def test_every_row_is_used_once_an_epoch() -> None:
    for epoch in estimator(2).fit(shuffled, epochs=2, batch_size=8):
        assert (epoch["num_samples"], epoch["batch_count"]) == (ROWS, 7)


def test_fewer_rows_than_ranks() -> None:
    (epoch,) = estimator(4, rows=3).fit(loader, batch_size=8)
    assert (epoch["num_samples"], epoch["batch_count"]) == (3, 1)


def test_batch_size_of_the_loader_counts_for_each_rank() -> None:
    def own(config: dict[str, Any], batch_size: int) -> DataLoader[Any]:
        return loader(config, 5)

    (epoch,) = estimator(2).fit(own, batch_size=32)
    assert epoch["batch_count"] == 5


def test_creator_knows_its_rank() -> None:
    def create(config: dict[str, Any], batch_size: int) -> DataLoader[Any]:
        assert config["size"] == 2
        assert batch_size == 16
        x, y = tensors(10 * (1 + config["rank"]))
        # Not the same dataset on every rank: each uses its own.
        return DataLoader(list(zip(x, y, strict=True)), batch_size=batch_size)  # type: ignore[arg-type]

    (epoch,) = estimator(2).fit(create, batch_size=32)
    assert epoch["num_samples"] == 30


class Stream(IterableDataset[Any]):
    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[Any]:
        x, y = tensors(max(1, self.rows))
        return iter(list(zip(x, y, strict=True))[: self.rows])


@pytest.mark.parametrize("each", [(20, 5), (0, 12), (7, 7)])
def test_streams_of_unequal_length_end_together(each: tuple[int, int]) -> None:
    def create(config: dict[str, Any], batch_size: int) -> DataLoader[Any]:
        return DataLoader(Stream(each[config["rank"]]), batch_size=batch_size)

    for epoch in estimator(2).fit(create, epochs=2, batch_size=8):
        assert epoch["num_samples"] == sum(each)
        assert epoch["batch_count"] == -(-max(each) // 4)


def test_stream_without_rows_is_an_error() -> None:
    with pytest.raises(InputError, match="batches to train on.*none in epoch 1"):
        estimator(2).fit(lambda c, b: DataLoader(Stream(0), batch_size=b), batch_size=8)


def test_stream_that_can_be_read_once_is_an_error() -> None:
    def create(config: dict[str, Any], batch_size: int) -> DataLoader[Any]:
        stream = Stream(8)
        once = iter(stream)
        stream.__class__ = type("Once", (Stream,), {"__iter__": lambda self: once})
        return DataLoader(stream, batch_size=batch_size)

    with pytest.raises(InputError, match="none in epoch 2"):
        estimator().fit(create, epochs=2, batch_size=8)


def test_loader_with_a_worker_process() -> None:
    def create(config: dict[str, Any], batch_size: int) -> DataLoader[Any]:
        return loader(config, batch_size, num_workers=1)

    np.testing.assert_allclose(trained(create, 2, epochs=1), trained(loader, 2, epochs=1))


class Squares(Dataset[Any]):
    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> dict[str, float]:
        return {"x": index / ROWS, "y": 2 * index / ROWS}


def collate(cells: list[dict[str, float]]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor([[c["x"]] for c in cells]), torch.tensor([c["y"] for c in cells])


def test_collate_function_makes_the_batches() -> None:
    def create(config: dict[str, Any], batch_size: int) -> DataLoader[Any]:
        return DataLoader(Squares(), batch_size=batch_size, collate_fn=collate)

    np.testing.assert_allclose(trained(create, 1), trained(create, 2), rtol=1e-5)


def test_own_sampler_is_used_as_it_comes() -> None:
    def create(config: dict[str, Any], batch_size: int) -> DataLoader[Any]:
        return loader(config, batch_size, sampler=SubsetRandomSampler(range(config["rank"], 40, 2)))

    (epoch,) = estimator(2).fit(create, batch_size=8)
    assert epoch["num_samples"] == 40


def test_sampler_with_replacement_is_used_as_it_comes() -> None:
    def create(config: dict[str, Any], batch_size: int) -> DataLoader[Any]:
        data = TensorDataset(*tensors())
        drawn = RandomSampler(data, replacement=True, num_samples=12)
        return DataLoader(data, batch_size=batch_size, sampler=drawn)

    (epoch,) = estimator(2).fit(create, batch_size=8)
    assert epoch["num_samples"] == 24


def test_several_inputs_of_a_loader() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 1)

        def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.layer(left + right).squeeze(1)
            return out

    def create(config: dict[str, Any], batch_size: int) -> DataLoader[Any]:
        x, y = tensors()
        return DataLoader(TensorDataset(x, x, y), batch_size=batch_size)

    est = Estimator.from_torch(model=Sum(), loss=nn.MSELoss())
    assert est.fit(create, batch_size=10)[0]["num_samples"] == ROWS


@pytest.mark.parametrize("ranks", [1, 2])
def test_validation_and_evaluation_of_loaders_are_exact(ranks: int) -> None:
    x, y = tensors()
    est = estimator(ranks, lr=0.0)
    (epoch,) = est.fit(loader, batch_size=8, validation_data=loader)
    found = est.evaluate(loader, batch_size=8)
    with torch.no_grad():
        error = linear()(x) - y
    expected = {"MAE": error.abs().mean().item(), "val_loss": (error**2).mean().item()}
    assert found == pytest.approx(expected | {"num_samples": ROWS}, rel=1e-5)
    assert epoch["val_MAE"] == pytest.approx(expected["MAE"], rel=1e-5)
    assert epoch["val_loss"] == pytest.approx(expected["val_loss"], rel=1e-5)


def test_spark_works_after_a_loader_with_workers(spark: SparkSession) -> None:
    trained(lambda c, b: loader(c, b, num_workers=1), 1, epochs=1)
    assert spark.range(10).count() == 10
