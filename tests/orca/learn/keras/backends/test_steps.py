"""Steps on the backend of this process: what Keras's own trainer does, to the last digits.

`test_torch.py` and `test_jax.py` run this file again, in a process that has that backend.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from zoo.orca.learn.framework import Place
from zoo.orca.learn.keras.backends import backend_for
from zoo.orca.learn.keras.built import Built, step_seeds
from zoo.orca.learn.keras.learner import KerasLearner
from zoo.orca.learn.keras.metrics import running_metrics
from zoo.orca.learn.keras.preparing import prepare
from zoo.orca.learn.keras.recipe import Recipe
from zoo.orca.learn.rank.array_batches import Batch
from zoo.orca.learn.steps import GradientLimits, StepSums

if keras.backend.backend() != "tensorflow":
    pytestmark = pytest.mark.slow  # in a process of its own; JAX compiles for long

RNG = np.random.default_rng(7)
X = RNG.normal(size=(48, 3)).astype("float32")
Y = RNG.integers(0, 2, (48, 1)).astype("float32")
IDS = RNG.permutation(48)[:, None]
"""All different: of ids that repeat, Keras's optimizers on TensorFlow square each gradient."""


def network(dropout: float = 0.0) -> keras.Model:
    """Two inputs, moving statistics, penalties of weights and of activities."""
    keras.utils.set_random_seed(3)
    numbers, ids = layers.Input((3,)), layers.Input((1,), dtype="int32")
    hidden = layers.Dense(4, use_bias=False, kernel_regularizer="l2")(numbers)
    hidden = layers.BatchNormalization(momentum=0.8)(hidden)
    hidden = layers.ActivityRegularization(l2=0.01)(hidden)
    hidden = layers.Concatenate()([hidden, layers.Flatten()(layers.Embedding(48, 2)(ids))])
    outputs = layers.Dense(1, "sigmoid")(layers.Dropout(dropout)(hidden))
    model = keras.Model([numbers, ids], outputs)
    rate = keras.optimizers.schedules.ExponentialDecay(0.05, 2, 0.9)
    model.compile(
        optimizer=keras.optimizers.Adam(rate), loss="binary_crossentropy", metrics=["AUC"]
    )
    return model


def batch(low: int, high: int, weights: Any = None) -> Batch:
    rows = slice(low, high)
    return Batch((X[rows], IDS[rows]), (Y[rows],), high - low, weights)


def stepping(
    model: keras.Model, limits: GradientLimits | None = None
) -> tuple[Any, Any, np.ndarray]:
    built = Built(model, Recipe(model=model))
    metrics = running_metrics(None, model)
    built.weigh()
    prepare(built, metrics, batch(0, 2))
    return backend_for(built, metrics, limits), metrics, step_seeds(1, 2, 0, len(built.seeds()))


def values(model: keras.Model) -> list[np.ndarray]:
    return [np.array(v.numpy()) for v in (*model.weights, *model.optimizer.variables)]


def assert_same(model: keras.Model, other: keras.Model, tolerance: float = 1e-6) -> None:
    for one, two in zip(values(model), values(other), strict=True):
        np.testing.assert_allclose(one, two, rtol=tolerance, atol=tolerance)


def test_steps_scores_and_outputs_are_those_of_keras() -> None:
    model, plain = network(), network()
    backend, metrics, seeds = stepping(model)
    losses = []
    for low, high in ((0, 16), (16, 32), (32, 41)):
        found = backend.backward(batch(low, high), seeds)
        backend.update(found.gradients)
        losses.append(found.loss)
        plain.reset_metrics()
        expected = plain.train_on_batch([X[low:high], IDS[low:high]], Y[low:high])
        assert found.loss == pytest.approx(float(expected[0]), rel=1e-5)
        assert metrics.values(metrics.take())["AUC"] == pytest.approx(float(expected[1]), abs=1e-6)
    assert_same(model, plain)
    loss, area = plain.evaluate([X, IDS], Y, batch_size=48, verbose=0)
    found = backend.score(batch(0, 48))
    assert found.loss == pytest.approx(loss, rel=1e-5)
    assert found.gradients == []
    assert metrics.values(metrics.take())["AUC"] == pytest.approx(area, abs=1e-6)
    outputs = backend.forward((X, IDS))
    np.testing.assert_allclose(outputs, plain.predict([X, IDS], verbose=0), rtol=1e-5)
    assert_same(model, plain)


