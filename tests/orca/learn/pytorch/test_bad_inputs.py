"""What a user can do wrong: each gives one clear error, soon, and the session goes on."""

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from pyspark import cloudpickle
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader, TensorDataset

from zoo.errors import ColumnError, ContractError, InputError, NotYetError, RankError, SlotsError
from zoo.orca.data.image import ImageDecoder
from zoo.orca.learn.metrics import MAE, Accuracy
from zoo.orca.learn.pytorch import Estimator
from zoo.orca.learn.recovery import Recovery

# Ranks cannot import a test module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.spark

Y = "double(id) y"


class Oddity(Exception):
    """An error that only a user's code has."""


class Lines(nn.Module):
    def __init__(self, width: int = 1, outputs: int = 1, *, squeeze: bool = True) -> None:
        super().__init__()
        self.layer, self.squeeze = nn.Linear(width, outputs), squeeze

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x.reshape(len(x), -1).float())
        return out.squeeze(-1) if self.squeeze else out


class Twins(Lines):
    def forward(self, x: torch.Tensor) -> Any:
        out = super().forward(x)
        return out, out


class Total(Lines):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).sum()


class Rest(Lines):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)[1:]


def frame(spark: SparkSession, *columns: str | Column, rows: int = 8) -> DataFrame:
    """Rows with `id` from 0, in two partitions."""
    named = [F.expr(c) if isinstance(c, str) else c for c in columns]
    return spark.range(0, rows, 1, 2).select("id", *named)


def estimator(**given: Any) -> Any:
    model = given.setdefault("model", Lines())
    if isinstance(model, nn.Module) and "optimizer" not in given:
        given["optimizer"] = torch.optim.SGD(model.parameters(), lr=1e-4)
    given.setdefault("loss", nn.MSELoss())
    return Estimator.from_torch(**given)


def fit(spark: SparkSession, *columns: str | Column, rows: int = 8, **given: Any) -> None:
    """Fit on column `a`, unless told otherwise."""
    asked = {"feature_cols": ["a"], "label_cols": ["y"], "batch_size": 4}
    names = {"batch_size", "epochs", "feature_cols", "label_cols", "validation_data", "info"}
    asked |= {name: given.pop(name) for name in names & set(given)}
    data = frame(spark, *(columns or ("double(id) a", Y)), rows=rows)
    estimator(**given).fit(data, **asked)


def fit_loader(creator: Any, **given: Any) -> None:
    estimator(**given).fit(creator, batch_size=4)


def loader(config: dict[str, Any], batch_size: int) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.ones(8, 1), torch.ones(8)), batch_size=batch_size)


def fails(*_: Any, **__: Any) -> Any:
    raise Oddity("of the user")


def cell_by_cell(data: bytes) -> np.ndarray:
    return np.zeros(1 + data[0] % 2)


class Bad(NamedTuple):
    run: Callable[[SparkSession], object]
    kind: type[BaseException]
    says: str


IMAGE = "cast('no image' as binary) a"
BYTES = "cast(char(48 + id) as binary) a"

