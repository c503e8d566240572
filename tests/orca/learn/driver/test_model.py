"""What an estimator trains, saved and read again by one that was made otherwise."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, StepLR

from zoo.errors import InputError
from zoo.orca.learn.driver.model import TrainedModel
from zoo.orca.learn.framework import framework_for
from zoo.orca.learn.pytorch.recipe import Recipe


def training(lr: float = 0.1, folder: Path | None = None, schedule: Any = None) -> TrainedModel:
    def adam(model: nn.Module, config: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), lr=lr)

    recipe = Recipe(lambda config: nn.Linear(2, 1), adam, nn.MSELoss(), scheduler_creator=schedule)
    where = None if folder is None else str(folder)
    return TrainedModel(framework_for("pytorch"), recipe, where, None)


def test_state_with_another_learning_rate_says_what_is_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    training(0.001).take(training(0.1).state())
    assert "goes on as the saved state has it: lr 0.1, not 0.001." in caplog.text


def test_resume_with_another_learning_rate_says_what_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = training(folder=tmp_path).store()
    assert store is not None
    store.write(3, training(0.1).state())
    training(0.001, tmp_path).resume(True)
    assert "lr 0.1, not 0.001" in caplog.text


def cosine(epochs: int) -> Any:
    return lambda optimizer, config: CosineAnnealingLR(optimizer, T_max=epochs)


def test_state_with_another_schedule_says_what_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    training(schedule=cosine(20)).take(training(schedule=cosine(10)).state())
    assert "T_max of the schedule 10, not 20" in caplog.text


def steps(optimizer: Any, config: Any) -> Any:
    return StepLR(optimizer, step_size=1)


def cycle(optimizer: Any, config: Any) -> Any:
    return OneCycleLR(optimizer, max_lr=0.5, total_steps=20)


@pytest.mark.parametrize("schedule", [None, steps, cycle])
@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step")
def test_training_as_it_was_says_nothing(schedule: Any, caplog: pytest.LogCaptureFixture) -> None:
    before, after = training(schedule=schedule), training(schedule=schedule)
    if before.built.scheduler is not None:
        for _ in range(3):
            before.built.scheduler.step()
    after.take(before.state())
    assert "goes on as" not in caplog.text


def test_a_refused_file_changes_neither_model_nor_position(tmp_path: Path) -> None:
    mine, other = training(), training()
    other.position.epoch = 7
    blob = other.state()
    before = mine.state()
    with pytest.raises(InputError, match="Cannot load the PyTorch model"):
        mine.take(blob[:-30])
    assert mine.state() == before
