"""Keras models on Spark data, through both doors."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from pyspark import cloudpickle
from pyspark.sql import DataFrame, SparkSession

from zoo.errors import InputError
from zoo.orca.learn.tf.estimator import Estimator
from zoo.orca.learn.tf2 import Estimator as Estimator2

# Ranks cannot import a test module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def ratings(spark: SparkSession) -> Iterator[DataFrame]:
    """Users, items, and a label that both decide."""
    made = (
        spark.range(0, 600, 1, 3)
        .selectExpr("int(id % 20) user", "int((id * 7 + floor(id / 20)) % 30) item")
        .selectExpr("user", "item", "(user + item) % 2 label")
    )
    made.persist()
    yield made
    made.unpersist()


def recommender() -> keras.Model:
    keras.utils.set_random_seed(3)
    user = keras.Input(shape=(1,), name="user")
    item = keras.Input(shape=(1,), name="item")
    parts = [
        keras.layers.Flatten()(keras.layers.Embedding(size, 6)(one))
        for one, size in ((user, 20), (item, 30))
    ]
    hidden = keras.layers.Dense(16, activation="relu")(keras.layers.concatenate(parts))
    outputs = keras.layers.Dense(2, activation="softmax")(hidden)
    model = keras.Model(inputs=[user, item], outputs=outputs)
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.mark.parametrize("kind", ["int", "long", "double"])
def test_slide_10_runs_on_ids_of_any_type(ratings: DataFrame, tmp_path: Path, kind: str) -> None:
    path = str(tmp_path / "ratings")
    names = [f"cast({name} AS {kind}) {name}" for name in ("user", "item", "label")]
    ratings.selectExpr(*names).write.parquet(path)
    train_df = ratings.sparkSession.read.parquet(path)
    model = recommender()
    before = model.get_weights()
    est = Estimator.from_keras(keras_model=model)
    result = est.fit(train_df, feature_cols=["user", "item"], label_cols=["label"])
    assert est.get_model() is model
    assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))
    assert 0.4 < result[0]["accuracy"] < 0.9
    assert result["train_loss"] == result[0]["train_loss"]
    scores = est.evaluate(train_df)
    frame = train_df.toPandas()
    plain = model.evaluate(
        [frame[["user"]].to_numpy(), frame[["item"]].to_numpy()],
        frame["label"].to_numpy(),
        verbose=0,
        return_dict=True,
    )
    assert scores["accuracy"] == pytest.approx(plain["accuracy"])
    assert scores["val_loss"] == pytest.approx(plain["loss"], rel=1e-5)
    predicted = est.predict(train_df).toPandas()
    expected = model.predict([predicted[["user"]], predicted[["item"]]], verbose=0)
    found = np.stack([row.toArray() for row in predicted["prediction"]])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


COLUMNS: dict[str, Any] = {"feature_cols": ["user", "item"], "label_cols": ["label"]}


def creator(config: dict[str, Any]) -> keras.Model:
    model = keras.Sequential(
        [layers.Dense(config.get("width", 4), "relu"), layers.Dense(1, "sigmoid")]
    )
    if config.get("compiled", True):
        model.compile("sgd", "binary_crossentropy", metrics=["accuracy"])
    return model


def compile_args(config: dict[str, Any]) -> dict[str, Any]:
    return {"optimizer": keras.optimizers.Adam(0.05), "loss": "binary_crossentropy"}


def test_functions_make_the_model_and_its_optimizer(ratings: DataFrame, tmp_path: Path) -> None:
    given = {"config": {"width": 6, "compiled": False, "seed": 1}, "workers_per_node": 2}
    est = Estimator2.from_keras(model_creator=creator, compile_args_creator=compile_args, **given)
    history = est.fit(ratings, epochs=2, batch_size=100, validation_data=ratings, **COLUMNS)
    assert [epoch["batch_count"] for epoch in history] == [6, 6]
    assert history[1]["train_loss"] < history[0]["train_loss"]
    assert est.get_model() is not est.get_model()
    path = est.save(str(tmp_path / "state"))
    again = est.clone().load(path)
    scores = again.evaluate(ratings, **COLUMNS)
    assert scores["validation_loss"] == pytest.approx(history[1]["val_loss"], rel=1e-5)
    # The same as four epochs at once: weights, moments and order go on.
    more = again.fit(ratings, epochs=1, batch_size=100, **COLUMNS)
    whole = est.clone().fit(ratings, epochs=3, batch_size=100, **COLUMNS)
    assert more["train_loss"] == pytest.approx(whole["train_loss"], rel=1e-5)


def test_uncompiled_model_predicts_and_does_not_train(ratings: DataFrame) -> None:
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    est = Estimator.from_keras(model)
    columns = {"feature_cols": ["user", "item"]}
    found = est.predict(ratings, **columns).toPandas()
    expected = model.predict(found[["user", "item"]].to_numpy("float32"), verbose=0)
    np.testing.assert_allclose(found["prediction"], expected[:, 0], rtol=1e-5)
    with pytest.raises(AssertionError, match="a compiled model"):
        est.fit(ratings, **COLUMNS)


def test_model_goes_on_when_it_was_compiled_again(ratings: DataFrame, tmp_path: Path) -> None:
    model = recommender()
    est = Estimator.from_keras(model, model_dir=str(tmp_path))
    est.fit(ratings, batch_size=100, **COLUMNS)
    model.layers[2].trainable = False
    frozen = model.layers[2].get_weights()[0]
    model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    history = est.fit(ratings, batch_size=100, class_weight={1: 3.0}, **COLUMNS)
    assert history[0]["epoch"] == 2
    np.testing.assert_array_equal(model.layers[2].get_weights()[0], frozen)
    other = Estimator.from_keras(recommender(), model_dir=str(tmp_path))
    with pytest.raises(InputError, match="the state of another optimizer, SGD"):
        other.fit(ratings, resume=True, **COLUMNS)
    est.save_keras_model(str(tmp_path / "model.keras"))
    loaded = Estimator.load_keras_model(str(tmp_path / "model.keras"))
    for one, two in zip(model.get_weights(), loaded.get_model().get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras writes it there alone")
def test_tensorflow_serves_what_was_exported(tmp_path: Path) -> None:
    import tensorflow as tf

    model, place = recommender(), tmp_path / "served" / "1"
    est = Estimator.from_keras(model)
    assert est.export(str(place)) == str(place)
    pair = [np.array([[1], [3]], np.float32), np.array([[2], [4]], np.float32)]
    loaded = tf.saved_model.load(str(place))
    served = loaded.serve(pair)
    np.testing.assert_allclose(served, model.predict(pair, verbose=0), rtol=1e-6)
    est.export(str(place))
    assert [p.name for p in place.parent.iterdir()] == ["1"]
    with pytest.raises(InputError, match="a new folder"):
        est.export(str(place), overwrite=False)
    with pytest.raises(InputError, match="a new folder"):
        est.export(str(tmp_path))


def own_step() -> keras.Model:
    kind = type("Own", (keras.Sequential,), {"train_step": lambda self, data: {}})
    model = kind([keras.Input((2,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    return model


BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "own train_step": (own_step, COLUMNS, "Override compute_loss"),
    "one column": (
        recommender, COLUMNS | {"feature_cols": ["user"]}, "2 feature_cols, one for each input",
    ),
    "other order": (
        recommender, COLUMNS | {"feature_cols": ["item", "user"]}, "in the order of the model",
    ),
    "two targets": (
        recommender, COLUMNS | {"label_cols": ["label", "item"]}, "label_cols|Keras says",
    ),
    "no labels": (recommender, {"feature_cols": ["user", "item"]}, "label"),
    "unknown callback": (recommender, COLUMNS | {"callbacks": [3]}, "callbacks"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_before_any_work(ratings: DataFrame, case: str) -> None:
    make, given, said = BAD[case]
    with pytest.raises((InputError, ImportError), match=said):
        Estimator.from_keras(make()).fit(ratings, **given)