CELLS = {
    "text column": Bad(lambda s: fit(s, "string(id) a", Y), ColumnError, "'a'.*StringIndexer"),
    "text label": Bad(lambda s: fit(s, "double(id) a", "'b' y"), ColumnError, "'y'.*StringIndexer"),
    "map column": Bad(lambda s: fit(s, "map('k', id) a", Y), ColumnError, "'a'.*values by key"),
    "struct column": Bad(lambda s: fit(s, "struct(id) a", Y), ColumnError, "'a'.*Select its field"),
    "array of text": Bad(lambda s: fit(s, "array('x') a", Y),
        ColumnError, r"'a'.*unsupported field.*array<string>"),
    "array of structs": Bad(lambda s: fit(s, "array(struct(id)) a", Y), ColumnError, "'a'.*struct"),
    "binary without decoder": Bad(lambda s: fit(s, BYTES, Y), ColumnError, "decoders=.'a'"),
    "interval column": Bad(lambda s: fit(s, "make_dt_interval(id) a", Y),
        ColumnError, "'a'.*interval day.*Cast or drop"),
    "null type": Bad(lambda s: fit(s, "null a", Y), ColumnError, "'a'.*void"),
    "null in a feature": Bad(lambda s: fit(s, "if(id = 3, null, double(id)) a", Y),
        ColumnError, "'a'.*null in 1 row.*drop"),
    "null in a label": Bad(lambda s: fit(s, "double(id) a", "if(id > 3, null, 1d) y"),
        ColumnError, "'y'.*null in 4 rows"),
    "null in an array": Bad(lambda s: fit(s, "array(1d, if(id = 7, null, 1d)) a", Y),
        ColumnError, "'a'.*null in 1 row"),
    "null array": Bad(lambda s: fit(s, "if(id = 1, null, array(1d)) a", Y),
        ColumnError, "'a'.*null in 1 row"),
    "NaN label": Bad(lambda s: fit(s, "double(id) a", "if(id = 2, double('nan'), 1d) y"),
        ColumnError, "'y'.*NaN in 1 row.*dropna"),
    "ragged in a partition": Bad(lambda s: fit(s, "array_repeat(1d, int(2 + id % 2)) a", Y),
        ColumnError, "'a'.*another shape"),
    "ragged across partitions": Bad(lambda s: fit(s, "array_repeat(1d, int(2 + id div 4)) a", Y),
        ColumnError, r"one shape in all rows in column 'a'.*\[2\].*\[3\]|\(2,\).*\(3,\)"),
    "whole number too large for float": Bad(lambda s: fit(s, "array(16777217L) a", Y),
        ColumnError, "'a'.*16777217.*int64"),
    "decoder that raises": Bad(lambda s: fit(s, BYTES, Y, decoders={"a": fails}),
        ColumnError, "'a'.*8 rows.*Oddity: of the user"),
    "decoder with odd shapes": Bad(lambda s: fit(s, BYTES, Y, decoders={"a": cell_by_cell}),
        ColumnError, "'a'.*another shape"),
    "decoder that returns text": Bad(
        lambda s: fit(s, BYTES, Y, decoders={"a": lambda data: "text"}),
        ColumnError, "'a'.*str"),
    "decoder for numbers": Bad(lambda s: fit(s, decoders={"a": fails}),
        ColumnError, "'a'.*double.*dtype"),
    "decoder is no dtype": Bad(lambda s: fit(s, decoders={"a": "int65"}),
        ColumnError, "'a'.*int65.*int64"),
    "corrupt image": Bad(
        lambda s: fit(s, IMAGE, Y, decoders={"a": ImageDecoder(size=(4, 4))}),
        ColumnError, "'a'.*8 rows"),
}  # fmt: skip

COLUMNS = {
    "missing feature": Bad(lambda s: fit(s, feature_cols=["b"]), ColumnError, "id, a, y.*'b'"),
    "wrong case": Bad(lambda s: fit(s, feature_cols=["A"]), ColumnError, "'A'.*case-sensitive"),
    "no features": Bad(lambda s: fit(s, feature_cols=None),
        AssertionError, "feature_col must be provided"),
    "empty features": Bad(lambda s: fit(s, feature_cols=[]),
        ContractError, r"received \[\].*feature_cols="),
    "features as absent name": Bad(lambda s: fit(s, feature_cols="ab"), ColumnError, "'ab'"),
    "features as Column objects": Bad(lambda s: fit(s, feature_cols=[F.col("a")]),
        ContractError, "names.*not Column objects"),
    "features as a Column": Bad(lambda s: fit(s, feature_cols=F.col("a")),
        ContractError, "names.*not Column objects"),
    "features as numbers": Bad(lambda s: fit(s, feature_cols=[0]),
        ContractError, r"names.*\[0\].*not Column objects"),
    "features as a number": Bad(lambda s: fit(s, feature_cols=1), ContractError, "feature_cols"),
    "empty inner list": Bad(lambda s: fit(s, feature_cols=["a", []]),
        ContractError, r"received \['a', \[\]\]"),
    "number in inner list": Bad(lambda s: fit(s, feature_cols=[["a", 1]]),
        ContractError, "lists of names"),
    "absent name in inner list": Bad(lambda s: fit(s, feature_cols=[["a", "b"]]),
        ColumnError, "received 'b'"),
    "image in inner list": Bad(
        lambda s: fit(s, BYTES, Y, feature_cols=[["id", "a"]], decoders={"a": cell_by_cell}),
        ColumnError, "binary column among id, a.*own entry"),
    "no labels": Bad(lambda s: fit(s, label_cols=None),
        AssertionError, "label_cols must be provided"),
    "missing label": Bad(lambda s: fit(s, label_cols=["z"]), ColumnError, "id, a, y.*'z'"),
    "two columns of a name": Bad(lambda s: fit(s, "double(id) a", "1d a", Y),
        ColumnError, "one column 'a'.*2 of that name"),
}  # fmt: skip

