"""Types that model and loss take, found out before any job."""

from typing import Any

import pytest
import torch
from pyspark.sql import types as T
from torch import nn
from torch.nn import functional as F

from zoo.errors import ColumnError
from zoo.orca.data.tensors.plan import Columns, TensorPlan
from zoo.orca.data.tensors.plan_columns import plan_columns
from zoo.orca.learn.pytorch.recipe import Recipe, build, takes_one_input
from zoo.orca.learn.pytorch.rehearsal import as_taken

SCHEMA = T.StructType(
    [
        T.StructField("a", T.DoubleType()),
        T.StructField("real", T.DoubleType()),
        T.StructField("age", T.IntegerType()),
        T.StructField("rooms", T.LongType()),
        T.StructField("yes", T.BooleanType()),
        T.StructField("v", T.ArrayType(T.DoubleType())),
    ]
)


class Mixed(nn.Module):
    """An item for an embedding, and a number."""

    def __init__(self) -> None:
        super().__init__()
        self.items, self.number = nn.Embedding(5, 2), nn.Linear(1, 2)

    def forward(self, item: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
        return (self.items(item) + self.number(number[:, None])).sum(1)


def column(inputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 1), nn.Flatten(0))


def planned(model: nn.Module, features: Columns, labels: Columns) -> TensorPlan:
    return plan_columns(SCHEMA, features, labels, assemble=takes_one_input(model))


def types(
    model: nn.Module, loss: Any, features: Columns, labels: Columns, *fixed: str
) -> list[str | None]:
    plan = planned(model, features, labels)
    taken = as_taken(build(Recipe(model, None, loss)), plan, frozenset(fixed))
    assert all(c.dtype == t.dtype for t in taken.tensors for c in t.columns)
    return [tensor.dtype for tensor in taken.tensors]


CASES: dict[str, tuple[nn.Module, Any, Columns, Columns, list[str]]] = {
    "as they are": (column(2), nn.MSELoss(), ["a", "real"], ["a"], ["float32", "float32"]),
    "classes as doubles": (
        nn.Linear(1, 2), nn.CrossEntropyLoss(), ["a"], ["real"], ["float32", "int64"],
    ),
    "classes as booleans": (
        nn.Linear(1, 2), nn.NLLLoss(), ["a"], ["yes"], ["float32", "int64"],
    ),
    "classes for a vector of unknown length": (
        nn.Linear(7, 2), nn.CrossEntropyLoss(), ["v"], ["real"], ["float32", "int64"],
    ),
    "probabilities of classes": (
        nn.Linear(1, 2), nn.CrossEntropyLoss(), ["a"], [["a", "real"]], ["float32", "float32"],
    ),
    "whole answers": (
        column(1), nn.BCEWithLogitsLoss(), ["a"], ["age"], ["float32", "float32"],
    ),
    "whole numbers to predict": (
        column(1), nn.HuberLoss(), ["a"], ["rooms"], ["float32", "float32"],
    ),
    "whole features": (column(2), nn.MSELoss(), ["age", "rooms"], ["a"], ["float32", "float32"]),
    "items for an embedding": (
        nn.Sequential(nn.Embedding(5, 1), nn.Flatten(0)), nn.MSELoss(), ["age"], ["a"],
        ["int64", "float32"],
    ),
    "items as doubles, ages as whole numbers": (
        Mixed(), nn.MSELoss(), ["real", "age"], ["a"], ["int64", "float32", "float32"],
    ),
    "a function that compares classes": (
        nn.Linear(1, 3), lambda o, t: F.cross_entropy(o, t), ["a"], ["real"],
        ["float32", "int64"],
    ),
    "a function of answers": (
        column(1), lambda o, t: F.binary_cross_entropy_with_logits(o, t), ["a"], ["age"],
        ["float32", "float32"],
    ),
    "double precision": (
        column(2).double(), nn.MSELoss(), ["age", "rooms"], ["rooms"], ["float64", "float64"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_one_reading_fits(name: str) -> None:
    model, loss, features, labels, expected = CASES[name]
    assert types(model, loss, features, labels) == expected


def test_several_losses_have_a_reading_each() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(1, 3)

        def forward(self, x: torch.Tensor) -> Any:
            out = self.layer(x)
            return out[:, :2], out[:, 2]

    losses = [nn.CrossEntropyLoss(), nn.BCEWithLogitsLoss()]
    assert types(Both(), losses, ["a"], ["real", "age"]) == ["float32", "int64", "float32"]


def test_what_is_read_otherwise_has_to_be_exact() -> None:
    model = nn.Linear(1, 2)
    built = build(Recipe(model, None, nn.CrossEntropyLoss()))
    (label,) = as_taken(built, planned(model, ["a"], ["real"]), frozenset()).labels
    assert label.columns[0].exact


def test_one_column_is_a_matrix_where_the_layer_takes_one() -> None:
    model = column(1)
    plan = planned(model, ["age"], ["a"])
    (feature,) = as_taken(build(Recipe(model, None, nn.MSELoss())), plan, frozenset()).features
    assert (feature.shape, feature.dtype) == ((1,), "float32")


def test_rows_are_not_taken_for_columns() -> None:
    """A layer could take the made-up rows of one column for one row."""
    with pytest.raises(ColumnError, match=r"'a' \(float32\).*\(3x1 and 3x1\)"):
        types(column(3), nn.MSELoss(), ["a"], ["a"])


def test_a_type_that_the_user_chose_stays() -> None:
    with pytest.raises(ColumnError, match=r"'age' \(int64\)"):
        types(column(1), nn.MSELoss(), [["age"]], ["a"], "age")
    with pytest.raises(ColumnError, match=r"'real' \(float32\), of which torch says: expected"):
        types(nn.Linear(1, 2), nn.CrossEntropyLoss(), ["a"], ["real"], "real")


CANNOT: dict[str, tuple[nn.Module, Columns, str]] = {
    "too few": (column(3), ["a", "real"], r"'a', 'real' \(float32, 2 columns in one matrix\).*3x2"),
    "too few whole ones": (column(3), ["age"], r"'age' \(int64\).*shapes.*as many columns as"),
    "too many": (Mixed(), ["real", "age", "a"], "4 were given. Each entry of feature_cols is one"),
}


@pytest.mark.parametrize("name", CANNOT)
def test_columns_that_no_reading_fits_are_named(name: str) -> None:
    model, features, said = CANNOT[name]
    with pytest.raises(ColumnError, match=said):
        types(model, nn.MSELoss(), features, ["a"])


def test_an_error_that_the_numbers_may_have_made_is_left_to_the_ranks() -> None:
    class Picky(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not x.any():
                raise ValueError("all zeros")
            return x

    model = nn.Sequential(Picky(), column(1))
    assert types(model, nn.MSELoss(), ["a"], ["age"]) == ["float32", "float32"]


def test_nothing_of_the_model_is_changed() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(), column(2))
    before, seed = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    types(model, nn.MSELoss(), ["a", "real"], ["a"])
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training
    assert torch.equal(seed, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())


def test_what_counts_its_calls_is_left_as_it_was() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.calls = column(1), 0
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x: torch.Tensor, target: Any = None) -> torch.Tensor:
            self.seen += 1
            self.calls += 1
            return self.layer(x) if target is None else (x - target).square().mean()

    model, loss = Counts(), Counts()
    types(model, loss, ["a"], ["a"])
    assert (model.seen, loss.calls) == (0, 0)
