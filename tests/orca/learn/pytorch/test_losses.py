"""Losses: of several outputs, with weights of their own, and what a batch weighs among others."""

import functools
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
from zoo.orca.learn.pytorch.losses import (
    LossPerOutput,
    Weighed,
    compute_loss,
    loss_weight,
    weigh_loss,
)

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


@pytest.mark.parametrize("value", [torch.ones(3), torch.ones(2, 1), 1.0, None])
def test_loss_that_is_not_one_number_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="a loss that is one number"):
        compute_loss(Given(lambda output, target: value), torch.ones(2), (torch.ones(2),))


# Shapes

OUTPUT, TARGET = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 0.0, 0.0])


def own(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return ((output - target) ** 2).mean()


def own_with_torch(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return nn.functional.mse_loss(output, target)


class OwnModule(nn.Module):
    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return own(output, target)


class OwnMSE(nn.MSELoss):
    """A subclass, whose `forward` may be anything."""


LOSSES = [nn.MSELoss(), own, own_with_torch, OwnModule(), OwnMSE(), LossPerOutput([nn.MSELoss()])]


@pytest.mark.parametrize("kind", [torch.float32, torch.int64])
@pytest.mark.parametrize("loss", LOSSES)
def test_one_column_and_its_numbers_are_one_reading(loss: Any, kind: torch.dtype) -> None:
    target = TARGET.to(kind)
    for output, targets in ((OUTPUT[:, None], target), (OUTPUT, target[:, None])):
        assert compute_loss(Given(loss), output, (targets,)) == pytest.approx(20 / 3)


@pytest.mark.parametrize("kind", [torch.float32, torch.int64])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_rows_are_not_compared_with_other_rows(loss: Any, kind: torch.dtype) -> None:
    with pytest.raises(InputError, match=r"of one shape.*\(3, 3\) and \(3,\)"):
        compute_loss(Given(loss), torch.ones(3, 3), (torch.ones(3, dtype=kind),))


@pytest.mark.parametrize("loss", [nn.MSELoss(), nn.L1Loss(), nn.BCELoss(), own_with_torch])
def test_columns_are_not_compared_with_one(loss: Any) -> None:
    with pytest.raises(InputError, match=r"of one shape.*\(3, 2\) and \(3, 1\)"):
        compute_loss(Given(loss), torch.ones(3, 2), (torch.ones(3, 1),))


def test_functions_that_bring_shapes_together_get_what_they_expect() -> None:
    def squeezes(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        assert (output.ndim, target.ndim) == (2, 1)
        return own(output.squeeze(1), target)

    def lifts(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return own(output, target.unsqueeze(1))

    for loss in (squeezes, lifts):
        assert compute_loss(Given(loss), OUTPUT[:, None], (TARGET,)) == pytest.approx(20 / 3)


def pinball(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    apart = target[:, None] - output
    return torch.maximum(apart * 0.5, apart * -0.5).mean()


def pairs(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    far = output[:, None] - output
    near = target[:, None] - target
    return ((far - near) ** 2).mean()


def focal(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    each = nn.functional.cross_entropy(output, target, reduction="none")
    return ((1 - (-each).exp()) ** 2 * each).mean()


def picked(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return -output.log_softmax(1)[torch.arange(len(target)), target].mean()


@pytest.mark.parametrize(
    ("loss", "output", "target"),
    [
        (pinball, torch.randn(3, 3), torch.randn(3)),
        (pairs, torch.randn(3), torch.randn(3)),
        (focal, torch.randn(3, 3), torch.tensor([0, 1, 2])),
        (picked, torch.randn(3, 3), torch.tensor([0, 1, 2])),
        (nn.CrossEntropyLoss(), torch.randn(3, 3), torch.tensor([0, 1, 2])),
        (nn.MultiMarginLoss(), torch.randn(3, 3), torch.tensor([0, 1, 2])),
    ],
)
def test_what_is_meant_is_let_alone(loss: Any, output: torch.Tensor, target: torch.Tensor) -> None:
    assert compute_loss(Given(loss), output, (target,)) == loss(output, target)


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


def weighed(loss: Any, output: torch.Tensor, target: torch.Tensor) -> Weighed:
    return weigh_loss(Given(loss), output, (target,))


SCORES = torch.randn(4, 3)


def in_classes(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(output, target, weight=WEIGHTS)


def log_classes(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return 2 * nn.functional.nll_loss(output.log_softmax(1), target, WEIGHTS, ignore_index=2)


def several(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    first = nn.functional.mse_loss(output[:, 0], target.float())
    return first + 0.3 * nn.functional.cross_entropy(output, target) - own(output[:, 1], target) / 2


def in_pairs(output: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    total = nn.functional.cross_entropy(output, target, weight=WEIGHTS, reduction="sum")
    return total, WEIGHTS[target].sum()


@pytest.mark.parametrize(
    ("loss", "weight"),
    [
        (in_classes, 11.0),
        (functools.partial(nn.functional.cross_entropy, weight=WEIGHTS), 11.0),
        (log_classes, 3.0),
        (several, 4.0),
        (in_pairs, 11.0),
        (nn.CrossEntropyLoss(WEIGHTS), 11.0),
        (nn.CrossEntropyLoss(reduction="sum"), 0.0),
    ],
)
def test_what_a_function_divides_by_is_seen(loss: Any, weight: float) -> None:
    found = weighed(loss, SCORES, CLASSES)
    assert (found.weight, found.known) == (weight, True)


def test_sum_and_weight_of_a_function_are_its_mean() -> None:
    expected = nn.CrossEntropyLoss(WEIGHTS)(SCORES, CLASSES)
    assert weighed(in_pairs, SCORES, CLASSES).loss == pytest.approx(float(expected))


def test_batch_without_any_weight_has_no_loss() -> None:
    found = weighed(lambda o, t: ((o * 0).sum(), 0), SCORES, CLASSES)
    assert (float(found.loss), found.weight) == (0.0, 0.0)


@pytest.mark.parametrize("answer", [(SCORES.sum(), -1.0), (1.0, 2.0), (SCORES.sum(), float("nan"))])
def test_sum_and_weight_are_checked(answer: Any) -> None:
    with pytest.raises(InputError, match="a sum as a tensor and a weight of 0 or more"):
        weighed(lambda o, t: answer, SCORES, CLASSES)


@pytest.mark.parametrize(
    "loss",
    [
        lambda o, t: in_classes(o, t) + own(o[:, 0], t),
        lambda o, t: (o[:, 0] * WEIGHTS[t]).sum() / WEIGHTS[t].sum(),
        lambda o, t: nn.functional.cross_entropy(o, t, reduction="sum"),
    ],
)
def test_other_weights_are_guessed_and_called_so(loss: Any) -> None:
    found = weighed(loss, SCORES, CLASSES)
    assert (found.weight, found.known) == (4.0, False)


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