NUMBERS = {
    "zero rows": Bad(lambda s: fit(s, rows=0), InputError, "zero rows"),
    "batch larger than the data": Bad(lambda s: fit(s, batch_size=9),
        InputError, "batch of 9.*8 rows in all.*batch_size=8"),
    **{
        f"batch_size {size!r}": Bad(
            lambda s, size=size: fit(s, batch_size=size), ContractError, f"batch_size.*{size!r}"
        )
        for size in (0, -1, 1.5, True, "32", None)
    },
    "epochs 0": Bad(lambda s: fit(s, epochs=0), ContractError, "epochs.*received 0"),
    "epochs as text": Bad(lambda s: fit(s, epochs="2"), ContractError, "epochs.*'2'"),
    "workers_per_node 0": Bad(lambda s: fit(s, workers_per_node=0), InputError, "workers_per_node"),
    "workers_per_node True": Bad(lambda s: fit(s, workers_per_node=True),
        InputError, "workers_per_node.*True"),
    "more ranks than slots": Bad(lambda s: fit(s, workers_per_node=64),
        SlotsError, r"64 task slots.*1 executors of \d.*workers_per"),
    "num_steps 0": Bad(
        lambda s: estimator().evaluate( frame(s, "double(id) a", Y), num_steps=0,
            feature_cols=["a"], label_cols=["y"] ),
        ContractError, "num_steps"),
    "evaluate no rows": Bad(
        lambda s: estimator().evaluate( frame(s, "double(id) a", Y, rows=0), feature_cols=["a"],
            label_cols=["y"] ),
        InputError, "zero rows"),
}  # fmt: skip


def holding(what: Any) -> Callable[..., Any]:
    """A creator that has something in its closure that cannot travel."""

    def create(config: dict[str, Any]) -> nn.Module:
        assert what is not None
        return Lines()

    return create


def model_with_lock() -> nn.Module:
    model = Lines()
    model.lock = threading.Lock()  # type: ignore[assignment]
    return model


def fit_with_file(spark: SparkSession) -> None:
    with open(os.devnull, "w") as file:
        fit(spark, model=holding(file))


