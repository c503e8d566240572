"""Models that are taken apart and put together again, in a process that knows nothing of them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from pyspark import cloudpickle

from zoo.cluster.ranks.carried import pickled
from zoo.errors import InputError
from zoo.orca.learn.keras.parts import assemble, require_sendable, take_apart

# The other process cannot import a test module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

FACTOR = 3.0
X = np.random.default_rng(1).normal(size=(6, 4)).astype("float32")


class Scaled(layers.Layer):
    def __init__(self, factor: float = 2.0, **given: Any) -> None:
        super().__init__(**given)
        self.factor = factor

    def call(self, x: Any) -> Any:
        return self.factor * x

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "factor": self.factor}


@keras.saving.register_keras_serializable(package="tests")
class Registered(Scaled):
    pass


class Forgetful(Scaled):
    def get_config(self) -> dict[str, Any]:
        return layers.Layer.get_config(self)


class Cubic(keras.losses.Loss):
    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.mean(ops.abs(y_true - y_pred) ** FACTOR, axis=-1)


class Halving(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step: Any) -> Any:
        return 0.1 / (1.0 + ops.cast(step, "float32"))

    def get_config(self) -> dict[str, Any]:
        return {}


def gentle(x: Any) -> Any:
    return ops.tanh(x / FACTOR)


def with_everything() -> keras.Model:
    shift = 0.5
    model = keras.Sequential(
        [
            keras.Input((4,)),
            Scaled(1.5),
            Registered(0.5),
            layers.Dense(3, activation=gentle),
            layers.Lambda(lambda x: x * FACTOR + shift),
            layers.Dropout(0.2, seed=1),
            layers.Dense(1, kernel_regularizer=keras.regularizers.L2(0.1)),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(Halving()),
        loss=Cubic(),
        metrics=["mae", lambda y, p: ops.mean(ops.abs(y - p), axis=-1)],
    )
    return model


OPENS = """
import pickle, sys
from zoo.orca.learn.keras.process import use_backend
use_backend(sys.argv[2])
parts, weights, x = pickle.load(open(sys.argv[1], "rb"))
from zoo.orca.learn.keras.parts import assemble
model = assemble(parts)
model.set_weights(weights)
print(repr(float(model.evaluate(x, x[:, :1], verbose=0, return_dict=True)["loss"])))
print(repr(float(model.predict(x, verbose=0).sum())), float(model.optimizer.learning_rate))
"""


@pytest.mark.slow
def test_classes_functions_and_lambdas_travel(tmp_path: Path) -> None:
    model = with_everything()
    file = tmp_path / "parts"
    file.write_bytes(pickled((take_apart(model), model.get_weights(), X), "parts"))
    done = subprocess.run(
        [sys.executable, "-c", OPENS, str(file), keras.backend.backend()],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    loss, total, rate = map(float, done.stdout.split()[-3:])
    expected = model.evaluate(X, X[:, :1], verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(expected, rel=1e-5)
    assert total == pytest.approx(float(model.predict(X, verbose=0).sum()), rel=1e-4)
    assert rate == pytest.approx(0.1)


def test_model_can_be_sent_and_keeps_its_lambda() -> None:
    model = with_everything()
    require_sendable(model)
    assert model.layers[3].function.__name__ == "<lambda>"


def test_types_of_losses_travel() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1)])
    model.compile("sgd", keras.losses.MeanSquaredError(dtype="float64"))
    assert assemble(take_apart(model)).loss.dtype == "float64"


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="text is TensorFlow's")
def test_vocabularies_travel() -> None:
    lookup = layers.StringLookup()
    lookup.adapt(np.array(["a", "b", "b"]))
    inputs = keras.Input((1,), dtype="string")
    model = keras.Model(inputs, layers.Embedding(4, 2)(lookup(inputs)))
    again = assemble(take_apart(model))
    assert again.layers[1].get_vocabulary() == ["[UNK]", "b", "a"]


class NoConfig(keras.Model):
    def __init__(self, hidden: Any) -> None:
        super().__init__()
        self.hidden = layers.Dense(hidden.size)

    def call(self, x: Any) -> Any:
        return self.hidden(x)


def no_config() -> keras.Model:
    model = NoConfig(np.zeros(3))
    model(X)
    return model


def forgetful() -> keras.Model:
    return keras.Sequential([keras.Input((4,)), Forgetful(3.0), layers.Dense(1)])


def same_names() -> keras.Model:
    other = type("Scaled", (Scaled,), {"__module__": __name__})
    return keras.Sequential([keras.Input((4,)), Scaled(), other(), layers.Dense(1)])


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (no_config, "model_creator"),
        (forgetful, "Forgetful, whose factor would be lost"),
        (same_names, "two that are called 'Scaled'"),
    ],
)
def test_what_cannot_be_made_again_is_refused(make: Callable[[], keras.Model], said: str) -> None:
    with pytest.raises(InputError, match=said):
        require_sendable(make())
