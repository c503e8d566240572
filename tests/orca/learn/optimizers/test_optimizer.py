"""Settings of optimizers: order, defaults, checks, and what they need to be loaded."""

import inspect
import pickle
import subprocess
import sys
from typing import Any

import pytest

from zoo.errors import InputError
from zoo.orca.learn.optimizers import (
    LBFGS,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    Ftrl,
    Optimizer,
    ParallelAdam,
    RMSprop,
    is_orca_optimizer,
)
from zoo.orca.learn.optimizers.schedule import Default, Poly, SequentialSchedule, Step, Warmup

MAX = sys.float_info.max
ADAM = {
    "learningrate": 1e-3,
    "learningrate_decay": 0.0,
    "beta1": 0.9,
    "beta2": 0.999,
    "epsilon": 1e-8,
}
SIGNATURES: dict[type[Optimizer], dict[str, Any]] = {
    SGD: {
        "learningrate": 1e-3,
        "learningrate_decay": 0.0,
        "weightdecay": 0.0,
        "momentum": 0.0,
        "dampening": MAX,
        "nesterov": False,
        "learningrate_schedule": None,
        "learningrates": None,
        "weightdecays": None,
    },
    Adagrad: {"learningrate": 1e-3, "learningrate_decay": 0.0, "weightdecay": 0.0},
    Adam: ADAM,
    ParallelAdam: {**ADAM, "parallel_num": -1},
    Adamax: {"learningrate": 0.002, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-38},
    Adadelta: {"decayrate": 0.9, "epsilon": 1e-10},
    RMSprop: {
        "learningrate": 1e-2,
        "learningrate_decay": 0.0,
        "decayrate": 0.99,
        "epsilon": 1e-8,
    },
    Ftrl: {
        "learningrate": 1e-3,
        "learningrate_power": -0.5,
        "initial_accumulator_value": 0.1,
        "l1_regularization_strength": 0.0,
        "l2_regularization_strength": 0.0,
        "l2_shrinkage_regularization_strength": 0.0,
    },
    LBFGS: {
        "max_iter": 20,
        "max_eval": MAX,
        "tolfun": 1e-5,
        "tolx": 1e-9,
        "ncorrection": 100,
        "learningrate": 1.0,
        "verbose": False,
        "linesearch": None,
        "linesearch_options": None,
    },
}


@pytest.mark.parametrize("kind", SIGNATURES, ids=lambda kind: kind.__name__)
def test_arguments_are_those_of_existing_programs(kind: type[Optimizer]) -> None:
    parameters = inspect.signature(kind).parameters
    assert [(p.name, p.default) for p in parameters.values()] == [*SIGNATURES[kind].items()]


@pytest.mark.parametrize("kind", SIGNATURES, ids=lambda kind: kind.__name__)
def test_settings_travel(kind: type[Optimizer]) -> None:
    made = kind()
    assert pickle.loads(pickle.dumps(made)) == made
    assert made.get_optimizer() is made
    assert is_orca_optimizer(made)


@pytest.mark.parametrize("value", [None, "adam", Adam, Step(1, 0.5)])
def test_what_is_no_optimizer(value: object) -> None:
    assert not is_orca_optimizer(value)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (SGD, {"learningrate": -1.0}),
        (SGD, {"momentum": float("nan")}),
        (SGD, {"weightdecay": "0.1"}),
        (SGD, {"learningrate_schedule": 0.5}),
        (Adam, {"beta1": 1.0}),
        (ParallelAdam, {"beta2": -0.1}),
        (Adagrad, {"learningrate_decay": -1e-3}),
        (Adamax, {"epsilon": float("inf")}),
        (Adadelta, {"decayrate": 1.5}),
        (RMSprop, {"decayrate": None}),
        (Ftrl, {"learningrate": 0.0}),
        (Ftrl, {"learningrate_power": 0.5}),
        (Ftrl, {"l1_regularization_strength": -0.1}),
    ],
)
def test_unusable_settings_are_named(kind: type[Optimizer], settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{kind.__name__}\\({next(iter(settings))}=...\\)"):
        kind(**settings)


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9}, {"dampening": 0.0}])
def test_nesterov_without_what_it_needs(settings: dict[str, float]) -> None:
    message = "Nesterov momentum requires a momentum and zero dampening"
    with pytest.raises(InputError, match=message):
        SGD(nesterov=True, **settings)


def test_dampening_is_the_momentum_by_default() -> None:
    assert SGD(momentum=0.9).effective_dampening == 0.9
    assert SGD(momentum=0.9, dampening=0.0).effective_dampening == 0.0
    assert SGD(momentum=0.9, dampening=0.0, nesterov=True).nesterov


def test_constant_rates_have_no_schedule() -> None:
    assert [kind().rate_schedule() for kind in SIGNATURES] == [None] * len(SIGNATURES)


@pytest.mark.parametrize("kind", [SGD, Adagrad, Adam, ParallelAdam, RMSprop])
def test_decay_is_a_schedule(kind: type[Any]) -> None:
    assert kind(learningrate_decay=0.5).rate_schedule() == Default(0.5)


def test_schedules_win_over_decay_but_for_default() -> None:
    poly = Poly(2, 10)
    assert SGD(learningrate_decay=0.5, learningrate_schedule=poly).rate_schedule() is poly
    made = SGD(learningrate_decay=0.5, learningrate_schedule=Default()).rate_schedule()
    assert made == Default(0.5)


def test_default_inside_a_sequence_takes_the_decay() -> None:
    given = SequentialSchedule(1).add(Warmup(1.0), 2).add(Default(), 8)
    made = SGD(learningrate_decay=0.5, learningrate_schedule=given).rate_schedule()
    assert made is not None
    assert [made.rate(i, 1.0) for i in range(5)] == [1.0, 2.0, 3.0, 3.0 / 1.5, 3.0 / 2.0]
    assert given.rate(4, 1.0) == 3.0


def test_import_loads_no_framework() -> None:
    program = (
        "import sys, zoo.orca.learn.optimizers, zoo.orca.learn.optimizers.schedule\n"
        "print({'torch', 'tensorflow', 'keras', 'pyspark'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