PARTS = {
    "model creator raises": Bad(lambda s: fit(s, model=fails), Oddity, "of the user"),
    "optimizer creator raises": Bad(lambda s: fit(s, optimizer=fails), Oddity, "of the user"),
    "loss creator raises": Bad(lambda s: fit(s, loss=lambda config: fails()),
        Oddity, "of the user"),
    "scheduler creator raises": Bad(lambda s: fit(s, scheduler_creator=fails),
        Oddity, "of the user"),
    "model creator returns nothing": Bad(lambda s: fit(s, model=lambda config: None),
        InputError, "Module.*NoneType.*Return it"),
    "model is text": Bad(lambda s: fit(s, model="resnet"), InputError, "model.*'resnet'"),
    "optimizer creator returns text": Bad(lambda s: fit(s, optimizer=lambda m, c: "sgd"),
        InputError, "Optimizer.*received str"),
    "optimizer class": Bad(lambda s: fit(s, optimizer=torch.optim.SGD),
        InputError, r"f\(model, config\).*SGD"),
    "optimizer is text": Bad(lambda s: fit(s, optimizer="adam"), InputError, "optimizer.*'adam'"),
    "optimizer of another model": Bad(
        lambda s: fit(s, optimizer=torch.optim.SGD(Lines().parameters(), lr=1)),
        InputError, "parameters of the model.*f.model, config"),
    "scheduler creator returns nothing": Bad(lambda s: fit(s, scheduler_creator=lambda o, c: None),
        InputError, "scheduler.*NoneType"),
    "scheduler class": Bad(lambda s: fit(s, scheduler_creator=torch.optim.lr_scheduler.StepLR),
        InputError, "scheduler.*config"),
    "plateau on each batch": Bad(
        lambda s: fit(s, scheduler_creator=lambda o, c: ReduceLROnPlateau(o)),
        InputError, "scheduler_step_freq='epoch'.*'batch'"),
    "scheduler_step_freq": Bad(lambda s: fit(s, scheduler_step_freq="step"),
        InputError, "'batch', 'epoch' or None.*'step'"),
    "loss is text": Bad(lambda s: fit(s, loss="mse"), InputError, "loss.*'mse'"),
    "loss creator returns a number": Bad(lambda s: fit(s, loss=lambda config: 3),
        InputError, "loss creator.*int"),
    "reduction none": Bad(lambda s: fit(s, loss=nn.MSELoss(reduction="none")),
        InputError, "reduction='none'.*'mean'"),
    "no metric": Bad(lambda s: fit(s, metrics=["Accuracy"]), ValueError, "Only orca metrics.*str"),
    "config is a list": Bad(lambda s: fit(s, config=[1]), InputError, "config as a dict.*list"),
    "batch_size in config": Bad(lambda s: fit(s, config={"batch_size": 8}),
        InputError, "Please do not specify batch_size"),
    "unknown backend": Bad(lambda s: fit(s, backend="mpi"), ValueError, "spark.*ray.*'mpi'"),
    "later backend": Bad(lambda s: fit(s, backend="horovod"),
        NotYetError, "backend='spark'.*'horovod'"),
    "hook that is none": Bad(lambda s: fit(s, initialization_hook=3), InputError, "as a function"),
    "info that is no dict": Bad(lambda s: fit(s, info=[1]), InputError, "info as a dict"),
    "model with a lock": Bad(lambda s: fit(s, model=model_with_lock()),
        InputError, "pickled.*lock.*inside the creator"),
    "loss with a lock": Bad(
        lambda s: fit(s, loss=(lambda lock: lambda o,
            t: (o - t).mean() if lock else o)( threading.Lock())),
        InputError, "pickled.*lock"),
    "creator with an open file": Bad(fit_with_file, InputError, "pickled.*inside the creator"),
    "creator with the session": Bad(lambda s: fit(s, model=holding(s)),
        InputError, "pickled.*inside the creator"),
    "data creator with the session": Bad(
        lambda s: fit_loader(lambda config, batch_size: loader(s, batch_size)),
        InputError, "data creator.*pickled"),
}  # fmt: skip


def exits(output: Any, target: Any) -> Any:
    sys.exit(3)


def dies(output: Any, target: Any) -> Any:
    os._exit(3)


CLASSES = "id % 3 y"

