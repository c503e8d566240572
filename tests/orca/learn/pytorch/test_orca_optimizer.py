"""Orca's optimizers and schedules in torch, against torch, Keras and formulas."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from zoo.errors import InputError, NotYetError
from zoo.orca.learn import optimizers as orca
from zoo.orca.learn.optimizers.schedule import (
    Default,
    Exponential,
    MultiStep,
    Plateau,
    Poly,
    Scheduler,
    SequentialSchedule,
    Step,
    Warmup,
)
from zoo.orca.learn.pytorch.orca_optimizer import Ftrl, torch_optimizer, torch_schedule

Make = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]


def fresh(dtype: torch.dtype = torch.float64) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(7)
    return [
        torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype))
        for shape in ((3, 2), (4,))
    ]


def set_gradients(parameters: list[torch.nn.Parameter], step: int) -> None:
    for k, parameter in enumerate(parameters):
        generator = torch.Generator().manual_seed(100 * step + k)
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.grad = noise.to(parameter.dtype) + parameter.detach() / 8


def train(make: Make, steps: int = 5) -> list[torch.Tensor]:
    parameters = fresh()
    optimizer = make(parameters)
    for step in range(steps):
        set_gradients(parameters, step)
        optimizer.step()
    return [p.detach() for p in parameters]


TWINS: list[tuple[orca.Optimizer, Make]] = [
    (orca.SGD(0.1, weightdecay=0.01), lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.01)),
    (orca.SGD(0.1, momentum=0.9), lambda p: torch.optim.SGD(p, 0.1, 0.9, dampening=0.9)),
    (
        orca.SGD(0.1, momentum=0.9, dampening=0.0, nesterov=True),
        lambda p: torch.optim.SGD(p, 0.1, 0.9, nesterov=True),
    ),
    (orca.Adagrad(0.1, 0, 0.1), lambda p: torch.optim.Adagrad(p, 0.1, weight_decay=0.1)),
    (
        orca.Adam(0.01, 0, 0.8, 0.9, 1e-3),
        lambda p: torch.optim.Adam(p, 0.01, (0.8, 0.9), 1e-3),
    ),
    (orca.ParallelAdam(), lambda p: torch.optim.Adam(p)),
    (orca.Adamax(), lambda p: torch.optim.Adamax(p, eps=1e-38)),
    (orca.Adadelta(0.8), lambda p: torch.optim.Adadelta(p, 1.0, 0.8, 1e-10)),
    (orca.RMSprop(0.1, 0, 0.9), lambda p: torch.optim.RMSprop(p, 0.1, 0.9)),
]


@pytest.mark.parametrize(("spec", "make"), TWINS, ids=lambda value: type(value).__name__)
def test_same_as_torch(spec: orca.Optimizer, make: Make) -> None:
    ours = train(lambda p: torch_optimizer(spec, p))
    for one, other in zip(ours, train(make), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", [orca.SGD, orca.Adagrad, orca.Adam, orca.RMSprop])
def test_decay_falls_with_every_update(kind: type[Any]) -> None:
    optimizer = torch_optimizer(kind(0.1, learningrate_decay=0.5), fresh())
    schedule = torch_schedule(kind(0.1, learningrate_decay=0.5), optimizer)
    assert schedule is not None
    rates = []
    for _ in range(3):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == [0.1, 0.1 / 1.5, 0.1 / 2.0]


def test_adagrad_decays_as_in_torch() -> None:
    def ours(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        spec = orca.Adagrad(0.1, learningrate_decay=0.5)
        optimizer = torch_optimizer(spec, parameters)
        schedule = torch_schedule(spec, optimizer)
        assert schedule is not None
        optimizer.register_step_post_hook(lambda *_: schedule.step())
        return optimizer

    twins = zip(train(ours), train(lambda p: torch.optim.Adagrad(p, 0.1, 0.5)), strict=True)
    assert all(torch.allclose(one, other, rtol=1e-14) for one, other in twins)


def test_constant_rate_needs_no_schedule() -> None:
    optimizer = torch_optimizer(orca.SGD(), fresh())
    assert torch_schedule(orca.SGD(), optimizer) is None


def test_settings_of_numpy_are_saved_as_plain_numbers() -> None:
    optimizer = torch_optimizer(orca.SGD(np.float32(0.5), momentum=np.float64(0.5)), fresh())
    assert saved(optimizer.state_dict())["param_groups"][0]["lr"] == 0.5


def test_groups_of_parameters() -> None:
    one, two = fresh()
    optimizer = torch_optimizer(orca.SGD(0.1), [{"params": [one]}, {"params": [two], "lr": 0.2}])
    schedule = torch_schedule(Step(1, 0.5), optimizer)
    assert schedule is not None
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.1]


@pytest.mark.parametrize("setting", ["learningrates", "weightdecays"])
def test_rates_for_each_weight_are_not_there_yet(setting: str) -> None:
    with pytest.raises(NotYetError, match=f"SGD\\({setting}=...\\)"):
        torch_optimizer(orca.SGD(**{setting: [0.1, 0.2]}), fresh())


def test_lbfgs_is_not_there_yet() -> None:
    with pytest.raises(NotYetError, match="LBFGS, which evaluates the loss several times"):
        torch_optimizer(orca.LBFGS(), fresh())


def test_unknown_optimizer() -> None:
    class Lion(orca.Optimizer):
        pass

    with pytest.raises(InputError, match="received Lion"):
        torch_optimizer(Lion(), fresh())


# Adamax


@pytest.fixture
def small_numbers_are_zero() -> Iterator[None]:
    if not torch.set_flush_denormal(True):
        pytest.skip("the processor keeps small numbers")
    yield
    torch.set_flush_denormal(False)


@pytest.mark.usefixtures("small_numbers_are_zero")
def test_adamax_survives_gradients_of_zero() -> None:
    parameters = fresh(torch.float32)
    optimizer = torch_optimizer(orca.Adamax(), parameters)
    before = [p.detach().clone() for p in parameters]
    for _ in range(3):
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    for one, other in zip(before, parameters, strict=True):
        assert torch.equal(one, other)


# Ftrl

FTRL = [
    orca.Ftrl(0.125),
    orca.Ftrl(0.125, -0.25, 0.0, 0.05, 0.1, 0.2),
    orca.Ftrl(0.125, 0.0, 0.1, 0.5),
]


def ftrl_by_hand(spec: orca.Ftrl, w: float, gradients: list[float]) -> float:
    n, z, lr = spec.initial_accumulator_value, 0.0, spec.learningrate
    l1, power = spec.l1_regularization_strength, -spec.learningrate_power
    for g in gradients:
        after = n + g * g
        shrunk = g + 2 * spec.l2_shrinkage_regularization_strength * w
        z += shrunk - (after**power - n**power) / lr * w
        quadratic = after**power / lr + 2 * spec.l2_regularization_strength
        w = (np.sign(z) * l1 - z) / quadratic if abs(z) > l1 else 0.0
        n = after
    return w


@pytest.mark.parametrize("spec", FTRL)
def test_ftrl_is_its_formula(spec: orca.Ftrl) -> None:
    weights = torch.nn.Parameter(torch.tensor([0.8], dtype=torch.float64))
    optimizer = torch_optimizer(spec, [weights])
    gradients = [0.3, -0.2, 0.5, 0.0, -0.7]
    for gradient in gradients:
        weights.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
    assert weights.item() == pytest.approx(ftrl_by_hand(spec, 0.8, gradients), rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("spec", FTRL)
def test_ftrl_is_that_of_keras(spec: orca.Ftrl) -> None:
    keras = pytest.importorskip("keras")
    parameters = fresh()
    ours = torch_optimizer(spec, parameters)
    theirs = keras.optimizers.Ftrl(*vars(spec).values())
    variables = [keras.Variable(p.detach().numpy().copy(), dtype="float64") for p in parameters]
    for step in range(5):
        set_gradients(parameters, step)
        theirs.apply([keras.ops.convert_to_tensor(p.grad.numpy()) for p in parameters], variables)
        ours.step()
    for one, other in zip(parameters, variables, strict=True):
        np.testing.assert_allclose(one.detach().numpy(), np.asarray(other), rtol=1e-7)


def test_ftrl_makes_small_weights_zero() -> None:
    parameters = fresh()
    optimizer = torch_optimizer(orca.Ftrl(0.1, l1_regularization_strength=1e3), parameters)
    set_gradients(parameters, 0)
    optimizer.step()
    assert not any(p.detach().any() for p in parameters)


def test_ftrl_without_gradients_divides_nothing_by_zero() -> None:
    weights = torch.nn.Parameter(torch.ones(2))
    weights.grad = torch.zeros(2)
    torch_optimizer(orca.Ftrl(initial_accumulator_value=0.0), [weights]).step()
    assert torch.equal(weights.detach(), torch.zeros(2))


def test_ftrl_at_a_rate_of_zero_rests() -> None:
    before = fresh()
    after = train(lambda p: Ftrl(p, lr=0.0))
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_ftrl_takes_sparse_gradients() -> None:
    def final(sparse: bool) -> torch.Tensor:
        torch.manual_seed(3)
        table = torch.nn.Embedding(5, 2, sparse=sparse)
        optimizer = Ftrl(table.parameters(), lr=0.1)
        optimizer.step(lambda: table(torch.tensor([1, 3])).square().sum().backward())
        return table.weight.detach()

    assert torch.equal(final(True), final(False))


# Schedules

SCHEDULES: list[Scheduler] = [
    Default(0.3),
    Poly(0.5, 5),
    Exponential(2, 0.5),
    Exponential(2, 0.5, True),
    Step(2, 0.5),
    MultiStep([1, 4], 0.5),
    Warmup(0.01),
    Plateau("Loss", factor=0.5, patience=0),
    SequentialSchedule(2).add(Warmup(0.01), 2).add(Plateau("Loss", 0.5, patience=0), 9),
]
OPTIMIZERS: list[orca.Optimizer] = [*(spec for spec, _ in TWINS), *FTRL]


class Run:
    """A training whose epochs are two updates long."""

    def __init__(self, spec: orca.Optimizer, schedule: Scheduler) -> None:
        self.parameters = fresh()
        self.optimizer = torch_optimizer(spec, self.parameters)
        made = torch_schedule(schedule, self.optimizer)
        assert made is not None
        self.schedule = made

    def go(self, steps: range) -> "Run":
        for step in steps:
            set_gradients(self.parameters, step)
            self.optimizer.step()
            self.schedule.step()
            if step % 2:
                self.schedule.observe({"Loss": 1.0})
        return self

    def state(self) -> dict[str, Any]:
        return {
            "parameters": self.parameters,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> "Run":
        for mine, given in zip(self.parameters, state["parameters"], strict=True):
            mine.data.copy_(given.data)
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        return self


def saved(state: dict[str, Any]) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("spec", OPTIMIZERS, ids=lambda s: type(s).__name__)
def test_saved_and_loaded_is_the_same_training(spec: orca.Optimizer, schedule: Scheduler) -> None:
    whole = Run(spec, schedule).go(range(6))
    half = saved(Run(spec, schedule).go(range(3)).state())
    other = Run(spec, schedule).load(half).go(range(3, 6))
    for one, two in zip(whole.parameters, other.parameters, strict=True):
        assert torch.equal(one, two)
    assert whole.schedule.get_last_lr() == other.schedule.get_last_lr()


@pytest.mark.parametrize("schedule", SCHEDULES[:7], ids=lambda s: type(s).__name__)
def test_rates_are_those_of_the_schedule(schedule: Scheduler) -> None:
    run = Run(orca.SGD(0.1), schedule)
    for step in range(8):
        assert run.optimizer.param_groups[0]["lr"] == schedule.rate(step, 0.1)
        run.go(range(step, step + 1))


@pytest.mark.parametrize(("mode", "patience", "cooldown"), [("min", 2, 0), ("max", 0, 3)])
def test_plateau_falls_as_in_torch(mode: Any, patience: int, cooldown: int) -> None:
    ours, theirs = (torch.optim.SGD(fresh(), lr=1.0) for _ in range(2))
    schedule = torch_schedule(Plateau("Loss", 0.5, patience, mode, 0.1, cooldown, 0.01), ours)
    peer = ReduceLROnPlateau(theirs, mode, 0.5, patience, 0.1, "abs", cooldown, 0.01, eps=0.0)
    assert schedule is not None
    for value in np.random.default_rng(5).normal(size=60):
        schedule.observe({"Loss": float(value)})
        peer.step(float(value))
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"])
    assert ours.param_groups[0]["lr"] < 1.0


def test_a_schedule_serves_many_trainings() -> None:
    plateau = Plateau("Loss", factor=0.5, patience=0)
    first = Run(orca.SGD(0.1), plateau).go(range(6))
    assert first.schedule.get_last_lr() == [pytest.approx(0.025)]
    assert Run(orca.SGD(0.1), plateau).schedule.get_last_lr() == [0.1]


def test_a_schedule_says_what_it_watches() -> None:
    assert Run(orca.SGD(), Plateau("score")).schedule.monitors() == {"score"}
    assert Run(orca.SGD(), Step(1, 0.5)).schedule.monitors() == frozenset()
