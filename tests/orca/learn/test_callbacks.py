"""The callbacks that come with the library."""

import copy
import itertools
import math
import pickle
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

import pytest

from zoo.errors import InputError
from zoo.orca.learn.callbacks import (
    Callback,
    EarlyStopping,
    KeepBest,
    MonitorCallback,
    StopWhen,
    TerminateOnNaN,
)
from zoo.orca.learn.trigger import (
    EverySeconds,
    MaxEpoch,
    MaxIteration,
    MaxScore,
    MinLoss,
    SeveralIteration,
)

nan, inf = math.nan, math.inf


@dataclass
class Training:
    """Epochs of two steps whose numbers are given; ends when a callback says so."""

    callback: Callback
    model: Any = None
    optimizer: Any = None
    epoch: int = 0
    step: int = 0
    iteration: int = 0
    rank: int = 0
    size: int = 1
    logs: dict[str, float] = field(default_factory=dict)
    stops: list[str] = field(default_factory=list)
    saves: list[tuple[str, int]] = field(default_factory=list)

    def stop(self, why: str) -> None:
        self.stops.append(why)

    def save(self, path: str) -> None:
        self.saves.append((path, self.epoch))

    def keep(self) -> None:
        self.saves.append(("kept", self.epoch))

    def train(self, *values: float, name: str = "val_loss") -> "Training":
        self.callback.on_train_begin(self)
        for value in values:
            self.epoch += 1
            for self.step in (1, 2):
                self.iteration += 1
                self.logs = {"loss": 1 / self.iteration, "lr": 0.1}
                self.callback.on_step_end(self)
                if self.stops:
                    return self
            self.logs = {"train_loss": 1 / self.epoch, "lr": 0.1, name: value}
            self.callback.on_epoch_end(self)
            if self.stops:
                return self
        return self


def test_import_loads_no_framework() -> None:
    code = (
        "import sys, zoo.orca.learn.callbacks, zoo.orca.learn.tensorboard as s, "
        "zoo.orca.learn.mlflow_logger;"
        "print(sorted({'torch', 'tensorflow', 'mlflow', 'tensorboardX'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Better or not


def test_better_epochs_are_kept_where_the_best_is_restored() -> None:
    values = 3.0, 2.0, 2.5, 1.0, 1.5
    assert Training(EarlyStopping(patience=9, restore_best=True)).train(*values).saves == [
        ("kept", 1),
        ("kept", 2),
        ("kept", 4),
    ]
    assert not Training(EarlyStopping(patience=9)).train(*values).saves


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        *[(name, "min") for name in ("loss", "train_loss", "val_loss", "val_MAE", "val_MSE")],
        *[(name, "min") for name in ("val_CategoricalCrossEntropy", "val_KLDivergence")],
        *[(name, "min") for name in ("val_Poisson", "val_mean_squared_error", "rmse")],
        *[(name, "max") for name in ("val_Accuracy", "val_Top5Accuracy", "val_AUC", "f1")],
        *[(name, "max") for name in ("val_Recall", "val_R2", "NDCG")],
    ],
)
def test_auto_mode_goes_by_name(name: str, mode: str) -> None:
    assert MonitorCallback(name).mode == mode


def test_best_value_and_its_epoch_are_kept() -> None:
    watching = EarlyStopping(patience=9)
    Training(watching).train(3.0, 1.0, 2.0)
    assert (watching.best, watching.best_epoch, watching.waited) == (1.0, 2, 1)


def test_larger_is_better_in_mode_max() -> None:
    watching = EarlyStopping("val_loss", mode="max", patience=9)
    Training(watching).train(3.0, 1.0, 4.0)
    assert watching.best == 4.0


def test_small_changes_are_no_improvement() -> None:
    watching = EarlyStopping(patience=9, min_delta=0.5)
    Training(watching).train(3.0, 2.6, 2.5, 2.4)
    assert (watching.best, watching.waited) == (2.4, 0)
    Training(watching).train(2.0)
    assert (watching.best, watching.waited) == (2.4, 1)


@pytest.mark.parametrize("bad", [nan, -inf, inf])
def test_value_that_is_not_finite_is_never_best(bad: float) -> None:
    watching = EarlyStopping(patience=9)
    Training(watching).train(bad, 2.0, bad, 1.0)
    assert (watching.best, watching.best_epoch) == (1.0, 4)


def test_missing_monitor_lists_what_is_there() -> None:
    with pytest.raises(InputError, match=r"'val_loss'.*EarlyStopping.*lr, train_loss, val_MAE"):
        Training(EarlyStopping()).train(1.0, name="val_MAE")


def test_epoch_without_validation_is_passed_over() -> None:
    watching = EarlyStopping(patience=2)
    run = Training(watching).train(1.0, 2.0)
    run.train(5.0, 5.0, name="other")
    assert (watching.waited, run.stops) == (1, [])