def test_arrays_are_as_good_as_gradients_of_the_backend() -> None:
    model, other = network(), network()
    (first, _, seeds), (second, _, _) = stepping(model), stepping(other)
    for low in (0, 16):
        rows = slice(low, low + 16)
        repeated = Batch((X[rows], IDS[rows] // 16), (Y[rows],), 16)
        one, two = (s.backward(repeated, seeds) for s in (first, second))
        first.update(one.gradients)
        second.update([np.array(second.numbers(g)) for g in two.gradients])
    assert_same(model, other, 0.0)


def test_gradients_are_limited() -> None:
    for limits in (GradientLimits(norm=0.01), GradientLimits(low=-1e-3, high=2e-3)):
        model, other = network(), network()
        (first, _, seeds), (second, _, _) = stepping(model, limits), stepping(other)
        first.update(first.backward(batch(0, 16), seeds).gradients)
        found = [
            np.array(second.numbers(g)) for g in second.backward(batch(0, 16), seeds).gradients
        ]
        if limits.norm:
            length = np.sqrt(sum(np.square(g).sum() for g in found))
            found = [g * np.float32(min(1.0, limits.norm / length)) for g in found]
        else:
            found = [g.clip(limits.low, limits.high) for g in found]
        second.update(found)
        assert_same(model, other, 1e-4)


def test_dropout_follows_the_seeds_of_the_step_alone() -> None:
    model = network(dropout=0.5)
    backend, _, seeds = stepping(model)

    def loss(rows: Batch, chosen: np.ndarray) -> float:
        return float(backend.backward(rows, chosen).loss)

    first = loss(batch(0, 16), seeds)
    others = {loss(batch(0, 16), step_seeds(1, k, 0, len(seeds))) for k in range(3, 8)}
    assert len({first, *others}) == 6
    assert loss(batch(0, 16), seeds) == first
    # In another model of the same weights, after another number of steps.
    again, _, _ = stepping(network(dropout=0.5))
    assert float(again.backward(batch(0, 16), seeds).loss) == pytest.approx(first, rel=1e-6)


def test_weights_of_rows_count_in_the_loss() -> None:
    weights = np.where(Y[:16, 0] > 0, 3.0, 1.0).astype("float32")
    model = network()
    backend, _, seeds = stepping(model)
    penalty = float(sum(np.asarray(keras.ops.convert_to_numpy(p)) for p in _penalties(model)))
    outputs = model([X[:16], IDS[:16]], training=True)
    losses = keras.losses.binary_crossentropy(Y[:16], outputs)
    rows = np.asarray(keras.ops.convert_to_numpy(losses)).ravel()
    found = backend.backward(batch(0, 16, weights), seeds).loss
    plain = backend.backward(batch(0, 16), seeds).loss
    expected = (rows * weights).sum() / weights.sum() - rows.mean()
    assert found - plain == pytest.approx(expected, rel=1e-3)
    assert penalty > 0


def _penalties(model: keras.Model) -> list[Any]:
    model([X[:16], IDS[:16]], training=True)
    return model.losses


def learner(model: keras.Model, place: Place) -> tuple[keras.Model, KerasLearner]:
    built = Built(model, Recipe(model=model))
    built.ready()
    return model, KerasLearner(built, place, batch(0, 2), seed=5, until=9)


def trained(make: Callable[[], keras.Model], parts: list[list[tuple[int, int]]]) -> list[Any]:
    """Models of ranks after steps, each of which has rows for each rank, perhaps none."""
    ranks = len(parts[0])
    made = [learner(make(), Place(k, ranks)) for k in range(ranks)]
    for iteration, rows in enumerate(parts):
        sums = [StepSums() for _ in made]
        for k, (_, one) in enumerate(made):
            one.begin_step(iteration)
            low, high = rows[k]
            one.backward(batch(low, high) if high > low else None, sums[k])
        for arrays in zip(*(one.buffers() for _, one in made), strict=True):
            total = np.sum(arrays, axis=0)
            for array in arrays:
                array[:] = total
        whole = np.sum([s.array for s in sums], axis=0)
        for k, (_, one) in enumerate(made):
            sums[k].array[:] = whole
            one.update(sums[k])
    return [model for model, _ in made]


def test_moving_means_are_equal_on_all_ranks_and_have_moved() -> None:
    # keras-team/keras#20378 tells of averages that stay at their start.
    parts = [[(0, 7), (7, 16)], [(16, 32), (32, 32)], [(32, 33), (33, 48)]]
    one, other = trained(lambda: network(dropout=0.5), parts)
    for first, second in zip(values(one), values(other), strict=True):
        np.testing.assert_array_equal(first, second)
    start = network()
    moved = [np.abs(a.numpy() - b.numpy()).max() for a, b in zip(
        one.non_trainable_weights, start.non_trainable_weights, strict=True
    )]  # fmt: skip
    assert min(moved) > 1e-3


def linear() -> keras.Model:
    """Without statistics of the rows that a rank has."""
    keras.utils.set_random_seed(4)
    numbers, ids = layers.Input((3,)), layers.Input((1,), dtype="int32")
    both = layers.Concatenate()([numbers, layers.Flatten()(layers.Embedding(48, 2)(ids))])
    model = keras.Model([numbers, ids], layers.Dense(1, kernel_regularizer="l2")(both))
    model.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9), loss="mse")
    return model


def test_two_ranks_are_as_one_and_as_keras() -> None:
    one, other = trained(linear, [[(0, 7), (7, 16)], [(16, 32), (32, 32)], [(32, 33), (33, 48)]])
    (alone,) = trained(linear, [[(0, 16)], [(16, 32)], [(32, 48)]])
    plain = linear()
    for low in (0, 16, 32):
        plain.train_on_batch([X[low : low + 16], IDS[low : low + 16]], Y[low : low + 16])
    assert_same(alone, plain)
    assert_same(one, plain)
    assert_same(one, other, 0.0)
