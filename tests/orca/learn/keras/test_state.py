"""States of Keras models: written, read, refused."""

import io
import json
import logging
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from orca.learn.keras.local_ranks import LocalRanks, batch_of
from zoo.errors import InputError
from zoo.orca.learn.framework import framework_for
from zoo.orca.learn.keras.built import Built
from zoo.orca.learn.keras.recipe import Recipe
from zoo.orca.learn.keras.state import apply_state, read_state, write_state
from zoo.orca.learn.steps import Position

DRAW = np.random.default_rng(3)
X, Y = DRAW.normal(size=(12, 4)).astype("float32"), DRAW.integers(0, 2, 12)


def make(hidden: int = 5, optimizer: Any = None) -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(hidden, "relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            layers.Dense(2, "softmax"),
        ]
    )
    schedule = keras.optimizers.schedules.ExponentialDecay(0.05, 2, 0.5)
    optimizer = optimizer or keras.optimizers.Adam(schedule)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def built(model: keras.Model) -> Built:
    made: Built = framework_for(f"keras-{keras.backend.backend()}").build(Recipe(model=model))
    return made


def blob(of: Built, step: int = 0) -> bytes:
    file = io.BytesIO(b"x" * 10_000_000)
    write_state(file, of, Position(1, step, 9), {"a": [1.5]})
    return file.getvalue()


def test_training_goes_on_as_if_it_had_not_been_broken_off() -> None:
    example = batch_of(X[:2], Y[:2])
    assert example is not None
    model = make()
    whole, first = LocalRanks(model, 1, example), LocalRanks(model, 1, example)
    for _ in range(4):
        whole.step([batch_of(X, Y)])
    for _ in range(2):
        first.step([batch_of(X, Y)])
    state = read_state(blob(first.built[0], step=2))
    assert state.extras == {"a": [1.5]}
    second = LocalRanks(make(), 1, example)
    assert apply_state(second.built[0], state) == Position(1, 2, 9)
    again = type(second.learners[0])(
        second.built[0], second.learners[0]._place, example, seed=0, until=9
    )
    again.begin_epoch(1)
    second.learners, second.iteration = [again], 2
    for _ in range(2):
        second.step([batch_of(X, Y)])
    for one, other in zip(whole.weights(), second.weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert whole.built[0].learning_rate == second.built[0].learning_rate
    total = whole.learners[0]._running()
    assert again._running() == pytest.approx(total)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (lambda: make(6), "in the place of"),
        (lambda: keras.Sequential([keras.Input((4,)), layers.Dense(1)]), "weights, where there"),
        (lambda: make(optimizer=keras.optimizers.SGD(0.1)), "saved with the optimizer SGD"),
    ],
    ids=["shapes", "layers", "optimizer"],
)
def test_state_of_another_model_changes_nothing(other: Any, said: str) -> None:
    mine = built(other())
    before = mine.model.get_weights()
    with pytest.raises(InputError, match=said):
        apply_state(mine, read_state(blob(built(make()))))
    for one, two in zip(before, mine.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_what_is_no_state_is_refused() -> None:
    for bad in (b"", b"PK\x03\x04 no", blob(built(make()))[:2000]):
        with pytest.raises(InputError, match="written by save"):
            read_state(bad)


@pytest.mark.parametrize("name", ["whole.keras", "some.weights.h5", "old.h5"])
def test_weights_that_keras_wrote_are_taken(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = make()
    path = tmp_path / name
    save = model.save_weights if "weights" in name else model.save
    save(path)
    mine = built(make())
    with caplog.at_level(logging.WARNING):
        apply_state(mine, read_state(path.read_bytes()))
    assert "Adam begins anew" in caplog.text
    for one, two in zip(model.get_weights(), mine.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_weights_of_another_model_are_refused_whole(tmp_path: Path) -> None:
    make(6).save_weights(tmp_path / "a.weights.h5")
    mine = built(make())
    before = mine.model.get_weights()
    with pytest.raises(InputError, match="with the weights of this model"):
        apply_state(mine, read_state((tmp_path / "a.weights.h5").read_bytes()))
    for one, two in zip(before, mine.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_file_of_keras_without_weights_is_told() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "2.15.0"}))
    with pytest.raises(InputError, match=r"Keras 2\.15\.0 without"):
        read_state(file.getvalue())


def test_model_without_input_layers_is_built_by_the_state() -> None:
    def late() -> keras.Model:
        model = keras.Sequential([layers.Dense(3), layers.Dense(1)])
        model.compile("adam", "mse")
        return model

    mine = built(late())
    assert not mine.ready()
    assert mine.ready([("float32", [4])])
    other = built(late())
    apply_state(other, read_state(blob(mine)))
    for one, two in zip(mine.model.get_weights(), other.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