STEPS = {
    "real labels for cross entropy": Bad(
        lambda s: fit(s, model=Lines(outputs=3, squeeze=False), loss=nn.CrossEntropyLoss()),
        RuntimeError, "Long"),
    "class out of range": Bad(
        lambda s: fit(s, "double(id) a", "id y", model=Lines(outputs=3, squeeze=False),
            loss=nn.CrossEntropyLoss()),
        IndexError, "Target . is out of bounds"),
    "class below zero": Bad(
        lambda s: fit(s, "double(id) a", "-1L y", model=Lines(outputs=3, squeeze=False),
            loss=nn.CrossEntropyLoss()),
        IndexError, "Target -1 is out of bounds"),
    "output (N, 1), target (N)": Bad(lambda s: fit(s, model=Lines(squeeze=False)),
        ValueError, r"one shape.*\(4, 1\) and \(4,\).*label_cols=\[\['y'\]\]"),
    "output (N), target (N, 2)": Bad(
        lambda s: fit(s, "double(id) a", Y, "1d z", label_cols=["y", "z"]),
        ValueError, r"one shape.*\(4,\) and \(4, 2\)"),
    "output (N, 1), target (N) for L1": Bad(
        lambda s: fit(s, model=Lines(squeeze=False), loss=nn.L1Loss()),
        ValueError, "one shape"),
    "output (N, 1), target (N) for binary cross entropy": Bad(
        lambda s: fit(s, model=Lines(squeeze=False), loss=nn.BCEWithLogitsLoss()),
        ValueError, "[Tt]arget size"),
    "output (N, 1), target (N) for a function": Bad(
        lambda s: fit(s, model=Lines(squeeze=False), loss=nn.functional.mse_loss),
        ValueError, "one shape"),
    "loss with one number a row": Bad(lambda s: fit(s, loss=lambda o, t: (o - t) ** 2),
        ValueError, "one number.*Take its mean"),
    "loss that is no tensor": Bad(lambda s: fit(s, loss=lambda o, t: 1.0),
        ValueError, "as a tensor; received float"),
    "loss without gradient": Bad(lambda s: fit(s, loss=lambda o, t: t.mean()),
        RuntimeError, "grad"),
    "model without parameters": Bad(lambda s: fit(s, model=nn.Flatten(), optimizer=None),
        InputError, "parameters to train.*Flat"),
    "two outputs and no loss": Bad(
        lambda s: fit(s, "double(id) a", model=Twins(), label_cols=None, loss=None),
        ValueError, "loss.*tuple"),
    "wrong width": Bad(lambda s: fit(s, "array(1d, 2d, 3d) a", Y, model=Lines(width=2)),
        RuntimeError, "shapes"),
    "more inputs than the model takes": Bad(
        lambda s: fit(s, "array(1d) a", "cast(char(48 + id) as binary) b", Y, feature_cols=["a",
            "b"], decoders={"b": lambda data: np.zeros(2)}),
        TypeError, "positional"),
    "loss raises": Bad(lambda s: fit(s, loss=fails, metrics=None), Oddity, "of the user"),
    "two ranks, loss raises": Bad(lambda s: fit(s, loss=fails, workers_per_node=2),
        Oddity, "of the user"),
    "rank exits": Bad(lambda s: fit(s, loss=exits), RankError, "SystemExit: 3"),
    "rank dies": Bad(lambda s: fit(s, loss=dies, recovery=Recovery(retries=0)),
        RankError, "lost without a word"),
    "metric of another shape": Bad(
        lambda s: fit(s, model=Lines(outputs=2, squeeze=False), metrics=[MAE()], loss=lambda o,
            t: o.mean(), validation_data=frame(s, "double(id) a", Y)),
        RuntimeError, "shape|size"),
    "metric of another rank": Bad(
        lambda s: fit(s, "double(id) a", "id y", loss=lambda o, t: o.mean(), metrics=[Accuracy()],
            model=nn.Sequential(Lines(outputs=4, squeeze=False), nn.Unflatten(1, (1, 2, 2))),
            validation_data=frame(s, "double(id) a", "id y")),
        ValueError, ""),
}  # fmt: skip


def streaming(spark: SparkSession) -> DataFrame:
    stream = spark.readStream.format("rate").load()
    return stream.selectExpr("double(value) a", "double(value) y")


def connect_frame() -> Any:
    # The real one needs grpc, which is no requirement of ours.
    kind = type("DataFrame", (DataFrame,), {"__module__": "pyspark.sql.connect.dataframe"})
    return object.__new__(kind)


def fit_data(data: Any, **given: Any) -> None:
    estimator().fit(data, **{"feature_cols": ["a"], "label_cols": ["y"], "batch_size": 4} | given)


def divided() -> Column:
    """A column that a user's function computes, and cannot."""
    return F.udf(lambda number: 1 / (number - number), "double")("id").alias("a")


