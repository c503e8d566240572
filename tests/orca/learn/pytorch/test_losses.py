"""Losses: of several outputs, with weights of their own, and what a batch weighs among others."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pytest
import torch
from pyspark import cloudpickle
from pyspark.sql import DataFrame, SparkSession
from torch import nn

from zoo.errors import InputError
from zoo.orca.learn.metrics import MAE
from zoo.orca.learn.pytorch import Estimator
from zoo.orca.learn.pytorch.batches import Batch
from zoo.orca.learn.pytorch.losses import LossPerOutput, compute_loss, loss_weight

# Ranks cannot import a test module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROWS, BATCH = 48, 16


@dataclass
class Given:
    """What was built, as far as losses go."""

    loss: Any


def batch(target: torch.Tensor, *more: torch.Tensor) -> Batch:
    return Batch((target,), (target, *more), len(target))


# One number


def test_mean_of_the_output_without_a_loss() -> None:
    assert compute_loss(Given(None), torch.tensor([1.0, 3.0]), ()) == 2.0


def test_outputs_go_into_one_loss_with_their_targets() -> None:
    both = (torch.ones(3), torch.zeros(3))
    loss = compute_loss(
        Given(lambda a, b, x, y: (a - x).sum() + (b - y).sum()), both, (torch.zeros(3), both[0])
    )
    assert loss == 0.0


def test_several_targets_of_one_output_are_side_by_side() -> None:
    output = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    targets = (torch.tensor([1.0, 3.0]), torch.tensor([2.0, 5.0]))
    assert compute_loss(Given(nn.MSELoss()), output, targets) == 0.25


def test_each_output_has_its_loss() -> None:
    loss = LossPerOutput([nn.MSELoss(), nn.L1Loss()])
    outputs = (torch.tensor([2.0, 2.0]), torch.tensor([3.0, 3.0]))
    targets = (torch.zeros(2), torch.zeros(2))
    assert compute_loss(Given(loss), outputs, targets) == 7.0


def test_one_loss_in_a_list_is_that_loss() -> None:
    loss = LossPerOutput([nn.MSELoss()])
    assert compute_loss(Given(loss), torch.ones(2), (torch.zeros(2),)) == 1.0


@pytest.mark.parametrize("outputs", [1, 3])
def test_number_of_losses_is_that_of_outputs(outputs: int) -> None:
    loss = LossPerOutput([nn.MSELoss(), nn.MSELoss()])
    some = tuple(torch.ones(2) for _ in range(outputs))
    with pytest.raises(InputError, match=f"2 outputs and targets.*{outputs} outputs and 2 targets"):
        compute_loss(Given(loss), some, (torch.ones(2), torch.ones(2)))


def test_losses_of_a_list_have_one_reduction() -> None:
    with pytest.raises(InputError, match="losses of one reduction.*mean and sum"):
        LossPerOutput([nn.MSELoss(), nn.L1Loss(reduction="sum")])
    assert LossPerOutput([nn.L1Loss(reduction="sum")]).reduction == "sum"


@pytest.mark.parametrize("value", [torch.ones(2), 1.0, None])
def test_loss_that_is_not_one_number_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="a loss that is one number"):
        compute_loss(Given(lambda output, target: value), torch.ones(2), (torch.ones(2),))


def test_broadcast_in_a_loss_is_refused() -> None:
    with pytest.raises(InputError, match=r"\(4, 1\) and \(4,\)"):
        compute_loss(Given(nn.MSELoss()), torch.ones(4, 1), (torch.ones(4),))
    with pytest.raises(InputError, match=r"\(4, 1\) and \(4,\)"):
        compute_loss(Given(LossPerOutput([nn.MSELoss()])), torch.ones(4, 1), (torch.ones(4),))


# Weights

CLASSES = torch.tensor([0, 1, 2, 2])
WEIGHTS = torch.tensor([1.0, 2.0, 4.0])


@pytest.mark.parametrize(
    ("loss", "target", "weight"),
    [
        (nn.MSELoss(), torch.ones(4), 4.0),
        (nn.MSELoss(reduction="sum"), torch.ones(4), 0.0),
        (None, torch.ones(4), 4.0),
        (lambda output, target: output, torch.ones(4), 4.0),
        (nn.CrossEntropyLoss(), CLASSES, 4.0),
        (nn.CrossEntropyLoss(WEIGHTS), CLASSES, 11.0),
        (nn.NLLLoss(WEIGHTS), CLASSES, 11.0),
        (nn.CrossEntropyLoss(ignore_index=2), CLASSES, 2.0),
        (nn.CrossEntropyLoss(WEIGHTS, ignore_index=2), CLASSES, 3.0),
        (nn.CrossEntropyLoss(ignore_index=2), torch.full((4,), 2), 0.0),
        (nn.CrossEntropyLoss(WEIGHTS), torch.ones(4, 3), 4.0),
        (nn.CrossEntropyLoss(ignore_index=2), CLASSES.repeat(2, 2), 2 * 0.5),
    ],
)
def test_what_a_batch_weighs(loss: Any, target: torch.Tensor, weight: float) -> None:
    assert loss_weight(loss, batch(target)) == weight


def test_batch_of_several_targets_weighs_its_rows() -> None:
    assert loss_weight(nn.CrossEntropyLoss(WEIGHTS), batch(CLASSES, CLASSES)) == 4.0


def test_weights_make_parts_add_up_to_the_whole() -> None:
    torch.manual_seed(5)
    output, target = torch.randn(9, 3, dtype=torch.float64), torch.arange(9) % 3
    loss = nn.CrossEntropyLoss(WEIGHTS.double(), ignore_index=1)
    parts = [(slice(0, 2)), (slice(2, 9))]
    weights = [loss_weight(loss, batch(target[p])) for p in parts]
    values = [loss(output[p], target[p]).item() for p in parts]
    mean = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    assert mean == pytest.approx(loss(output, target).item(), rel=1e-12)


# In a fit


@pytest.fixture(scope="module")
def frame(spark: SparkSession) -> Iterator[DataFrame]:
    """48 rows in one partition, so that an unshuffled batch is the next 16 of them."""
    columns = ["sin(id) a", "cos(3 * id) b", "sin(id) + 1 y", "cos(3 * id) - 2 z", "id % 3 k"]
    made = spark.range(0, ROWS, 1, 1).selectExpr(*columns).persist()
    yield made
    made.unpersist()


class TwoHeads(nn.Module):
    """Two inputs, two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(1, 1), nn.Linear(1, 3)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.first(a[:, None]).flatten(), self.second(b[:, None])


