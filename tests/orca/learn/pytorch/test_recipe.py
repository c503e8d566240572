"""What was built from a recipe, at work."""

import pytest
import torch
from torch import nn

from zoo.errors import InputError
from zoo.orca.learn import optimizers as orca
from zoo.orca.learn.pytorch.framework import Torch
from zoo.orca.learn.pytorch.recipe import Recipe, build, takes_one_input


def test_a_single_row_for_batch_normalisation_says_how_rows_are_shared() -> None:
    built = build(Recipe(nn.BatchNorm1d(3), None))
    assert built.forward([torch.ones(2, 3)]).shape == (2, 3)
    with pytest.raises(InputError, match="one row.*Raise batch_size: these rows are shared"):
        built.forward([torch.ones(1, 3)])


def test_other_errors_of_a_model_are_its_own() -> None:
    class Broken(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("mine")

    with pytest.raises(ValueError, match="^mine$"):
        build(Recipe(Broken(1, 1), None)).forward([torch.ones(1, 1)])


def test_an_optimizer_with_a_schedule_takes_no_other() -> None:
    def creator(optimizer: torch.optim.Optimizer, config: object) -> object:
        return torch.optim.lr_scheduler.StepLR(optimizer, 1)

    decaying, model = orca.Adam(learningrate_decay=0.1), nn.Linear(1, 1)
    with pytest.raises(InputError, match="one schedule.*scheduler_creator, and Adam with"):
        build(Recipe(model, decaying, scheduler_creator=creator))  # type: ignore[arg-type]
    assert build(Recipe(model, orca.Adam(), scheduler_creator=creator)).scheduler  # type: ignore[arg-type]


def test_a_schedule_that_counts_steps_does_not_advance_by_epochs() -> None:
    decaying, model = orca.Adam(learningrate_decay=0.1), nn.Linear(1, 1)
    for freq in ("epoch", None):
        with pytest.raises(InputError, match="scheduler_step_freq='batch'.*These count steps"):
            build(Recipe(model, decaying, scheduler_step_freq=freq))
    assert build(Recipe(model, orca.Adam(), scheduler_step_freq="epoch")).scheduler is None


def test_layers_without_a_size_are_refused_by_name() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Sequential(nn.LazyLinear(3)))
    with pytest.raises(InputError, match="layers know their sizes; received LazyLinear in '1.0'"):
        build(Recipe(model, None, nn.MSELoss()))
    model(torch.ones(2, 5))
    assert build(Recipe(model, None, nn.MSELoss())).model is model


def test_an_optimizer_that_calls_a_closure_is_refused() -> None:
    with pytest.raises(InputError, match="LBFGS, which calls a closure"):
        build(Recipe(nn.Linear(1, 1), lambda m, c: torch.optim.LBFGS(m.parameters())))


class Optional(nn.Module):
    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return x


class AllOptional(nn.Module):
    def forward(self, x: object = None, y: object = None) -> object:
        return x


def test_only_arguments_that_are_needed_are_inputs() -> None:
    assert takes_one_input(Optional())
    assert not takes_one_input(AllOptional())
    assert not takes_one_input(nn.Bilinear(1, 1, 1))


def test_parameters_that_the_optimizer_does_not_have_are_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model[1] = nn.Linear(2, 1)
    Torch().build(Recipe(model, optimizer, nn.MSELoss()))
    assert caplog.text.count("they are not trained: 1.weight, 1.bias.") == 1
    caplog.clear()
    model[1].requires_grad_(False)
    Torch().build(Recipe(model, optimizer, nn.MSELoss()))
    assert not caplog.text
