"""Texts, and datasets of tf.data, as the data of Keras on TensorFlow."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from pyspark import cloudpickle
from pyspark.sql import DataFrame, SparkSession

from broken_fits import KillsOnce, StopsAt
from zoo.errors import InputError
from zoo.orca.data import XShards
from zoo.orca.data.tf.data import Dataset
from zoo.orca.learn.tf2 import Estimator
from zoo.orca.learn.trigger import SeveralIteration

# Ranks cannot import a test module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = [
    pytest.mark.spark,
    pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="it is about TensorFlow"),
]

WORDS = ["red", "green", "blue", "mauve"]
VALUES = {"red": 1.0, "green": -1.0, "blue": 2.0, "mauve": 0.0}


def colours(config: dict[str, Any]) -> keras.Model:
    keras.utils.set_random_seed(1)
    word = keras.Input(shape=(1,), dtype="string", name="word")
    number = keras.Input(shape=(1,), name="number")
    found = keras.layers.StringLookup(vocabulary=WORDS[:3])(word)
    hidden = keras.layers.Flatten()(keras.layers.Embedding(4, 3)(found))
    outputs = keras.layers.Dense(1)(keras.layers.concatenate([hidden, number]))
    model = keras.Model([word, number], outputs)
    model.compile(keras.optimizers.Adam(0.1), "mean_squared_error")
    return model


@pytest.fixture
def frame(spark: SparkSession) -> DataFrame:
    words = [WORDS[n % 4] for n in range(80)]
    numbers = np.random.default_rng(0).normal(size=80)
    y = [VALUES[word] + number for word, number in zip(words, numbers, strict=True)]
    table = pd.DataFrame({"word": words, "number": numbers, "y": y})
    return spark.createDataFrame(table).repartition(3)


def test_texts_are_looked_up_inside_the_model(frame: DataFrame) -> None:
    est = Estimator.from_keras(model_creator=colours, workers_per_node=2)
    given: dict[str, Any] = {"feature_cols": ["word", "number"], "label_cols": ["y"]}
    history = est.fit(frame, epochs=5, batch_size=8, validation_data=frame, **given)
    assert history[-1]["val_loss"] < 0.1
    assert est.evaluate(frame, **given)["val_loss"] == pytest.approx(history[-1]["val_loss"], 1e-5)
    rows = est.predict(frame, feature_cols=["word", "number"]).toPandas()
    model, columns = est.get_model(), (rows["word"].to_numpy(), rows["number"].to_numpy("float32"))
    expected = model.predict([keras.ops.convert_to_tensor(c) for c in columns], verbose=0)
    np.testing.assert_allclose(rows["prediction"].map(np.ravel).str[0], expected[:, 0], atol=1e-5)


def words(config: dict[str, Any]) -> keras.Model:
    keras.utils.set_random_seed(1)
    cut = keras.layers.TextVectorization(vocabulary=WORDS, output_sequence_length=2)
    layers = [cut, keras.layers.Embedding(8, 2), keras.layers.Flatten(), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((1,), dtype="string"), *layers])
    model.compile("sgd", "mean_squared_error")
    return model


def test_shards_of_texts_are_vectorised_inside_the_model(spark: SparkSession) -> None:
    shard = {"x": np.array(WORDS * 5), "y": np.arange(20.0)}
    shards = XShards.partition(shard, num_shards=2)
    est = Estimator.from_keras(model_creator=words)
    assert est.fit(shards, batch_size=4)[0]["num_samples"] == 20
    found = np.concatenate([s["prediction"] for s in est.predict(shards).collect()])
    expected = est.get_model().predict(keras.ops.convert_to_tensor(shard["x"]), verbose=0)
    np.testing.assert_allclose(found, expected[:, 0], atol=1e-6)


def line(config: dict[str, Any]) -> keras.Model:
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.05), "mean_squared_error")
    return model


X = np.random.default_rng(0).normal(size=(37, 2)).astype(np.float32)
Y = (X @ np.array([[2.0], [-1.0]]) + 0.5).astype(np.float32)


def rows(config: dict[str, Any], batch_size: int) -> Any:
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(37).batch(batch_size)


def endless(config: dict[str, Any], batch_size: int) -> Any:
    return rows(config, batch_size).repeat()


def weights(est: Any) -> np.ndarray:
    return np.concatenate([w.ravel() for w in est.get_model().get_weights()])


def trained(ranks: int, data: Any, **given: Any) -> tuple[np.ndarray, Any]:
    est = Estimator.from_keras(model_creator=line, workers_per_node=ranks)
    history = est.fit(data, batch_size=8, **given)
    return weights(est), history


def test_any_number_of_ranks_trains_alike_on_what_a_creator_makes(spark: SparkSession) -> None:
    one, _ = trained(1, rows, epochs=2, validation_data=rows)
    two, history = trained(2, rows, epochs=2, validation_data=rows)
    np.testing.assert_allclose(one, two, rtol=1e-5)
    assert [epoch["num_samples"] for epoch in history] == [37, 37]
    assert [epoch["batch_count"] for epoch in history] == [5, 5]


def test_a_killed_rank_and_a_fit_that_resumes_leave_no_trace(
    spark: SparkSession, tmp_path: Path
) -> None:
    expected, _ = trained(1, rows, epochs=3)
    found, _ = trained(2, rows, epochs=3, callbacks=[KillsOnce(tmp_path / "killed", 7)])
    assert (tmp_path / "killed").exists()
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    begun, est = (
        Estimator.from_keras(
            model_creator=line, workers_per_node=ranks, model_dir=str(tmp_path / "model")
        )
        for ranks in (1, 2)
    )
    often = {"checkpoint_trigger": SeveralIteration(2), "callbacks": [StopsAt(8)]}
    begun.fit(rows, epochs=3, batch_size=8, **often)
    history = est.fit(rows, epochs=3, batch_size=8, resume=True)
    assert [epoch["epoch"] for epoch in history] == [1, 2, 3]
    np.testing.assert_allclose(weights(est), expected, rtol=1e-5)


def test_steps_that_are_asked_for_are_taken(spark: SparkSession) -> None:
    given = {"steps_per_epoch": 3, "validation_data": rows, "validation_steps": 2}
    _, history = trained(2, endless, epochs=2, **given)
    assert [epoch["batch_count"] for epoch in history] == [3, 3]
    with pytest.raises(InputError, match="steps_per_epoch.*without an end"):
        trained(1, endless)


def test_datasets_that_are_given_use_each_row_once(spark: SparkSession) -> None:
    import tensorflow as tf

    shards = XShards.partition((X / 2, Y), num_shards=3)
    mapped = Dataset.from_tensor_slices(shards).map(lambda x, y: (x * 2, y))
    _, history = trained(2, mapped, epochs=20, validation_data=mapped)
    assert history[-1]["num_samples"] == 37
    assert history[-1]["val_loss"] < 0.1
    plain = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    assert trained(1, plain)[1][0]["num_samples"] == 37
