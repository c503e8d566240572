"""Mixed precision and gradient accumulation: what has to be the same is the same."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pyspark import cloudpickle
from pyspark.sql import DataFrame, SparkSession
from torch import nn

from zoo.errors import InputError
from zoo.orca.learn.pytorch import Estimator
from zoo.orca.learn.pytorch.batches import Batch

# Ranks cannot import a test module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

BATCH = 16


@pytest.fixture(scope="module")
def frame(spark: SparkSession) -> Iterator[DataFrame]:
    """Rows that divide into nothing evenly: 75 of them in three partitions."""
    columns = ["sin(id) a", "cos(3 * id) b", "sin(id) - 2 * cos(3 * id) + 1 y", "id % 3 k"]
    # With small targets no step of half precision is left out.
    columns.append("0.1 * (sin(id) - cos(3 * id)) small")
    made = spark.range(0, 75, 1, 3).selectExpr(*columns).persist()
    yield made
    made.unpersist()


def net(outputs: int = 1, dtype: torch.dtype = torch.float64) -> Callable[..., nn.Module]:
    def make(config: dict[str, Any]) -> nn.Module:
        torch.manual_seed(7)
        last = [nn.Flatten(0)] if outputs == 1 else []
        return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, outputs), *last).to(dtype)

    return make


def adam(model: nn.Module, config: dict[str, Any]) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.02)


def estimator(ranks: int = 1, model: Any = None, loss: Any = None, **given: Any) -> Any:
    return Estimator.from_torch(
        model=model or net(),
        loss=loss or nn.MSELoss(),
        optimizer=adam,
        workers_per_node=ranks,
        **given,
    )


def fit(est: Any, frame: DataFrame, epochs: int = 2, label: str = "y") -> Any:
    columns = {"feature_cols": ["a", "b"], "label_cols": [label]}
    return est.fit(frame, epochs=epochs, batch_size=BATCH, **columns)


def assert_same(left: Any, right: Any, tolerance: float = 0.0) -> None:
    pairs = zip(left.get_model().parameters(), right.get_model().parameters(), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


# Parts of a batch


def test_parts_are_all_rows_in_order() -> None:
    rows = torch.arange(11.0)
    parts = Batch((rows, rows.view(11, 1)), (rows.tolist(),), 11).parts(3)
    assert [p.rows for p in parts] == [3, 4, 4]
    torch.testing.assert_close(torch.cat([p.features[0] for p in parts]), rows)
    assert [p.targets[0] for p in parts][0] == [0.0, 1.0, 2.0]


def test_no_part_is_empty() -> None:
    rows = torch.arange(2.0)
    assert [p.rows for p in Batch((rows,), (rows,), 2).parts(5)] == [1, 1]
    assert [p.rows for p in Batch((rows,), (rows,), 2).parts(1)] == [2]


def test_batch_that_cannot_be_cut_is_an_error() -> None:
    with pytest.raises(InputError, match="gradient_accumulation=1"):
        Batch(("ab",), (torch.arange(2.0),), 2).parts(2)


def test_dicts_in_a_batch_are_cut() -> None:
    parts = Batch(({"a": torch.arange(2.0)},), (torch.arange(2.0),), 2).parts(2)
    assert [part.features[0]["a"].tolist() for part in parts] == [[0.0], [1.0]]


# Accumulation

LOSSES: dict[str, Any] = {
    "mean": (nn.MSELoss(), 1, "y"),
    "sum": (nn.MSELoss(reduction="sum"), 1, "y"),
    "weighted": (nn.CrossEntropyLoss(torch.tensor([1.0, 5.0, 0.1]).double()), 3, "k"),
    "ignored": (nn.CrossEntropyLoss(ignore_index=1), 3, "k"),
}


@pytest.mark.spark
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("kind", LOSSES)
def test_accumulation_changes_nothing(frame: DataFrame, kind: str, ranks: int) -> None:
    loss, outputs, label = LOSSES[kind]
    whole = estimator(1, net(outputs), loss)
    parts = estimator(ranks, net(outputs), loss, gradient_accumulation=3)
    expected = fit(whole, frame, label=label)
    found = fit(parts, frame, label=label)
    assert_same(whole, parts, tolerance=1e-12)
    losses = [r["train_loss"] for r in expected]
    assert [r["train_loss"] for r in found] == pytest.approx(losses, rel=1e-12)


@pytest.mark.spark
@pytest.mark.parametrize("wrong", [0, 1.5, True])
def test_number_of_parts_is_checked(wrong: Any) -> None:
    with pytest.raises(InputError, match="gradient_accumulation"):
        estimator(gradient_accumulation=wrong)


# Precision


@pytest.mark.parametrize("wrong", ["fp32", "half", 16])
def test_other_precisions_are_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match="precision 'bf16', 'fp16' or None"):
        estimator(precision=wrong)


@pytest.mark.spark
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_loss_falls_and_ranks_agree_within_half_precision(frame: DataFrame, precision: str) -> None:
    model = net(dtype=torch.float32)
    one, two = estimator(1, model, precision=precision), estimator(2, model, precision=precision)
    losses, same = (
        [r["train_loss"] for r in fit(e, frame, epochs=3, label="small")] for e in (one, two)
    )
    assert losses == sorted(losses, reverse=True)
    assert same == pytest.approx(losses, rel=0.05)
    assert_same(one, two, tolerance=0.02)
    assert {p.dtype for p in one.get_model().parameters()} == {torch.float32}


@pytest.mark.spark
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_near_single_precision(frame: DataFrame, precision: str) -> None:
    model = net(dtype=torch.float32)
    half, single = estimator(2, model, precision=precision), estimator(2, model)
    fit(half, frame, label="small")
    fit(single, frame, label="small")
    assert_same(half, single, tolerance=0.05)
    first = next(half.get_model().parameters())
    assert not torch.equal(first, next(single.get_model().parameters()))


@pytest.mark.spark
@pytest.mark.parametrize("ranks", [1, 2])
def test_half_precision_goes_on_to_the_bit(frame: DataFrame, tmp_path: Path, ranks: int) -> None:
    model = net(dtype=torch.float32)
    whole, first, second = (estimator(ranks, model, precision="fp16") for _ in range(3))
    fit(whole, frame, epochs=4)
    fit(first, frame, epochs=2)
    second.load(first.save(str(tmp_path / "half")))
    fit(second, frame, epochs=2)
    assert_same(whole, second)
    assert second._built.scaler.state_dict() == whole._built.scaler.state_dict()


class Explodes(nn.Module):
    """Gives gradients beyond half precision in the first steps."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).flatten() * 30.0


@pytest.mark.spark
def test_steps_with_infinite_gradients_are_left_out_on_all_ranks(frame: DataFrame) -> None:
    def make(config: dict[str, Any]) -> nn.Module:
        torch.manual_seed(7)
        return Explodes()

    one, two = (estimator(r, make, precision="fp16") for r in (1, 2))
    fit(one, frame)
    fit(two, frame)
    scales = [e._built.scaler.get_scale() for e in (one, two)]
    assert scales[0] == scales[1] < 65536.0
    assert all(p.isfinite().all() for p in two.get_model().parameters())
