"""What a user can pass wrongly and the driver refuses: one clear error, before any task starts."""

import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pyspark.sql import types as T
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, TensorDataset

from zoo.errors import ColumnError, ContractError, InputError, NotYetError
from zoo.orca.data.tensors.plan_columns import plan_columns
from zoo.orca.learn.driver.inputs import require_same_kind
from zoo.orca.learn.pytorch import Estimator

Bad = tuple[dict[str, Any], type[BaseException], str]


class Oddity(Exception):
    """An error that only a user's code has."""


def fails(*_: Any, **__: Any) -> Any:
    raise Oddity("of the user")


def loader(config: dict[str, Any], batch_size: int) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.ones(8, 1), torch.ones(8)), batch_size=batch_size)


def estimator(**given: Any) -> Any:
    model = given.setdefault("model", nn.Linear(1, 1))
    if isinstance(model, nn.Module) and "optimizer" not in given:
        given["optimizer"] = torch.optim.SGD(model.parameters(), lr=1e-4)
    given.setdefault("loss", nn.MSELoss())
    return Estimator.from_torch(**given)


# Columns

SCHEMA = T.StructType([
    T.StructField("id", T.LongType()),
    T.StructField("a", T.DoubleType()),
    T.StructField("y", T.DoubleType()),
    T.StructField("image", T.BinaryType()),
])  # fmt: skip
TYPES = {
    "text": (T.StringType(), "'a'.*StringIndexer"),
    "map": (T.MapType(T.StringType(), T.LongType()), "'a'.*values by key"),
    "struct": (T.StructType([T.StructField("id", T.LongType())]), "'a'.*Select its field"),
    "array of text": (T.ArrayType(T.StringType()), r"'a'.*unsupported field.*array<string>"),
    "array of structs": (T.ArrayType(T.StructType([T.StructField("b", T.LongType())])), "struct"),
    "binary without decoder": (T.BinaryType(), "decoders=.'a'"),
    "interval": (T.DayTimeIntervalType(), "'a'.*interval day.*Cast or drop"),
    "null type": (T.NullType(), "'a'.*void"),
}
COLUMNS: dict[str, Bad] = {
    "missing feature": ({"feature_cols": ["b"]}, ColumnError, "id, a, y.*'b'"),
    "wrong case": ({"feature_cols": ["A"]}, ColumnError, "'A'.*case-sensitive"),
    "no features": ({"feature_cols": None}, AssertionError, "feature_cols must be provided"),
    "empty features": ({"feature_cols": []}, ContractError, r"received \[\].*feature_cols="),
    "absent name": ({"feature_cols": "ab"}, ColumnError, "'ab'"),
    "numbers": ({"feature_cols": [0]}, ContractError, r"names.*\[0\].*not Column objects"),
    "a number": ({"feature_cols": 1}, ContractError, "feature_cols"),
    "empty inner list": ({"feature_cols": ["a", []]}, ContractError, r"received \['a', \[\]\]"),
    "number in inner list": ({"feature_cols": [["a", 1]]}, ContractError, "lists of names"),
    "absent name in inner list": ({"feature_cols": [["a", "b"]]}, ColumnError, "received 'b'"),
    "image in inner list": (
        {"feature_cols": [["id", "image"]], "decoders": {"image": fails}},
        ColumnError, "binary column among id, image.*own entry"),
    "no labels": ({"label_cols": None}, AssertionError, "label_cols must be provided"),
    "missing label": ({"label_cols": ["z"]}, ColumnError, "id, a, y.*'z'"),
    "decoder for numbers": ({"decoders": {"a": fails}}, ColumnError, "'a'.*double.*dtype"),
    "decoder is no dtype": ({"decoders": {"a": "int65"}}, ColumnError, "'a'.*int65.*int64"),
}  # fmt: skip


def planned(schema: T.StructType = SCHEMA, **given: Any) -> None:
    asked = {"feature_cols": ["a"], "label_cols": ["y"]} | given
    plan_columns(schema, asked.pop("feature_cols"), asked.pop("label_cols"), **asked)


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_that_are_refused(name: str) -> None:
    given, kind, says = COLUMNS[name]
    with pytest.raises(kind, match=f"(?s){says}"):
        planned(**given)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("use", ["feature", "label"])
def test_types_that_are_refused(name: str, use: str) -> None:
    kind, says = TYPES[name]
    names = ("a", "y") if use == "feature" else ("x", "a")
    schema = T.StructType([T.StructField(n, kind if n == "a" else T.DoubleType()) for n in names])
    with pytest.raises(ColumnError, match=f"(?s){says}"):
        planned(schema, feature_cols=[names[0]], label_cols=[names[1]])


def test_two_columns_of_a_name_are_refused() -> None:
    schema = T.StructType([*SCHEMA.fields, T.StructField("a", T.DoubleType())])
    with pytest.raises(ColumnError, match=r"one column 'a'.*2 of that name"):
        planned(schema)


# Numbers

