"""Orca's optimizers move the weights of a graph as they move those of torch."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import torch

from small_graph import batches, net, recipe_of, steps
from zoo.errors import InputError, NotYetError
from zoo.orca.learn import optimizers as orca
from zoo.orca.learn.optimizers import schedule
from zoo.orca.learn.pytorch.orca_optimizer import torch_optimizer, torch_schedule

GIVEN = batches(5)
WARM = schedule.SequentialSchedule(2).add(schedule.Warmup(0.01), 2).add(schedule.Poly(2, 4), 4)
EVERY = {
    "sgd": orca.SGD(0.1, weightdecay=0.01, learningrate_decay=0.1),
    "momentum": orca.SGD(0.1, momentum=0.9),
    "nesterov": orca.SGD(0.05, momentum=0.9, dampening=0.0, nesterov=True),
    "schedule": orca.SGD(0.1, learningrate_schedule=WARM),
    "adam": orca.Adam(0.05, learningrate_decay=0.2),
    "adamax": orca.Adamax(0.05),
    "adagrad": orca.Adagrad(0.1, weightdecay=0.01),
    "adadelta": orca.Adadelta(),
    "rmsprop": orca.RMSprop(0.01),
    "ftrl": orca.Ftrl(
        0.1,
        l1_regularization_strength=0.05,
        l2_regularization_strength=0.01,
        l2_shrinkage_regularization_strength=0.02,
    ),
}


def by_torch(spec: orca.Optimizer, first: dict[str, np.ndarray]) -> list[np.ndarray]:
    w, b, v = (torch.tensor(first[name], requires_grad=True) for name in "wbv")
    optimizer = torch_optimizer(spec, [w, b, v])
    rates = torch_schedule(spec, optimizer)
    for x, y in GIVEN:
        optimizer.zero_grad()
        output = (torch.tanh(torch.tensor(x) @ w + b) @ v)[:, 0]
        ((output - torch.tensor(y)) ** 2).mean().backward()
        optimizer.step()
        if rates is not None:
            rates.step()
    return [w.detach().numpy(), b.detach().numpy(), v.detach().numpy()]


@pytest.mark.parametrize("name", EVERY)
def test_the_same_steps_as_with_torch(name: str) -> None:
    here, spec = net(), EVERY[name]
    with here.graph.as_default():
        recipe = recipe_of(here, tf.reduce_mean(here.losses), spec)
    expected = by_torch(spec, dict(recipe.values))
    for ranks in (1, 2):
        found = steps(recipe, GIVEN, ranks, adds_up="mean")[-1]
        for letter, value in zip("wbv", expected, strict=True):
            np.testing.assert_allclose(found[letter], value, rtol=1e-9, atol=1e-12)


def test_a_gradient_of_zero_moves_nothing() -> None:
    here = net()
    for spec in (orca.Adamax(), orca.Adam(), orca.Adagrad(), orca.Adadelta(), orca.RMSprop()):
        with here.graph.as_default():
            recipe = recipe_of(here, tf.reduce_mean(here.losses) * 0.0, spec)
        found = steps(recipe, GIVEN, adds_up="mean")[0]
        np.testing.assert_array_equal(found["w"], recipe.values["w"])


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        (orca.LBFGS(), NotYetError),
        (orca.SGD(learningrates=[0.1]), NotYetError),
        (orca.Optimizer(), InputError),
    ],
)
def test_what_a_graph_cannot_do_is_said(spec: orca.Optimizer, error: type[Exception]) -> None:
    here = net()
    with here.graph.as_default(), pytest.raises(error, match="Use"):
        recipe_of(here, tf.reduce_mean(here.losses), spec)