DATA = {
    "nothing": Bad(lambda s: fit_data(None), ContractError, "training data"),
    "a list": Bad(lambda s: fit_data([1, 2]), InputError, "DataFrame.*list"),
    "an array": Bad(lambda s: fit_data(np.zeros((8, 2))), InputError, "DataFrame.*ndarray"),
    "a streaming frame": Bad(lambda s: fit_data(streaming(s)), InputError, "streaming"),
    "a Spark Connect frame": Bad(lambda s: fit_data(connect_frame()), InputError, "Connect"),
    "pandas with objects": Bad(
        lambda s: fit_data(pd.DataFrame({"a": [object()] * 8, "y": [1.0] * 8})),
        InputError, "'?a'?"),
    "pandas with mixed cells": Bad(
        lambda s: fit_data(pd.DataFrame({"a": [1, "b"] * 4, "y": [1.0] * 8})),
        InputError, "'?a'?"),
    "function in the lineage raises": Bad(lambda s: fit(s, divided(), Y),
        PySparkException, "ZeroDivisionError"),
    "evaluate with such a lineage": Bad(
        lambda s: estimator().evaluate( frame(s, divided(), Y), feature_cols=["a"],
            label_cols=["y"] ),
        PySparkException, "ZeroDivisionError"),
    "validation of another kind": Bad(lambda s: fit(s, validation_data=loader),
        AssertionError, "should be both"),
    "validation without a column": Bad(lambda s: fit(s, validation_data=frame(s, "double(id) a")),
        ColumnError, "'y'"),
    "validation with nulls": Bad(lambda s: fit(s, validation_data=frame(s, "double(null) a", Y)),
        ColumnError, "'a'.*null"),
    "validation with text": Bad(lambda s: fit(s, validation_data=frame(s, "'b' a", Y)),
        ColumnError, "'a'.*StringIndexer"),
    "validation of another width": Bad(
        lambda s: fit(s, validation_data=frame(s, "array(1d, 2d) a", Y)),
        Exception, "shape"),
    "validation without rows": Bad(
        lambda s: fit(s, validation_data=frame(s, "double(id) a", Y, rows=0)),
        InputError, "zero rows"),
    "data creator raises": Bad(lambda s: fit_loader(fails), Oddity, "of the user"),
    "data creator returns a list": Bad(lambda s: fit_loader(lambda config, batch_size: [1]),
        InputError, "DataLoader.*list"),
    "data creator returns a dataset": Bad(lambda s: fit_loader(lambda c, b: loader(c, b).dataset),
        InputError, "DataLoader.*TensorData"),
    "data creator takes nothing": Bad(lambda s: fit_loader(lambda: None), TypeError, "positional"),
    "data creator without rows": Bad(
        lambda s: fit_loader(lambda c, b: DataLoader([], batch_size=b)),
        InputError, "empty dataset"),
    "loader without targets": Bad(
        lambda s: fit_loader(lambda c, b: DataLoader(torch.ones(8, 1), batch_size=b)),
        InputError, "feature, ..., target"),
    "dataset raises": Bad(
        lambda s: fit_loader(lambda c, b: DataLoader([1] * 8, batch_size=b, collate_fn=fails)),
        Oddity, "of the user"),
}  # fmt: skip


def scored(spark: SparkSession, *columns: str | Column, **given: Any) -> None:
    """Predict before any fit, and look at the result."""
    names = given.pop("feature_cols", ["a"])
    estimator(**given).predict(frame(spark, *columns), feature_cols=names).collect()


SCORES = {
    "predict on an unknown column": Bad(lambda s: scored(s, "1d a", feature_cols=["b"]),
        ColumnError, "'b'"),
    "predict without columns": Bad(lambda s: scored(s, "1d a", feature_cols=None),
        AssertionError, "feature_col must be"),
    "predict on text": Bad(lambda s: scored(s, "'b' a"), ColumnError, "'a'.*StringIndexer"),
    "predict on a function": Bad(lambda s: estimator().predict(loader, feature_cols=["a"]),
        ValueError, "function"),
    "predict batch_size 0": Bad(
        lambda s: estimator().predict(frame(s, "1d a"), batch_size=0, feature_cols=["a"]),
        ContractError, "batch_size"),
    "predict on nulls": Bad(lambda s: scored(s, "if(id = 7, null, 1d) a"),
        Exception, "'a'.*null in 1 row"),
    "predict with the wrong width": Bad(lambda s: scored(s, "array(1d, 2d) a"),
        RuntimeError, "shapes"),
    "predict with one number in all": Bad(lambda s: scored(s, "1d a", model=Total()),
        InputError, "one entry for each row"),
    "predict with a row too few": Bad(lambda s: scored(s, "1d a", model=Rest()),
        Exception, "one output for each row"),
    "evaluate with an error in the model": Bad(
        lambda s: estimator(model=Lines(width=2)).evaluate( frame(s, "1d a", Y),
            feature_cols=["a"], label_cols=["y"] ),
        RuntimeError, "shapes"),
    "evaluate with nulls": Bad(
        lambda s: estimator().evaluate( frame(s, "if(id % 4 = 1, null, 1d) a", Y),
            feature_cols=["a"], label_cols=["y"] ),
        ColumnError, "'a'.*null in 2 rows"),
}  # fmt: skip

BAD = {**CELLS, **COLUMNS, **NUMBERS, **PARTS, **STEPS, **DATA, **SCORES}


