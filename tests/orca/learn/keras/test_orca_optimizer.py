"""Orca's optimizers as those of Keras move weights as those of torch do."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import torch

from zoo.errors import InputError, NotYetError
from zoo.orca.learn import optimizers as orca
from zoo.orca.learn.keras.orca_optimizer import keras_optimizer
from zoo.orca.learn.optimizers import schedule
from zoo.orca.learn.pytorch.orca_optimizer import torch_optimizer, torch_schedule

EVERY = {
    "sgd": orca.SGD(0.1, learningrate_decay=0.1),
    "nesterov": orca.SGD(0.05, momentum=0.9, dampening=0.0, nesterov=True),
    "adam": orca.Adam(0.05, learningrate_decay=0.2),
    "adamax": orca.Adamax(0.05),
    "adagrad": orca.Adagrad(0.1),
    "adadelta": orca.Adadelta(),
    "rmsprop": orca.RMSprop(0.01),
    "ftrl": orca.Ftrl(
        0.1,
        l1_regularization_strength=0.05,
        l2_regularization_strength=0.01,
        l2_shrinkage_regularization_strength=0.02,
    ),
}
STEPS, SIZE = 12, 40
NOT_YET = [
    orca.LBFGS(),
    orca.SGD(momentum=0.9),
    orca.SGD(weightdecay=0.1),
    orca.SGD(learningrates=[0.1]),
    orca.Adagrad(weightdecay=0.1),
    orca.SGD(learningrate_schedule=schedule.Poly(2, 4)),
]


def gradients(scale: float, dtype: str) -> list[np.ndarray]:
    """Of each step; some weights have none at first, or never."""
    draw = np.random.default_rng(3)
    found = draw.normal(size=(STEPS, SIZE)) * scale
    found[:, :5] = 0.0
    found[:4, 5:10] = 0.0
    return list(found.astype(dtype))


def by_torch(spec: orca.Optimizer, start: np.ndarray, given: list[np.ndarray]) -> np.ndarray:
    weights = torch.tensor(start, requires_grad=True)
    optimizer = torch_optimizer(spec, [weights])
    rates = torch_schedule(spec, optimizer)
    for gradient in given:
        weights.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        if rates is not None:
            rates.step()
    return weights.detach().numpy()


def by_keras(spec: orca.Optimizer, start: np.ndarray, given: list[np.ndarray]) -> np.ndarray:
    weights = keras.Variable(start, dtype=str(start.dtype))
    optimizer = keras_optimizer(spec)
    for gradient in given:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [weights])
    return np.asarray(weights.numpy())


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-8])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", EVERY)
def test_the_same_steps_as_with_torch(name: str, dtype: str, scale: float) -> None:
    start = np.random.default_rng(1).normal(size=SIZE).astype(dtype)
    given = gradients(scale, dtype)
    expected, found = by_torch(EVERY[name], start, given), by_keras(EVERY[name], start, given)
    near = 2e-5 if dtype == "float64" else 2e-4  # Keras has rates in single precision
    np.testing.assert_allclose(found - start, expected - start, rtol=near, atol=3e-3 * near)
    if name != "ftrl":  # its penalties move what has no gradient
        np.testing.assert_array_equal(found[:5], start[:5])


@pytest.mark.parametrize("spec", NOT_YET, ids=repr)
def test_what_keras_computes_in_another_way_is_refused(spec: orca.Optimizer) -> None:
    with pytest.raises(NotYetError, match="computes in the same way"):
        keras_optimizer(spec)


@pytest.mark.parametrize("wrong", ["no such", 3, object()])
def test_what_is_no_optimizer_is_refused(wrong: object) -> None:
    with pytest.raises(InputError, match="an optimizer of Keras"):
        keras_optimizer(wrong)
