"""Training mode and evaluation mode of a model and its parts."""

from typing import Any

import torch
from torch import nn

from zoo.orca.learn.framework import Place
from zoo.orca.learn.pytorch.learner import TorchLearner
from zoo.orca.learn.pytorch.modes import evaluating, start_training
from zoo.orca.learn.pytorch.recipe import Recipe, build


def body() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5))


def modes(model: nn.Module) -> list[bool]:
    return [part.training for part in model.modules()]


def test_a_frozen_part_in_evaluation_mode_stays_in_it() -> None:
    model = nn.Sequential(body().eval().requires_grad_(False), nn.Dropout(0.5), nn.Linear(2, 1))
    before = modes(model)
    learner = TorchLearner(build(Recipe(model, None, nn.MSELoss())), Place(), seed=0)
    kept = model[0][1].running_mean.clone()
    for epoch in range(3):
        learner.begin_epoch(epoch)
        assert modes(model) == before
        model(torch.randn(8, 2))
        with evaluating(model):
            model(torch.randn(8, 2))
    assert torch.equal(model[0][1].running_mean, kept)


def test_a_model_that_came_in_evaluation_mode_is_trained() -> None:
    model = nn.Sequential(body(), nn.Linear(2, 1)).eval()
    start_training(model)
    assert all(modes(model))


def test_parts_that_are_trained_or_in_training_mode_are_in_it() -> None:
    model = nn.Sequential(body().eval(), body().requires_grad_(False))
    start_training(model)
    assert all(modes(model))


def test_a_train_method_of_the_user_is_called() -> None:
    class Own(nn.Linear):
        def train(self, mode: bool = True) -> Any:
            return super().train(False)

    model = nn.Sequential(Own(1, 1), nn.Linear(1, 1))
    start_training(model)
    assert modes(model) == [True, False, True]
