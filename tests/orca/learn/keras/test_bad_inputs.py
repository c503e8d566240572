"""What a user of Keras can do wrong: each gives one clear error of ours, before work starts.

Soon, too: a test with Spark has ten seconds.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import pandas as pd
import pytest
import torch
from pyspark.sql import DataFrame, SparkSession

from zoo.errors import ZooError
from zoo.orca.learn.tf.estimator import Estimator
from zoo.orca.learn.tf2 import Estimator as Creators

COLUMNS: dict[str, Any] = {"feature_cols": ["a", "b"], "label_cols": ["y"]}
CLASSES = "sparse_categorical_crossentropy"


class OwnStep(keras.Model):
    """With a training step of its own."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.layer = keras.layers.Dense(1)

    def call(self, inputs: Any) -> Any:
        return self.layer(inputs)

    def train_step(self, *given: Any) -> Any:
        return {}


def uncompiled(width: int = 2, outputs: int = 1, activation: str | None = None) -> keras.Model:
    return keras.Sequential([keras.Input((width,)), keras.layers.Dense(outputs, activation)])


def model(width: int = 2, outputs: int = 1, loss: Any = "mse", **given: Any) -> keras.Model:
    made = uncompiled(width, outputs, "softmax" if loss == CLASSES else None)
    made.compile(optimizer="sgd", loss=loss, **given)
    return made


def two_inputs() -> keras.Model:
    sides = [keras.Input((1,)), keras.Input((1,))]
    made = keras.Model(sides, keras.layers.Dense(1)(keras.layers.concatenate(sides)))
    made.compile("sgd", "mse")
    return made


def frozen() -> keras.Model:
    made = model()
    made.layers[0].trainable = False
    made.compile("sgd", "mse")
    return made


def own_step() -> keras.Model:
    made = OwnStep()
    made.compile("sgd", "mse")
    return made


def frame(spark: SparkSession, *columns: str) -> DataFrame:
    """Eight rows in two partitions."""
    named = columns or ("double(id) a", "double(2 * id) b", "double(id) y")
    return spark.range(0, 8, 1, 2).selectExpr(*named)


def fit(spark: SparkSession, made: Any = None, *columns: str, **given: Any) -> Any:
    est = Estimator.from_keras(made or model())
    asked = COLUMNS | {"batch_size": 4} | given
    return est.fit(frame(spark, *columns), **asked)


def trained(spark: SparkSession) -> Any:
    est = Estimator.from_keras(model())
    est._columns = (["a", "b"], ["y"])
    return est


def creators(creator: Any = lambda config: model(), **given: Any) -> Any:
    return Creators.from_keras(model_creator=creator, **given)


def called(spark: SparkSession, creator: Any, **given: Any) -> Any:
    """Functions are called when something is to be done."""
    return creators(creator, **given).fit(frame(spark), **COLUMNS)


class Bad(NamedTuple):
    run: Callable[[SparkSession, Path], object]
    says: str


def written(path: Path, content: bytes = b"nothing") -> str:
    path.write_bytes(content)
    return str(path)


def other_weights(folder: Path) -> str:
    path = str(folder / "other.weights.h5")
    model(3).save_weights(path)
    return path


