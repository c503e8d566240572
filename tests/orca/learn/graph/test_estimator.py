"""Graphs on Spark: fit, evaluate, predict, on every kind of data."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from broken_fits import KillsOnce, StopsAt
from zoo.errors import InputError
from zoo.orca.data import XShards
from zoo.orca.learn.metrics import MAE, Accuracy
from zoo.orca.learn.tf.estimator import Estimator
from zoo.orca.learn.trigger import SeveralIteration

v1 = tf.compat.v1

ROWS, BATCH = 90, 16
COLUMNS: dict[str, Any] = {"feature_cols": ["a", "b"], "label_cols": ["y"]}


def table(rows: int = ROWS) -> pd.DataFrame:
    number = np.arange(rows)
    a, b = np.sin(number), np.cos(3 * number)
    return pd.DataFrame({"id": number, "a": a, "b": b, "y": a - 2 * b + 1})


@pytest.fixture(scope="module")
def frame(spark: SparkSession) -> Iterator[DataFrame]:
    made = spark.createDataFrame(table()).repartition(3, "id").sortWithinPartitions("id").persist()
    yield made
    made.unpersist()


def parts(*, dropout: bool = False, rows: bool = False) -> dict[str, Any]:
    """A graph with its own way to know training from the rest."""
    draw, graph = np.random.default_rng(7), tf.Graph()
    with graph.as_default():
        x, y = v1.placeholder(tf.float64, [None, 2]), v1.placeholder(tf.float64, [None])
        rate = v1.placeholder_with_default(tf.constant(0.0, tf.float64), [], name="rate")

        def variable(name: str, *shape: int) -> Any:
            return v1.get_variable(name, initializer=draw.normal(size=shape), use_resource=True)

        hidden = tf.tanh(x @ variable("w", 2, 6) + variable("b", 6))
        if dropout:
            hidden = tf.nn.dropout(hidden, rate=rate)
        output = tf.squeeze(hidden @ variable("v", 6, 1), 1)
        errors = tf.abs(output - y)
        losses = errors**2
        return {
            "inputs": x,
            "outputs": output,
            "labels": y,
            "loss": losses if rows else tf.reduce_mean(losses),
            "optimizer": v1.train.AdamOptimizer(0.02),
            "metrics": {"error": errors, "worst": tf.reduce_mean(errors), "MAE": MAE()},
        }


def estimator(*, ranks: int = 2, **given: Any) -> Any:
    forms = {name: given.pop(name) for name in ("dropout", "rows") if name in given}
    return Estimator.from_graph(**{**parts(**forms), "workers_per_node": ranks, **given})


def assert_same(found: Any, expected: Any) -> None:
    for name, value in expected.get_model().items():
        np.testing.assert_allclose(found.get_model()[name], value, rtol=1e-9, err_msg=name)


@pytest.mark.spark
def test_a_graph_trains_scores_and_predicts_on_a_frame(frame: DataFrame) -> None:
    est = estimator(ranks=2)
    history = est.fit(frame, 8, BATCH, **COLUMNS, validation_data=frame)
    assert history[-1]["val_loss"] < 0.5 * history[0]["val_loss"]
    scores = est.evaluate(frame, 7)
    rows = est.predict(frame).toPandas()
    assert list(rows.columns) == ["id", "a", "b", "y", "prediction"]
    weights = est.get_model()
    hidden = np.tanh(rows[["a", "b"]].to_numpy() @ weights["w"] + weights["b"])
    expected = (hidden @ weights["v"])[:, 0]
    np.testing.assert_allclose(rows.prediction, expected, rtol=1e-12)
    errors = np.abs(expected - rows.y)
    for name in ("error", "worst", "MAE"):
        assert scores[name] == pytest.approx(errors.mean(), rel=1e-6)
    assert scores["loss"] == scores["val_loss"] == pytest.approx((errors**2).mean(), rel=1e-9)
    assert history[-1]["val_error"] == pytest.approx(errors.mean(), rel=1e-9)
    assert scores["num_samples"] == ROWS


@pytest.mark.spark
def test_every_kind_of_data_gives_the_same(spark: SparkSession) -> None:
    rows = table()
    x, y = rows[["a", "b"]].to_numpy(), rows.y.to_numpy()
    shards = XShards.partition({"x": x, "y": y}, num_shards=3)
    first = estimator(ranks=1)
    first.fit(shards, 2, BATCH)
    scores = first.evaluate(shards)
    one = estimator(ranks=1)
    in_parts = spark.createDataFrame(rows).repartition(1).sortWithinPartitions("id")
    assert scores["error"] == pytest.approx(
        first.evaluate(in_parts, feature_cols=["a", "b"], label_cols=["y"])["error"], rel=1e-9
    )
    found = np.concatenate([s["prediction"] for s in first.predict(shards).collect()])
    there = first.predict(rows, feature_cols=["a", "b"])
    np.testing.assert_allclose(found, there.prediction, rtol=1e-12)
    of_pandas = XShards.partition({"x": x, "y": y}, 3).transform_shard(
        lambda s: pd.DataFrame({"a": s["x"][:, 0], "b": s["x"][:, 1], "y": s["y"]})
    )
    one.fit(of_pandas, 2, BATCH, **COLUMNS)
    assert_same(one, first)


def made_in_ranks(config: dict[str, Any], batch_size: int) -> tf.data.Dataset:
    """The rows of the table; each rank takes its part of them."""
    rows = table()
    return tf.data.Dataset.from_tensor_slices((rows[["a", "b"]].to_numpy(), rows.y.to_numpy()))


@pytest.mark.spark
def test_datasets_of_tensorflow_train_the_same(spark: SparkSession) -> None:
    config = {"shuffle": False}
    alone, shared, given = (estimator(ranks=ranks, config=config) for ranks in (1, 2, 2))
    for est in (alone, shared):
        history = est.fit(made_in_ranks, 2, BATCH, validation_data=made_in_ranks)
        assert [(e["batch_count"], e["num_samples"]) for e in history] == [(6, ROWS)] * 2
        assert est.evaluate(made_in_ranks)["loss"] == pytest.approx(history[-1]["val_loss"])
    assert_same(shared, alone)
    with tf.Graph().as_default():
        dataset = made_in_ranks({}, 1)
    history = given.fit(dataset, 2, BATCH, validation_data=dataset)
    assert history[-1]["num_samples"] == ROWS
    assert given.evaluate(dataset)["loss"] == pytest.approx(history[-1]["val_loss"])
    with pytest.raises(AssertionError, match="to predict"):
        given.predict(dataset)


@pytest.mark.spark
def test_columns_of_text_go_to_tables_of_the_graph(spark: SparkSession) -> None:
    words = ["red", "green", "blue", "red", "unknown"] * 8
    with tf.Graph().as_default():
        text, y = v1.placeholder(tf.string, [None]), v1.placeholder(tf.float32, [None])
        known = tf.lookup.KeyValueTensorInitializer(["red", "green", "blue"], [1, 2, 3])
        numbers = tf.lookup.StaticHashTable(known, 0)[text]
        lengths = v1.get_variable("lengths", [4], initializer=v1.zeros_initializer())
        output = tf.gather(lengths, numbers)
        est = Estimator.from_graph(
            inputs=text, outputs=output, labels=y, loss=tf.reduce_mean((output - y) ** 2),
            optimizer=v1.train.GradientDescentOptimizer(1.0), workers_per_node=2,
        )  # fmt: skip
    frame = pd.DataFrame({"colour": words, "y": [float(len(word)) for word in words]})
    est.fit(frame, 60, 40, ["colour"], ["y"])
    np.testing.assert_allclose(est.get_model()["lengths"], [7, 3, 5, 4], rtol=1e-3)
    np.testing.assert_allclose(est.predict(frame).prediction, frame.y, rtol=1e-3)


@pytest.mark.spark
def test_several_outputs_become_several_predictions(frame: DataFrame) -> None:
    given = parts()
    with given["inputs"].graph.as_default():
        both = [given["outputs"], tf.stack([given["outputs"], -given["outputs"]], 1)]
    est = Estimator.from_graph(inputs=given["inputs"], outputs=both)
    first = est.predict(frame, feature_cols=["a", "b"]).first()
    one, two = first.prediction
    assert two.toArray().tolist() == [one[0], -one[0]]


@pytest.mark.spark
def test_weights_come_from_a_session_and_go_back(frame: DataFrame) -> None:
    given = parts()
    graph = given["inputs"].graph
    with graph.as_default(), v1.Session() as sess:
        sess.run(v1.global_variables_initializer())
        v1.trainable_variables()[0].load(np.full((2, 6), 0.25), sess)
        est = Estimator.from_graph(**given, sess=sess)
        np.testing.assert_array_equal(est.get_model()["w"], np.full((2, 6), 0.25))
        est.fit(frame, 1, BATCH, **COLUMNS)
        for variable in v1.trainable_variables():
            np.testing.assert_array_equal(sess.run(variable), est.get_model()[variable.op.name])
        x = table()[["a", "b"]].to_numpy()
        here = sess.run(given["outputs"], {given["inputs"]: x})
    np.testing.assert_allclose(est.predict(table()).prediction, here, rtol=1e-12)


@pytest.mark.spark
def test_placeholders_are_fed_one_way_in_training_and_another_else(frame: DataFrame) -> None:
    est = estimator(dropout=True)
    rate = est._graph.get_tensor_by_name("rate:0")
    history = est.fit(
        frame, 2, BATCH, **COLUMNS, validation_data=frame, feed_dict={rate: (0.5, 0.0)}
    )
    assert est.evaluate(frame)["loss"] == pytest.approx(history[-1]["val_loss"], rel=1e-9)
    assert abs(history[-1]["train_loss"] - history[-1]["val_loss"]) > 0.01


@pytest.mark.spark
def test_a_killed_rank_and_a_stop_cost_no_digit(frame: DataFrame, tmp_path: Path) -> None:
    feeds: Callable[[Any], Any] = lambda e: {e._graph.get_tensor_by_name("rate:0"): (0.3, 0.0)}  # noqa: E731
    whole, killed, stopped, resumed = (
        estimator(dropout=True, model_dir=str(tmp_path / name)) for name in ("a", "b", "c", "c")
    )
    whole.fit(frame, 2, BATCH, **COLUMNS, feed_dict=feeds(whole))
    killed.fit(
        frame,
        2,
        BATCH,
        **COLUMNS,
        feed_dict=feeds(killed),
        callbacks=[KillsOnce(tmp_path / "mark", 4)],
    )
    assert (tmp_path / "mark").exists()
    assert_same(killed, whole)
    stopped.fit(
        frame, 2, BATCH, **COLUMNS, feed_dict=feeds(stopped), callbacks=[StopsAt(9)],
        checkpoint_trigger=SeveralIteration(4),
    )  # fmt: skip
    resumed.fit(frame, 2, BATCH, **COLUMNS, feed_dict=feeds(resumed), resume=True)
    assert_same(resumed, whole)


@pytest.mark.spark
def test_rows_weigh_what_a_column_says(frame: DataFrame) -> None:
    weighed = frame.withColumn("weight", F.when(F.col("id") < 40, 0.0).otherwise(2.0))
    est, other = estimator(rows=True, ranks=1), estimator(rows=False, ranks=1)
    est.fit(weighed, 1, ROWS, **COLUMNS, sample_weight_col="weight")
    other.fit(frame.where("id >= 40"), 1, ROWS - 40, **COLUMNS)
    assert_same(est, other)
    with pytest.raises(InputError, match="a loss of each row"):
        other.fit(weighed, 1, ROWS, **COLUMNS, sample_weight_col="weight")


@pytest.mark.spark
@pytest.mark.parametrize(
    ("left_out", "verb", "said"),
    [
        ("labels", "fit", "labels is None; it should not be None in training"),
        ("loss", "fit", "loss is None; it should not be None in training"),
        ("optimizer", "fit", "optimizer is None; it should not be None in training"),
        ("outputs", "predict", "outputs is None; it should not be None in prediction"),
        ("metrics", "evaluate", "metrics is None; it should not be None in evaluation"),
        ("feature_cols", "fit", "feature columns is None; it should not be None in training"),
        ("label_cols", "fit", "label columns is None; it should not be None in training"),
        ("feature_cols", "predict", "feature columns is None; it should not be None in predict"),
        ("label_cols", "evaluate", "label columns is None; it should not be None in evaluation"),
    ],
)
def test_what_is_missing_is_named(frame: DataFrame, left_out: str, verb: str, said: str) -> None:
    given, columns = parts(), dict(COLUMNS)
    for options in (given, columns):
        options.pop(left_out, None)
    if left_out in ("outputs", "labels"):
        given["metrics"].pop("MAE")
    if verb == "predict":
        columns.pop("label_cols", None)
    est = Estimator.from_graph(**given)
    with pytest.raises(AssertionError, match=said):
        getattr(est, verb)(frame, **columns)


def test_metrics_of_the_library_have_the_names_that_programs_know() -> None:
    est = Estimator.from_graph(**{**parts(), "metrics": [Accuracy(), MAE()]})
    assert set(est._metrics) == {"Top1Accuracy", "MAE"}


PROGRAM = """
import numpy as np, pandas as pd, tensorflow as tf
import zoo.orca.learn.tf.estimator as module
assert tf.executing_eagerly()  # an import of ours switches nothing
tf.compat.v1.disable_v2_behavior()
from zoo.orca import init_orca_context, stop_orca_context
v1 = tf.compat.v1
init_orca_context(cores=2, memory="1g")
x, y = v1.placeholder(tf.float32, [None, 1]), v1.placeholder(tf.float32, [None, 1])
w = v1.get_variable("w", [1, 1], initializer=v1.zeros_initializer())
loss = v1.losses.mean_squared_error(y, x @ w)
est = module.Estimator.from_graph(
    inputs=x, outputs=x @ w, labels=y, loss=loss, optimizer=v1.train.GradientDescentOptimizer(0.1),
    workers_per_node=2)
rows = pd.DataFrame({"x": np.linspace(-1, 1, 64), "y": 3 * np.linspace(-1, 1, 64)})
est.fit(rows, 40, 16, ["x"], ["y"])
assert abs(est.get_model()["w"][0, 0] - 3) < 0.01, est.get_model()
assert est.predict(rows).prediction.iloc[-1] == est.get_model()["w"][0, 0]
assert not tf.executing_eagerly()
stop_orca_context()
print("done")
"""


@pytest.mark.slow
def test_program_that_has_switched_to_graphs_for_good(
    run_program: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    done = run_program(tmp_path / "program.py")
    assert done.stdout.endswith("done\n"), done.stderr[-3000:]
