"""What a user can do wrong on Spark: each gives one clear error, and the session goes on.

Soon, too: a test with Spark has ten seconds. What needs no Spark to go wrong is in
`test_bad_arguments.py` and `test_bad_steps.py`.
"""

import os
import re
import sys
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
from torch.utils.data import DataLoader, TensorDataset

from zoo.errors import ColumnError, ContractError, InputError, RankError, SlotsError
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


class Picky(Lines):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.any():
            raise RuntimeError("no ones")
        return super().forward(x)


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


def fit(spark: SparkSession, *columns: str | Column, rows: int = 8, **given: Any) -> Any:
    """Fit on column `a`, unless told otherwise."""
    asked = {"feature_cols": ["a"], "label_cols": ["y"], "batch_size": 4}
    names = {"batch_size", "epochs", "feature_cols", "label_cols", "validation_data", "info"}
    asked |= {name: given.pop(name) for name in names & set(given)}
    data = frame(spark, *(columns or ("double(id) a", Y)), rows=rows)
    return estimator(**given).fit(data, **asked)


def fit_loader(creator: Any, **given: Any) -> None:
    estimator(**given).fit(creator, batch_size=4)


def loader(config: dict[str, Any], batch_size: int) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.ones(8, 1), torch.ones(8)), batch_size=batch_size)


def fails(*_: Any, **__: Any) -> Any:
    raise Oddity("of the user")


class Bad(NamedTuple):
    run: Callable[[SparkSession], object]
    kind: type[BaseException]
    says: str


BYTES = "cast(char(48 + id) as binary) a"

DRIVER = {
    "features as Column objects": Bad(lambda s: fit(s, feature_cols=[F.col("a")]),
        ContractError, "names.*not Column objects"),
    "features as a Column": Bad(lambda s: fit(s, feature_cols=F.col("a")),
        ContractError, "names.*not Column objects"),
    "text column": Bad(lambda s: fit(s, "string(id) a", Y), ColumnError, "'a'.*StringIndexer"),
    "two columns of a name": Bad(lambda s: fit(s, "double(id) a", "1d a", Y),
        ColumnError, "one column 'a'.*2 of that name"),
    "creator with the session": Bad(lambda s: fit(s, model=holding(s)),
        InputError, "pickled.*inside the creator"),
    "data creator with the session": Bad(
        lambda s: fit_loader(lambda config, batch_size: loader(s, batch_size)),
        InputError, "data creator.*pickled"),
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
    "validation of another kind": Bad(lambda s: fit(s, validation_data=loader),
        AssertionError, "should be both"),
    "validation without a column": Bad(lambda s: fit(s, validation_data=frame(s, "double(id) a")),
        ColumnError, "'y'"),
    "validation with text": Bad(lambda s: fit(s, validation_data=frame(s, "'b' a", Y)),
        ColumnError, "'a'.*StringIndexer"),
    "predict on an unknown column": Bad(lambda s: scored(s, "1d a", feature_cols=["b"]),
        ColumnError, "'b'"),
    "predict without columns": Bad(lambda s: scored(s, "1d a", feature_cols=None),
        AssertionError, "feature_cols must be"),
    "predict on text": Bad(lambda s: scored(s, "'b' a"), ColumnError, "'a'.*StringIndexer"),
}  # fmt: skip

