"""Steps of Keras models: those of plain Keras on the whole batch, however many ranks share it."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from orca.learn.keras.local_ranks import LocalRanks, batch_of
from zoo.errors import InputError
from zoo.orca.learn.steps import GradientLimits

ROWS, CUTS = 24, (0, 5, 5, 24)
PARTS = [slice(a, b) for a, b in zip(CUTS[:-1], CUTS[1:], strict=True)]
DRAW = np.random.default_rng(5)
X = DRAW.normal(size=(ROWS, 4))
CLASSES = DRAW.integers(0, 3, ROWS)
REAL = DRAW.normal(size=ROWS)
TOKENS = DRAW.integers(0, 6, (ROWS, 5)) * (np.arange(5) < DRAW.integers(1, 6, (ROWS, 1)))
TAGS = DRAW.integers(0, 3, (ROWS, 5))


def dense(
    loss: Any, outputs: int = 1, activation: str | None = None, dtype: str = "float64", **given: Any
) -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((4,), dtype=dtype),
            layers.Dense(5, "tanh", dtype=dtype, **given),
            layers.Dense(outputs, activation, dtype=dtype),
        ]
    )
    model.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.9), loss=loss)
    return model


def tagger(loss: Any = None, optimizer: Any = None) -> keras.Model:
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="int64"),
            layers.Embedding(6, 3, mask_zero=True, dtype="float64"),
            layers.Dense(3, "softmax", dtype="float64"),
        ]
    )
    loss = loss or keras.losses.SparseCategoricalCrossentropy(dtype="float64")
    model.compile(optimizer=optimizer or keras.optimizers.SGD(0.1), loss=loss)
    return model


def own_loss(y_true: Any, y_pred: Any) -> Any:
    return ops.mean(ops.square(y_true - y_pred))


class Own(keras.losses.Loss):
    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.mean(ops.abs(y_true - y_pred) ** 3, axis=-1)


class DenseAdam(keras.optimizers.Adam):
    """With one gradient for each row of an embedding, however often a batch has looked it up.

    Plain Keras on TensorFlow squares what each look-up gives, other backends square their sum.
    """

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        dense = [
            ops.add(ops.zeros(v.shape, v.dtype), g)
            for g, v in zip(grads, trainable_variables, strict=True)
        ]
        super().apply(dense, trainable_variables)


MSE = keras.losses.MeanSquaredError(dtype="float64")
CROSS = keras.losses.SparseCategoricalCrossentropy(dtype="float64")
IGNORE = keras.losses.SparseCategoricalCrossentropy(ignore_class=1, dtype="float64")
CASES: dict[str, tuple[Any, Any, Any]] = {
    "mean": (lambda: dense(MSE), X, REAL[:, None]),
    "classes": (lambda: dense(CROSS, 3, "softmax"), X, CLASSES),
    "class to ignore": (lambda: dense(IGNORE, 3, "softmax"), X, CLASSES),
    "own class": (lambda: dense(Own(dtype="float64")), X, REAL[:, None]),
    "penalty": (lambda: dense("mse", dtype="float32", kernel_regularizer="l2"), X, REAL[:, None]),
    "activity": (
        lambda: dense("mse", dtype="float32", activity_regularizer="l2"), X, REAL[:, None],
    ),
    "sum": (
        lambda: dense(keras.losses.MeanSquaredError(reduction="sum", dtype="float64")), X,
        REAL[:, None],
    ),
    "mask": (tagger, TOKENS, TAGS),
    "mask, adam": (lambda: tagger(optimizer=DenseAdam(0.1)), TOKENS, TAGS),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_ranks_take_the_steps_of_plain_keras(case: str) -> None:
    make, x, y = CASES[case]
    tolerance = 1e-5 if case in ("penalty", "activity") else 1e-9
    keras.utils.set_random_seed(1)
    plain = make()
    example = batch_of(x[:2], y[:2])
    assert example is not None
    alone, three = LocalRanks(plain, 1, example), LocalRanks(plain, 3, example)
    for _ in range(4):
        expected = plain.train_on_batch(x, y, return_dict=True)["loss"]
        one = alone.step([batch_of(x, y)])
        several = three.step([batch_of(x, y, part) for part in PARTS])
        divisor = ROWS if case == "sum" else 1
        plain.reset_metrics()
        assert one.loss == pytest.approx(expected / divisor, rel=1e-6)
        assert several.loss == pytest.approx(expected / divisor, rel=1e-6)
    for mine, ours, its in zip(alone.weights(), three.weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(mine, its, rtol=tolerance, atol=tolerance / 1e3)
        np.testing.assert_allclose(ours, its, rtol=tolerance, atol=tolerance / 1e3)


def test_weights_of_rows_divide_by_what_they_weigh() -> None:
    weights = DRAW.uniform(0.1, 3, ROWS)
    weights[:5] = 0.0
    keras.utils.set_random_seed(1)
    plain = dense(MSE)
    y = REAL[:, None]
    example = batch_of(X[:2], y[:2], weights=np.ones(2))
    assert example is not None
    ranks = LocalRanks(plain, 3, example)
    sums = ranks.step([batch_of(X, y, part, weights) for part in PARTS])
    scaled = weights / weights.mean()
    expected = plain.train_on_batch(X, y, sample_weight=scaled, return_dict=True)["loss"]
    assert sums.loss == pytest.approx(expected, rel=1e-6)
    for ours, its in zip(ranks.weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(ours, its, rtol=1e-9, atol=1e-12)


def test_weights_and_masks_count_what_is_valid() -> None:
    weights = DRAW.uniform(0.1, 3, ROWS)
    plain = tagger()
    example = batch_of(TOKENS[:2], TAGS[:2], weights=np.ones(2))
    assert example is not None
    ranks = LocalRanks(plain, 3, example)
    p = np.asarray(plain(TOKENS))
    each = -np.log(np.take_along_axis(p, TAGS[..., None], -1)[..., 0])
    valid = (TOKENS > 0) * weights[:, None]
    sums = ranks.step([batch_of(TOKENS, TAGS, part, weights) for part in PARTS])
    assert sums.loss == pytest.approx((each * valid).sum() / valid.sum(), rel=1e-6)
    assert sums.weight == pytest.approx(valid.sum())


def test_targets_in_one_dimension_meet_their_own_outputs() -> None:
    # Plain Keras compares each output (n, 1) with all targets (n,) here.
    plain = dense(own_loss)
    example = batch_of(X[:2], REAL[:2])
    assert example is not None
    ranks = LocalRanks(plain, 1, example)
    expected = np.mean((np.asarray(plain(X))[:, 0] - REAL) ** 2)
    assert ranks.step([batch_of(X, REAL)]).loss == pytest.approx(expected, rel=1e-6)


def test_loss_without_rows_cannot_be_weighed() -> None:
    example = batch_of(X[:2], REAL[:2], weights=np.ones(2))
    assert example is not None
    with pytest.raises(InputError, match="a loss that gives each row its own"):
        LocalRanks(dense(own_loss), 1, example)


def test_means_of_batch_norms_move_with_all_rows() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.BatchNormalization(), layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = X.astype("float32"), REAL[:, None].astype("float32")
    example = batch_of(x[:2], y[:2])
    assert example is not None
    ranks = LocalRanks(model, 3, example)
    ranks.step([batch_of(x, y, part) for part in PARTS])
    moved = ranks.built[1].model.layers[0].moving_mean.numpy()
    np.testing.assert_allclose(moved, 0.01 * x.mean(0), rtol=1e-5)
    ranks.weights()


def test_masks_of_dropout_are_those_of_the_step() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dropout(0.5, seed=3), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x, y = X.astype("float32"), REAL[:, None].astype("float32")
    example = batch_of(x[:2], y[:2])
    assert example is not None
    first, again, other = (LocalRanks(model, 1, example, seed=seed) for seed in (1, 1, 2))
    losses = [[ranks.step([batch_of(x, y)]).loss for _ in range(3)] for ranks in (first, again)]
    assert losses[0] == losses[1]
    assert len(set(losses[0])) == 3
    again.iteration = 1  # a step that is taken again
    assert again.step([batch_of(x, y)]).loss == losses[0][1]
    assert other.step([batch_of(x, y)]).loss != losses[0][0]


@pytest.mark.parametrize("limits", [GradientLimits(norm=0.01), GradientLimits(-0.001, 0.002)])
def test_limits_hold_for_the_gradients_of_the_step(limits: GradientLimits) -> None:
    model = dense(MSE)
    model.compile(optimizer=keras.optimizers.SGD(1.0), loss=MSE)
    y = REAL[:, None]
    example = batch_of(X[:2], y[:2])
    assert example is not None
    ranks = LocalRanks(model, 3, example, limits=limits)
    before = model.get_weights()
    ranks.step([batch_of(X, y, part) for part in PARTS])
    moved = [b - a for b, a in zip(before, ranks.weights(), strict=True)]
    if limits.norm is not None:
        length = np.sqrt(sum((m**2).sum() for m in moved))
        assert length == pytest.approx(0.01, rel=1e-3)
    else:
        assert min(m.min() for m in moved) == pytest.approx(-0.001)
        assert max(m.max() for m in moved) == pytest.approx(0.002)


def test_loss_scaling_of_half_precision_steps_together() -> None:
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(5, "tanh", dtype="mixed_float16"),
            layers.Dense(1, dtype="mixed_float16"),
        ]
    )
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
    model.compile(optimizer, "mse")
    x, y = X.astype("float32"), REAL[:, None].astype("float32")
    example = batch_of(x[:2], y[:2])
    assert example is not None
    ranks = LocalRanks(model, 3, example)
    for _ in range(3):
        ranks.step([batch_of(x, y, part) for part in PARTS])
        model.train_on_batch(x, y)
    for ours, its in zip(ranks.weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, its, rtol=2e-2, atol=2e-3)


def test_two_outputs_have_their_losses() -> None:
    inputs = keras.Input((4,))
    outputs = {
        "real": layers.Dense(1, name="real")(inputs),
        "kind": layers.Dense(3, "softmax", name="kind")(inputs),
    }
    model = keras.Model(inputs, outputs)
    losses = {"real": "mse", "kind": "sparse_categorical_crossentropy"}
    model.compile("sgd", losses, loss_weights={"real": 0.3, "kind": 2.0})
    x = X.astype("float32")
    y = (REAL[:, None].astype("float32"), CLASSES)
    example = batch_of(x[:2], tuple(part[:2] for part in y))
    assert example is not None
    ranks = LocalRanks(model, 3, example)
    for _ in range(3):
        sums = ranks.step([batch_of(x, y, part) for part in PARTS])
        named = {"real": y[0], "kind": y[1]}
        expected = model.train_on_batch(x, named, return_dict=True)["loss"]
        model.reset_metrics()
        assert sums.loss == pytest.approx(expected, rel=1e-5)
    for ours, its in zip(ranks.weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, its, rtol=1e-5, atol=1e-6)


def test_metrics_of_training_are_those_of_all_ranks() -> None:
    model = dense(CROSS, 3, "softmax")
    model.compile("sgd", CROSS, metrics=["accuracy"])
    example = batch_of(X[:2], CLASSES[:2])
    assert example is not None
    ranks, alone = LocalRanks(model, 3, example), LocalRanks(model, 1, example)
    for _ in range(3):
        ranks.step([batch_of(X, CLASSES, part) for part in PARTS])
        alone.step([batch_of(X, CLASSES)])
        told = model.train_on_batch(X, CLASSES, return_dict=True)
    for found in (ranks.learners[2], alone.learners[0]):
        values = found._metrics.values(np.array(found._running()))
        assert values["accuracy"] == pytest.approx(told["accuracy"])
