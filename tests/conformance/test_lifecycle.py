"""What the estimator of every framework does alike: goes on, resumes, is saved, predicts, refuses.

The models are those of the trials in benchmarks/faults.py: in double precision, with weights that
count how often each row was used.
"""

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from pyspark import cloudpickle
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from broken_fits import KillsOnce, StopsAt
from zoo.errors import ZooError
from zoo.orca.learn.trigger import SeveralIteration

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from trials.work import BATCH, Weights, Work, difference, each_row_once  # noqa: E402 - lies there

FRAMEWORKS = ("torch", "keras", "graph")
# Ranks cannot import these by their names.
for net in FRAMEWORKS:
    cloudpickle.register_pickle_by_value(importlib.import_module(f"trials.{net}_net"))

pytestmark = [pytest.mark.spark, pytest.mark.parametrize("framework", FRAMEWORKS)]

EPOCHS = 3
# Keras computes in single precision elsewhere, whatever the type that it is given.
NEAR = 1e-9 if keras.backend.backend() == "tensorflow" else 2e-5
COLUMNS: dict[str, Any] = {"feature_cols": [["x0", "x1", "x2"], "id"], "label_cols": ["y"]}


def work_of(framework: str, optimizer: str = "adam") -> Work:
    """Four steps an epoch; partitions are uneven, and one is empty."""
    return Work(optimizer, (10, 0, 1, 30, 7), EPOCHS, 0.0, framework)


def fit(est: Any, work: Work, spark: SparkSession, epochs: int = EPOCHS, **given: Any) -> Any:
    return est.fit(work.frame(spark), epochs=epochs, batch_size=BATCH, **COLUMNS, **given)


_undisturbed: dict[Work, Weights] = {}


def undisturbed(work: Work, spark: SparkSession) -> Weights:
    """The weights of a fit on one rank, made once."""
    if work not in _undisturbed:
        est = work.estimator(max_workers=1)
        fit(est, work, spark)
        _undisturbed[work] = work.weights(est)
    return _undisturbed[work]


def assert_undisturbed(est: Any, work: Work, spark: SparkSession) -> None:
    found = work.weights(est)
    assert each_row_once(found, EPOCHS)
    assert difference(found, undisturbed(work, spark)) <= NEAR


@pytest.mark.parametrize("optimizer", ["adam", "momentum"])
def test_a_killed_rank_leaves_no_trace(
    spark: SparkSession, tmp_path: Path, framework: str, optimizer: str
) -> None:
    work = work_of(framework, optimizer)
    est = work.estimator(workers_per_node=2)
    fit(est, work, spark, callbacks=[KillsOnce(tmp_path / "killed", 6)])
    assert sum("lost" in each.ended for each in est.report.rounds) == 1
    assert_undisturbed(est, work, spark)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 3)])
def test_a_fit_goes_on_inside_the_epoch_with_other_ranks(
    spark: SparkSession, tmp_path: Path, framework: str, before: int, after: int
) -> None:
    work = work_of(framework)
    begun = work.estimator(workers_per_node=before, model_dir=str(tmp_path))
    every = SeveralIteration(3)
    fit(begun, work, spark, checkpoint_trigger=every, callbacks=[StopsAt(7)])
    est = work.estimator(workers_per_node=after, model_dir=str(tmp_path))
    results = fit(est, work, spark, resume=True)
    assert [result["epoch"] for result in results] == [1, 2, 3]
    assert_undisturbed(est, work, spark)


def test_a_saved_estimator_predicts_and_trains_on(
    spark: SparkSession, tmp_path: Path, framework: str
) -> None:
    work = work_of(framework)
    first = work.estimator(workers_per_node=2)
    fit(first, work, spark, epochs=1)
    path = str(tmp_path / "model")
    first.save(path)
    est = work.estimator(workers_per_node=2).load(path)
    before = predictions(first, work, spark)
    for row, text in predictions(est, work, spark).items():
        np.testing.assert_allclose(numbers(text), numbers(before[row]), rtol=NEAR)
    results = fit(est, work, spark, epochs=2)
    assert [result["epoch"] for result in results] == [2, 3]
    assert_undisturbed(est, work, spark)


def predictions(est: Any, work: Work, spark: SparkSession, partitions: int = 0) -> dict[int, str]:
    frame = work.frame(spark)
    if partitions:
        frame = frame.repartition(partitions, F.col("y"))
    found = est.predict(frame, batch_size=5, feature_cols=COLUMNS["feature_cols"])
    return {row.id: str(row.prediction) for row in found.select("id", "prediction").collect()}


def test_each_row_has_its_own_prediction(spark: SparkSession, framework: str) -> None:
    work = work_of(framework)
    est = work.estimator()
    fit(est, work, spark, epochs=1)
    found = predictions(est, work, spark)
    assert sorted(found) == list(range(work.rows))
    assert len(set(found.values())) == work.rows
    for partitions in (1, 9):
        other = predictions(est, work, spark, partitions)
        for row, text in found.items():
            np.testing.assert_allclose(numbers(other[row]), numbers(text), rtol=NEAR)


def numbers(text: str) -> list[float]:
    return [float(part) for part in re.findall(r"-?\d[\d.e-]*", text)]


@pytest.mark.parametrize(
    ("made", "given", "said"),
    [
        ("*", {"feature_cols": [["x0", "x1", "gone"], "id"]}, "gone"),
        ("*", {"label_cols": ["gone"]}, "gone"),
        ("null x0, x1, x2, y, id", {}, "x0"),
        ("x0, x1, x2, null y, id", {}, "y"),
        ("'a' x0, x1, x2, y, id", {}, "x0"),
        ("* where id < 0", {}, "row"),
        ("*", {"batch_size": 0}, "batch_size"),
        ("*", {"epochs": 0}, "epochs"),
    ],
)
def test_a_mistake_has_one_error_of_ours(
    spark: SparkSession, framework: str, made: str, given: dict[str, Any], said: str
) -> None:
    work = work_of(framework)
    columns, _, condition = made.partition(" where ")
    frame = work.frame(spark).selectExpr(*columns.split(", ")).where(condition or "true")
    with pytest.raises(ZooError, match=said):
        work.estimator().fit(frame, **{"epochs": 1, "batch_size": BATCH, **COLUMNS, **given})