TASKS = {
    "null in a feature": Bad(lambda s: fit(s, "if(id = 3, null, double(id)) a", Y),
        ColumnError, "'a'.*null in 1 row.*drop"),
    "ragged across partitions": Bad(lambda s: fit(s, "array_repeat(1d, int(2 + id div 4)) a", Y),
        ColumnError, r"one shape in all rows in column 'a'.*\[2\].*\[3\]|\(2,\).*\(3,\)"),
    "decoder that raises": Bad(lambda s: fit(s, BYTES, Y, decoders={"a": fails}),
        ColumnError, "'a'.*8 rows.*Oddity: of the user"),
    "zero rows": Bad(lambda s: fit(s, rows=0), InputError, "zero rows"),
    "batch larger than the data": Bad(lambda s: fit(s, batch_size=9),
        InputError, "batch of 9.*8 rows in all.*batch_size=8"),
    "more ranks than slots": Bad(lambda s: fit(s, workers_per_node=64),
        SlotsError, r"64 task slots.*1 executors of \d.*workers_per"),
    "evaluate no rows": Bad(
        lambda s: estimator().evaluate( frame(s, "double(id) a", Y, rows=0), feature_cols=["a"],
            label_cols=["y"] ),
        InputError, "zero rows"),
    "more inputs than the model takes": Bad(
        lambda s: fit(s, "array(1d) a", "cast(char(48 + id) as binary) b", Y, feature_cols=["a",
            "b"], decoders={"b": lambda data: np.zeros(2)}),
        TypeError, "positional"),
    "two ranks, loss raises": Bad(lambda s: fit(s, loss=fails, workers_per_node=2),
        Oddity, "of the user"),
    "rank exits": Bad(lambda s: fit(s, loss=exits), RankError, "SystemExit: 3"),
    "rank dies": Bad(lambda s: fit(s, loss=dies, recovery=Recovery(retries=0)),
        RankError, "lost without a word"),
    "data creator raises": Bad(lambda s: fit_loader(fails), Oddity, "of the user"),
    "function in the lineage raises": Bad(lambda s: fit(s, divided(), Y),
        PySparkException, "ZeroDivisionError"),
    "evaluate with such a lineage": Bad(
        lambda s: estimator().evaluate( frame(s, divided(), Y), feature_cols=["a"],
            label_cols=["y"] ),
        PySparkException, "ZeroDivisionError"),
    "validation with nulls": Bad(lambda s: fit(s, validation_data=frame(s, "double(null) a", Y)),
        ColumnError, "'a'.*null"),
    "validation of another width": Bad(
        lambda s: fit(s, validation_data=frame(s, "array(1d, 2d) a", Y)),
        Exception, "shape"),
    "validation without rows": Bad(
        lambda s: fit(s, validation_data=frame(s, "double(id) a", Y, rows=0)),
        InputError, "zero rows"),
    "predict on nulls": Bad(lambda s: scored(s, "if(id = 7, null, 1d) a"),
        Exception, "'a'.*null in 1 row"),
    "predict with the wrong width": Bad(lambda s: scored(s, "array(1d, 2d) a"),
        RuntimeError, "shapes"),
    "predict with one number in all": Bad(lambda s: scored(s, "1d a", model=Total()),
        InputError, "one entry for each row"),
    "predict with a row too few": Bad(lambda s: scored(s, "1d a", model=Rest()),
        Exception, "one output for each row"),
    "evaluate with an error in the model": Bad(
        lambda s: estimator(model=Picky()).evaluate( frame(s, "1d a", Y),
            feature_cols=["a"], label_cols=["y"] ),
        RuntimeError, "no ones"),
    "evaluate with other columns": Bad(
        lambda s: estimator(model=Lines(width=2)).evaluate( frame(s, "1d a", Y),
            feature_cols=["a"], label_cols=["y"] ),
        ColumnError, "'a'.*shapes"),
    "evaluate with nulls": Bad(
        lambda s: estimator().evaluate( frame(s, "if(id % 4 = 1, null, 1d) a", Y),
            feature_cols=["a"], label_cols=["y"] ),
        ColumnError, "'a'.*null in 2 rows"),
}  # fmt: skip


def holding(what: Any) -> Callable[..., Any]:
    """A creator that has something in its closure that cannot travel."""

    def create(config: dict[str, Any]) -> nn.Module:
        assert what is not None
        return Lines()

    return create


def exits(output: Any, target: Any) -> Any:
    sys.exit(3)


def dies(output: Any, target: Any) -> Any:
    if "PYTHON_WORKER_FACTORY_SECRET" in os.environ:  # in a worker of Spark, not on the driver
        os._exit(3)
    return nn.functional.mse_loss(output, target)


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


def scored(spark: SparkSession, *columns: str | Column, **given: Any) -> None:
    """Predict before any fit, and look at the result."""
    names = given.pop("feature_cols", ["a"])
    estimator(**given).predict(frame(spark, *columns), feature_cols=names).collect()


@pytest.fixture
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


@pytest.mark.parametrize("name", DRIVER)
def test_driver_refuses_with_one_clear_error(name: str, spark: SparkSession) -> None:
    bad = DRIVER[name]
    with pytest.raises(bad.kind, match=f"(?s){bad.says}"):
        bad.run(spark)


@pytest.mark.usefixtures("still_well")
@pytest.mark.parametrize("name", TASKS)
def test_tasks_fail_with_one_clear_error(name: str, spark: SparkSession) -> None:
    bad = TASKS[name]
    with pytest.raises(bad.kind, match=f"(?s){bad.says}"):
        bad.run(spark)


def test_error_in_evaluate_tells_where(spark: SparkSession) -> None:
    with pytest.raises(RuntimeError) as caught:
        estimator(model=Picky()).evaluate(
            frame(spark, "1d a", Y), feature_cols=["a"], label_cols=["y"]
        )
    assert re.match(r"Raised by partition [01] on \S+:\n  File .*", caught.value.__notes__[0])


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


@pytest.mark.slow
def test_without_spark_the_error_says_so(fresh_python: Any) -> None:
    done = fresh_python(NO_SPARK)
    assert (done.returncode, done.stdout.count("Call init_orca_context() first")) == (0, 2), done


def test_after_all_this_a_fit_works(spark: SparkSession) -> None:
    result = fit(spark, epochs=20, workers_per_node=2, rows=64, batch_size=16,
        optimizer=lambda model, config: torch.optim.Adam(model.parameters(), lr=0.3))  # fmt: skip
    assert result[-1]["train_loss"] < result[0]["train_loss"] / 10