@pytest.mark.parametrize("wrong", [{"mode": "least"}, {"min_delta": -1.0}, {"min_delta": nan}])
def test_bad_arguments_of_a_monitor(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        KeepBest("best.pt", **wrong)


# Stopping


@pytest.mark.parametrize(("patience", "epochs"), [(0, 3), (1, 3), (2, 6), (9, 7)])
def test_stops_after_epochs_without_improvement(patience: int, epochs: int) -> None:
    run = Training(EarlyStopping(patience=patience)).train(3.0, 2.0, 2.0, 1.0, 1.5, 1.2, 1.1)
    assert run.epoch == epochs


def test_says_why_it_stopped() -> None:
    run = Training(EarlyStopping(patience=2)).train(2.0, 0.5, 1.0, nan)
    assert run.stops == ["val_loss is no better than 0.5 since epoch 2"]


def test_stops_when_nothing_is_finite() -> None:
    run = Training(EarlyStopping(patience=2)).train(nan, nan, nan)
    assert run.stops == ["val_loss has not been finite so far"]
    assert run.epoch == 2


def test_negative_patience_is_refused() -> None:
    with pytest.raises(InputError, match="patience of 0 or more"):
        EarlyStopping(patience=-1)


def test_early_stopping_goes_on_in_another_process() -> None:
    values = (3.0, 2.0, 2.5, 2.6, 2.7)
    whole = Training(EarlyStopping(patience=3)).train(*values)
    before = EarlyStopping(patience=3)
    Training(before).train(*values[:3])
    after = pickle.loads(pickle.dumps(EarlyStopping(patience=3)))
    after.load_state_dict(before.state_dict())
    run = Training(after, epoch=3).train(*values[3:])
    assert (run.epoch, run.stops) == (whole.epoch, whole.stops)


def test_a_training_that_had_stopped_stays_stopped() -> None:
    before, after = EarlyStopping(patience=1), EarlyStopping(patience=1)
    stopped = Training(before).train(1.0, 2.0)
    after.load_state_dict(before.state_dict())
    assert Training(after).train().stops == stopped.stops


@pytest.mark.parametrize(
    ("trigger", "iteration"),
    [(MaxIteration(3), 3), (SeveralIteration(5), 5), (MinLoss(0.26), 4), (MaxEpoch(2), 4)],
)
def test_stops_when_a_trigger_fires(trigger: Any, iteration: int) -> None:
    run = Training(StopWhen(trigger)).train(1.0, 1.0, 1.0, 1.0)
    assert run.iteration - iteration in (0, 1)
    assert run.stops[0].startswith(type(trigger).__name__)


def test_score_is_a_metric_and_not_the_loss_of_validation() -> None:
    run = Training(StopWhen(MaxScore(0.8))).train(0.9, name="val_loss")
    assert not run.stops
    run.train(0.7, 0.9, 0.9, name="val_Accuracy")
    assert (run.epoch, len(run.stops)) == (3, 1)


def test_score_outlives_the_process() -> None:
    first, second = StopWhen(MaxScore(0.8)), StopWhen(MaxScore(0.8))
    Training(first).train(0.9, name="val_Accuracy")
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert Training(second).train(0.0).iteration == 1


def test_seconds_are_those_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count(100)
    monkeypatch.setattr("zoo.orca.learn.callbacks.time.monotonic", lambda: next(seconds))
    first, second = StopWhen(EverySeconds(5)), StopWhen(EverySeconds(5))
    # It is asked three times in an epoch, and a second goes by each time.
    assert not Training(first).train(1.0).stops
    next(seconds)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert Training(second).train(1.0, 1.0).iteration == 2


def test_only_triggers_stop() -> None:
    with pytest.raises(InputError, match="a trigger"):
        StopWhen(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", [nan, inf, -inf])
def test_loss_that_is_not_finite_ends_training(loss: float) -> None:
    run = Training(TerminateOnNaN(), iteration=7, logs={"loss": loss})
    TerminateOnNaN().on_step_end(run)
    assert f"the loss is {loss} at iteration 7" in run.stops[0]


def test_finite_loss_goes_on() -> None:
    assert not Training(TerminateOnNaN()).train(1.0).stops


# Saving


def test_keeps_the_best_only() -> None:
    run = Training(KeepBest("best.pt")).train(3.0, 2.0, 2.5, nan, 1.0)
    assert run.saves == [("best.pt", 1), ("best.pt", 2), ("best.pt", 5)]


def test_best_is_known_before_it_is_saved() -> None:
    keeper, states = KeepBest("best.pt"), []
    run = Training(keeper)
    run.save = lambda path: states.append(keeper.state_dict())  # type: ignore[method-assign]
    run.train(3.0)
    assert states == [{"best": 3.0, "best_epoch": 1, "seen": True}]