BAD = {
    # What is trained.
    "not compiled": Bad(lambda s, p: fit(s, uncompiled()), "compiled model.*model.compile"),
    "not compiled, evaluated": Bad(
        lambda s, p: Estimator.from_keras(uncompiled()).evaluate(frame(s), **COLUMNS),
        "compiled model",
    ),
    "a function for the model": Bad(
        lambda s, p: Estimator.from_keras(lambda config: model()), "model_creator"
    ),
    "a model of torch": Bad(
        lambda s, p: Estimator.from_keras(torch.nn.Linear(2, 1)), "keras.Model"
    ),
    "a path for the model": Bad(lambda s, p: Estimator.from_keras("m.keras"), "keras.Model"),
    "a model for the function": Bad(lambda s, p: creators(model()), "keras_model="),
    "no function": Bad(lambda s, p: creators(3), "model_creator as a function"),
    "a function that gives nothing": Bad(
        lambda s, p: called(s, lambda config: None), "keras.Model"
    ),
    "a function that gives a model of torch": Bad(
        lambda s, p: called(s, lambda config: torch.nn.Linear(2, 1)), "keras.Model"
    ),
    "compile arguments as a dict": Bad(
        lambda s, p: creators(compile_args_creator={"loss": "mse"}), "compile_args_creator as a"
    ),
    "compile arguments as a list": Bad(
        lambda s, p: called(s, lambda c: uncompiled(), compile_args_creator=lambda c: ["mse"]),
        "compile_args_creator",
    ),
    "a compile argument that there is not": Bad(
        lambda s, p: called(
            s, lambda c: uncompiled(), compile_args_creator=lambda c: {"loss": "mse", "los": 1}
        ),
        "los",
    ),
    "a step of its own": Bad(lambda s, p: fit(s, own_step()), "compute_loss"),
    "nothing to train": Bad(lambda s, p: fit(s, frozen()), "trainable = True"),
    # Settings.
    "batch size in config": Bad(lambda s, p: creators(config={"batch_size": 4}), "batch_size"),
    "config as a list": Bad(lambda s, p: creators(config=[1]), "config as a dict"),
    "another backend": Bad(lambda s, p: creators(backend="mxnet"), "backend"),
    "the backend ray": Bad(lambda s, p: creators(backend="ray"), "backend"),
    "no workers": Bad(lambda s, p: creators(workers_per_node=0), "workers_per_node"),
    "fewest above most": Bad(lambda s, p: creators(min_workers=3, max_workers=2), "max_workers"),
    "no epochs": Bad(lambda s, p: fit(s, epochs=0), "epochs"),
    "no rows in a batch": Bad(lambda s, p: fit(s, batch_size=0), "batch_size"),
    "a metric that there is not": Bad(
        lambda s, p: Estimator.from_keras(model(), metrics=["acuracy"]), "acuracy"
    ),
    "a number for a metric": Bad(lambda s, p: Estimator.from_keras(model(), metrics=[5]), "metric"),
    "a number for a callback": Bad(lambda s, p: fit(s, callbacks=[5]), "callback"),
    "BackupAndRestore": Bad(
        lambda s, p: fit(s, callbacks=[keras.callbacks.BackupAndRestore(str(p / "b"))]), "model_dir"
    ),
    # Columns.
    "no features named": Bad(lambda s, p: fit(s, feature_cols=None), "feature"),
    "no labels named": Bad(lambda s, p: fit(s, label_cols=None), "label"),
    "a column that there is not": Bad(lambda s, p: fit(s, feature_cols=["a", "c"]), "'c'"),
    "one column for two inputs": Bad(
        lambda s, p: fit(s, two_inputs(), feature_cols=["a"]), "input"
    ),
    "three columns for two inputs": Bad(
        lambda s, p: fit(s, two_inputs(), feature_cols=["a", "b", "y"]), "input"
    ),
    "columns for a wider input": Bad(lambda s, p: fit(s, model(3)), "3"),
    "text for numbers": Bad(
        lambda s, p: fit(s, None, "string(id) a", "1d b", "1d y"), "'a'|text|string"
    ),
    "texts as labels": Bad(lambda s, p: fit(s, None, "1d a", "1d b", "string(id) y"), "'y'"),
    "classes that are no whole numbers": Bad(
        lambda s, p: fit(s, model(2, 9, CLASSES), "1d a", "1d b", "id + 0.5D y"), "whole|0.5"
    ),
    "a null": Bad(lambda s, p: fit(s, None, "nullif(id, 3) * 1d a", "1d b", "1d y"), "'a'.*null"),
    "no rows": Bad(
        lambda s, p: Estimator.from_keras(model()).fit(frame(s).where("a < 0"), **COLUMNS), "rows"
    ),
    "a weight below zero": Bad(
        lambda s, p: fit(s, None, "1d a", "1d b", "1d y", "-1d w", sample_weight_col="w"), "'w'"
    ),
    "class weights as a list": Bad(lambda s, p: fit(s, class_weight=[1, 2]), "class_weight"),
    "arrays": Bad(
        lambda s, p: Estimator.from_keras(model()).fit(np.ones((4, 2)), **COLUMNS), "ndarray"
    ),
    "validation of another kind": Bad(
        lambda s, p: fit(s, validation_data=pd.DataFrame({"a": [1.0], "b": [1.0], "y": [1.0]})),
        "both|kind",
    ),
    "predict without a column": Bad(
        lambda s, p: Estimator.from_keras(model()).predict(
            frame(s, "1d a"), feature_cols=["a", "b"]
        ),
        "'b'",
    ),
    "predict with a wider input": Bad(
        lambda s, p: Estimator.from_keras(model(3)).predict(frame(s), feature_cols=["a", "b"]), "3"
    ),
    # Files.
    "a file that is not there": Bad(lambda s, p: trained(s).load(str(p / "none")), "none"),
    "a file of something else": Bad(
        lambda s, p: trained(s).load(written(p / "x.keras")), "save\\(\\)"
    ),
    "weights of something else": Bad(
        lambda s, p: trained(s).load(written(p / "x.weights.h5")), "weights|h5|HDF5"
    ),
    "weights of another model": Bad(
        lambda s, p: trained(s).load(other_weights(p)), "shape|weights"
    ),
    "a folder": Bad(lambda s, p: trained(s).load(str(p)), "folder|SavedModel"),
    "by name": Bad(lambda s, p: trained(s).load_keras_weights("x.h5", by_name=True), "by_name"),
    "a file that is there": Bad(
        lambda s, p: trained(s).save_keras_model(written(p / "m.keras"), overwrite=False),
        "overwrite",
    ),
}


@pytest.mark.spark
@pytest.mark.parametrize("name", BAD)
def test_one_clear_error(name: str, spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=BAD[name].says) as caught:  # noqa: PT011 - its kind below
        BAD[name].run(spark, tmp_path)
    assert isinstance(caught.value, ZooError | FileNotFoundError), repr(caught.value)
    assert isinstance(caught.value, ZooError) or name == "a file that is not there"