@pytest.fixture(autouse=True)
def still_well(spark: SparkSession) -> Iterator[None]:
    """After each error: the session works, and nothing of ours runs or lies about."""
    before = left_files(spark)
    yield
    assert spark.range(4).count() == 4
    assert not left_jobs(spark)
    assert left_files(spark) - before == set()


def left_jobs(spark: SparkSession) -> list[int]:
    """Jobs that still run; Spark takes a moment to write down that one has ended."""
    tracker, deadline = spark.sparkContext.statusTracker(), time.monotonic() + 5
    while (jobs := tracker.getActiveJobsIds()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return list(jobs)


def left_files(spark: SparkSession) -> set[str]:
    """Shards under Spark's local directories, and files in shared memory."""
    context = spark.sparkContext
    dirs = context._jvm.org.apache.spark.util.Utils.getConfiguredLocalDirs(  # type: ignore[union-attr]
        context._jsc.sc().conf()
    )
    shards = {str(p) for d in dirs for p in Path(d).rglob("zoo-shards-*")}
    return shards | {str(p) for p in Path("/dev/shm").glob("zoo-*")}


@pytest.fixture(scope="module")
def soon_s(spark: SparkSession) -> float:
    """How long an error may take: 10 s, or on a busy machine what the first fit of a session takes.

    Then torch is loaded, and so it is again after errors that end the Python workers.
    """
    start = time.monotonic()
    fit(spark, workers_per_node=2)
    return max(10.0, time.monotonic() - start)


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_error(name: str, spark: SparkSession, soon_s: float) -> None:
    bad = BAD[name]
    start = time.monotonic()
    with pytest.raises(bad.kind, match=f"(?s){bad.says}"):
        bad.run(spark)
    assert time.monotonic() - start < soon_s


@pytest.mark.parametrize("ranks", [1, 2])
def test_error_of_a_rank_tells_where(spark: SparkSession, ranks: int) -> None:
    with pytest.raises(Oddity) as caught:
        fit(spark, loss=fails, workers_per_node=ranks)
    assert re.fullmatch(r"Raised by rank [01] on \S+ \(process \d+\)\.", caught.value.__notes__[0])
    assert "in fails" in str(caught.value.__cause__)


def test_error_in_evaluate_tells_where(spark: SparkSession) -> None:
    with pytest.raises(RuntimeError) as caught:
        estimator(model=Lines(width=2)).evaluate(
            frame(spark, "1d a", Y), feature_cols=["a"], label_cols=["y"]
        )
    assert re.fullmatch(r"Raised by partition [01] on \S+\.", caught.value.__notes__[0])


def test_output_that_is_no_number_does_not_end_training(spark: SparkSession) -> None:
    result = estimator(loss=lambda o, t: (o * float("nan")).mean()).fit(
        frame(spark, "double(id) a", Y),
        epochs=2,
        batch_size=4,
        feature_cols=["a"],
        label_cols=["y"],
    )
    assert [str(e["train_loss"]) for e in result] == ["nan", "nan"]


NO_SPARK = """
import torch
from pyspark.sql import SparkSession
from zoo.errors import ClusterError
from zoo.orca import init_orca_context, stop_orca_context
from zoo.orca.learn.pytorch import Estimator

def fit(frame):
    model = torch.nn.Linear(1, 1)
    estimator = Estimator.from_torch(model=model, loss=torch.nn.MSELoss())
    try:
        estimator.fit(frame, feature_cols=["id"], label_cols=["id"])
    except ClusterError as error:
        print(error)

fit(lambda config, batch_size: None)
init_orca_context(cores=1, memory="512m")
frame = SparkSession.getActiveSession().range(8)
stop_orca_context()
fit(frame)
"""


def test_without_spark_the_error_says_so(fresh_python: Any) -> None:
    done = fresh_python(NO_SPARK)
    assert (done.returncode, done.stdout.count("Call init_orca_context() first")) == (0, 2), done


def test_after_all_this_a_fit_works(spark: SparkSession) -> None:
    model = Lines()
    fit(spark, model=model, epochs=20, workers_per_node=2, rows=64, batch_size=16,
        optimizer=torch.optim.Adam(model.parameters(), lr=0.3))  # fmt: skip
    assert model.layer.weight.item() == pytest.approx(1.0, abs=0.3)