NUMBERS: dict[str, Bad] = {
    **{
        f"batch_size {size!r}": ({"batch_size": size}, ContractError, f"batch_size.*{size!r}")
        for size in (0, -1, 1.5, True, "32", None)
    },
    "epochs 0": ({"epochs": 0}, ContractError, "epochs.*received 0"),
    "epochs as text": ({"epochs": "2"}, ContractError, "epochs.*'2'"),
    "info that is no dict": ({"info": [1]}, InputError, "info as a dict"),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_that_fit_refuses(name: str) -> None:
    given, kind, says = NUMBERS[name]
    with pytest.raises(kind, match=says):
        estimator().fit(loader, **({"batch_size": 4} | given))


def test_numbers_that_evaluate_and_predict_refuse() -> None:
    with pytest.raises(ContractError, match="num_steps"):
        estimator().evaluate(loader, num_steps=0)
    with pytest.raises(ContractError, match="batch_size"):
        estimator().predict(pd.DataFrame({"a": [1.0]}), batch_size=0, feature_cols=["a"])


# Parts of an estimator


def model_with_lock() -> nn.Module:
    model = nn.Linear(1, 1)
    model.lock = threading.Lock()  # type: ignore[assignment]
    return model


def holding(what: Any) -> Callable[..., Any]:
    """A creator that has something in its closure that cannot travel."""

    def create(config: dict[str, Any]) -> nn.Module:
        assert what is not None
        return nn.Linear(1, 1)

    return create


def loss_with(lock: Any) -> Callable[..., Any]:
    return lambda output, target: (output - target).mean() if lock else output


PARTS: dict[str, Bad] = {
    "model creator raises": ({"model": fails}, Oddity, "of the user"),
    "optimizer creator raises": ({"optimizer": fails}, Oddity, "of the user"),
    "loss creator raises": ({"loss": lambda config: fails()}, Oddity, "of the user"),
    "scheduler creator raises": ({"scheduler_creator": fails}, Oddity, "of the user"),
    "model creator returns nothing": (
        {"model": lambda config: None}, InputError, "Module.*NoneType.*Return it"),
    "model is text": ({"model": "resnet"}, InputError, "model.*'resnet'"),
    "optimizer creator returns text": (
        {"optimizer": lambda m, c: "sgd"}, InputError, "Optimizer.*received str"),
    "optimizer class": (
        {"optimizer": torch.optim.SGD}, InputError, r"f\(model, config\).*SGD"),
    "optimizer is text": ({"optimizer": "adam"}, InputError, "optimizer.*'adam'"),
    "optimizer of another model": (
        {"optimizer": torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1)},
        InputError, "parameters of the model.*f.model, config"),
    "scheduler creator returns nothing": (
        {"scheduler_creator": lambda o, c: None}, InputError, "scheduler.*NoneType"),
    "scheduler class": ({"scheduler_creator": StepLR}, InputError, "scheduler.*config"),
    "plateau on each batch": (
        {"scheduler_creator": lambda o, c: ReduceLROnPlateau(o)},
        InputError, "scheduler_step_freq='epoch'.*'batch'"),
    "scheduler_step_freq": (
        {"scheduler_step_freq": "step"}, InputError, "'batch', 'epoch' or None.*'step'"),
    "loss is text": ({"loss": "mse"}, InputError, "loss.*'mse'"),
    "loss creator returns a number": (
        {"loss": lambda config: 3}, InputError, "loss creator.*int"),
    "reduction none": (
        {"loss": nn.MSELoss(reduction="none")}, InputError, "reduction='none'.*'mean'"),
    "no metric": ({"metrics": ["Accuracy"]}, ValueError, "Only orca metrics.*str"),
    "config is a list": ({"config": [1]}, InputError, "config as a dict.*list"),
    "batch_size in config": (
        {"config": {"batch_size": 8}}, InputError, "Please do not specify batch_size"),
    "unknown backend": ({"backend": "mpi"}, ValueError, "spark.*ray.*'mpi'"),
    "later backend": ({"backend": "ray"}, NotYetError, "backend='spark'.*'ray'"),
    "hook that is none": ({"initialization_hook": 3}, InputError, "as a function"),
    "recovery that is none": ({"recovery": 3}, InputError, "Recovery.*int"),
    "keep_snapshots 0": ({"keep_snapshots": 0, "model_dir": "x"}, InputError, "keep_snapshots.*0"),
    "keep_snapshots alone": ({"keep_snapshots": 5}, InputError, "model_dir.*keep_snapshots=5"),
    "workers_per_node 0": ({"workers_per_node": 0}, InputError, "workers_per_node"),
    "workers_per_node True": ({"workers_per_node": True}, InputError, "workers_per_node.*True"),
    "model without parameters": (
        {"model": nn.Flatten(), "optimizer": None}, InputError, "parameters to train.*Flat"),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_parts_that_are_refused(name: str) -> None:
    given, kind, says = PARTS[name]
    with pytest.raises(kind, match=f"(?s){says}"):
        estimator(**given).fit(loader, batch_size=4)


TRAVELS: dict[str, dict[str, Any]] = {
    "model with a lock": {"model": model_with_lock()},
    "model creator with a lock": {"model": holding(threading.Lock())},
    "loss with a lock": {"loss": loss_with(threading.Lock())},
}


def test_creator_with_an_open_file_is_refused() -> None:
    with open(os.devnull, "w") as file, pytest.raises(InputError, match="inside the creator"):
        estimator(model=holding(file)).fit(loader, batch_size=4)


@pytest.mark.parametrize("name", TRAVELS)
def test_parts_that_cannot_travel_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"(?s)pickled.*lock.*inside the creator"):
        estimator(**TRAVELS[name]).fit(loader, batch_size=4)


# Data


def test_no_data_is_refused() -> None:
    with pytest.raises(ContractError, match="training data"):
        estimator().fit(None, batch_size=4)


def test_predict_takes_no_function() -> None:
    with pytest.raises(ValueError, match="function"):
        estimator().predict(loader, feature_cols=["a"])


@pytest.mark.parametrize("other", [None, [1, 2], np.zeros(3)])
def test_validation_of_another_kind_is_refused(other: Any) -> None:
    with pytest.raises(ContractError, match="should be both"):
        require_same_kind(loader, other)