def heads(config: Any = None) -> nn.Module:
    torch.manual_seed(7)
    return TwoHeads().double()


def sgd(model: nn.Module, config: Any = None) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def plain(rows: pd.DataFrame, weight: float) -> nn.Module:
    model = heads()
    optimizer = sgd(model)
    a, b, y = (torch.tensor(rows[c].to_numpy()) for c in ("a", "b", "y"))
    k = torch.tensor(rows["k"].to_numpy())
    for at in list(range(0, ROWS, BATCH)) * 2:
        part = slice(at, at + BATCH)
        optimizer.zero_grad()
        first, second = model(a[part], b[part])
        loss = nn.functional.mse_loss(first, y[part])
        (loss + weight * nn.functional.cross_entropy(second, k[part])).backward()
        optimizer.step()
    return model


def weighted(first: Any, second: Any, y: Any, k: Any) -> torch.Tensor:
    return nn.functional.mse_loss(first, y) + 0.3 * nn.functional.cross_entropy(second, k)


@pytest.mark.spark
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize(
    ("loss", "weight"), [([nn.MSELoss(), nn.CrossEntropyLoss()], 1.0), (weighted, 0.3)]
)
def test_several_outputs_equal_plain_torch(
    frame: DataFrame, loss: Any, weight: float, ranks: int
) -> None:
    est = Estimator.from_torch(
        model=heads, optimizer=sgd, loss=loss, workers_per_node=ranks, config={"shuffle": False}
    )
    columns = {"feature_cols": ["a", "b"], "label_cols": ["y", "k"]}
    est.fit(frame, epochs=2, batch_size=BATCH, **columns)
    expected = plain(frame.toPandas(), weight)
    for one, other in zip(est.get_model().parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


@pytest.mark.spark
def test_several_outputs_are_validated(frame: DataFrame) -> None:
    losses = [nn.MSELoss(), nn.CrossEntropyLoss()]
    est = Estimator.from_torch(model=heads, optimizer=sgd, loss=losses, metrics=[MAE()])
    columns: dict[str, Any] = {"feature_cols": ["a", "b"], "label_cols": ["y", "k"]}
    (result,) = est.fit(frame, batch_size=BATCH, validation_data=frame, **columns)
    scores = est.evaluate(frame, batch_size=BATCH, **columns)
    assert result["val_loss"] == pytest.approx(scores["val_loss"], rel=1e-9)
    assert result["val_MAE"] == pytest.approx(scores["MAE"], rel=1e-9)
