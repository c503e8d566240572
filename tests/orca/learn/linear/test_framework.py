"""The smallest framework trains as plain numpy does, on any number of processes, without Spark."""

from __future__ import annotations

import io
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from warm_launcher import WarmLauncher
from zoo.cluster.ranks.carried import pickled
from zoo.cluster.ranks.crew import Crew
from zoo.errors import InputError
from zoo.orca.learn.callback import Callback
from zoo.orca.learn.callbacks import EarlyStopping
from zoo.orca.learn.driver.fit import FitSettings, train
from zoo.orca.learn.driver.keeper import FitKeeper
from zoo.orca.learn.driver.model import TrainedModel
from zoo.orca.learn.driver.rounds import Trained
from zoo.orca.learn.framework import framework_for
from zoo.orca.learn.linear.framework import Linear, LinearModel, LinearRecipe
from zoo.orca.learn.order import LoaderSource, Order, SnapshotOrder
from zoo.orca.learn.recovery import Recovery
from zoo.orca.learn.steps import Position

pytestmark = pytest.mark.usefixtures("warm_launcher")

ROWS, INPUTS, BATCH = 60, 3, 16
RECIPE = LinearRecipe(INPUTS, rate=0.05)


def rows_of(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    x = chance.normal(size=(ROWS, INPUTS))
    return x, x @ [1.0, -2.0, 0.5] + 3.0 + 0.1 * chance.normal(size=ROWS)


def parts(config: dict[str, Any], batch_size: int) -> list[Any]:
    """The rows of a rank: in each step a rank takes its part of the next rows of all."""
    x, y = rows_of()
    rank, size = config["rank"], config["size"]
    found = []
    for low in range(0, ROWS, batch_size):
        count = len(y[low : low + batch_size])
        mine = slice(low + rank * count // size, low + (rank + 1) * count // size)
        found.append((x[mine], y[mine]))
    return found


def descent(epochs: int = 500, steps: int | None = None) -> np.ndarray:
    """The same training in a few lines of plain numpy."""
    done = 0
    x, y = rows_of()
    x = np.column_stack([x, np.ones(ROWS)])
    weights, speed = np.zeros((2, INPUTS + 1))
    for _ in range(epochs):
        for low in range(0, ROWS, BATCH):
            a, b = x[low : low + BATCH], y[low : low + BATCH]
            speed = 0.9 * speed + 2 * a.T @ (a @ weights - b) / len(b)
            weights = weights - 0.05 * speed
            done += 1
            if done == steps:
                return weights
    return weights


def fit(
    model: TrainedModel, ranks: int, epochs: int, *, resume: bool = False, callbacks: Any = ()
) -> Trained:
    start = model.start(epochs, model.resume(resume))
    order = Order(
        "linear",
        pickled(RECIPE, "a recipe"),
        start.state,
        until=start.until,
        callbacks=tuple(callbacks),
        snapshots=SnapshotOrder(model.trigger(None)),
    )
    source = LoaderSource(parts, {}, BATCH, 0)
    with FitKeeper(model.store(), []) as keeper:
        settings = FitSettings(BATCH, None, Recovery(), keeper, show_progress=False)
        crew = Crew(ranks, ranks, ranks)
        done = train(WarmLauncher(), crew, source, source, order, start, settings)
    model.end_fit(done.state)
    return done


def model_of(folder: Path | None = None) -> TrainedModel:
    return TrainedModel(framework_for("linear"), RECIPE, folder and str(folder), None)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_processes_reach_the_weights_of_plain_numpy(ranks: int) -> None:
    model = model_of()
    done = fit(model, ranks, 3)
    np.testing.assert_allclose(model.built.weights, descent(3), rtol=1e-12)
    assert [e[0].rows for e in done.epochs] == [ROWS] * 3
    x, y = rows_of()
    errors = np.column_stack([x, np.ones(ROWS)]) @ descent(3) - y
    assert done.epochs[-1][0].validation["val_loss"] == pytest.approx(np.mean(errors**2), rel=1e-12)


def test_two_epochs_and_two_more_are_four(tmp_path: Path) -> None:
    fit(model_of(tmp_path), 2, 2)
    again = model_of(tmp_path)
    fit(again, 1, 4, resume=True)
    np.testing.assert_allclose(again.built.weights, descent(4), rtol=1e-12)


class Kill(Callback):
    """Ends the process of the last rank, once."""

    def __init__(self, mark: Path, step: int) -> None:
        self.mark, self.step = mark, step

    def on_step_end(self, run: Any) -> None:
        if run.iteration == self.step and run.rank == run.size - 1 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def test_lost_rank_costs_no_digit(tmp_path: Path) -> None:
    model = model_of()
    done = fit(model, 2, 3, callbacks=[Kill(tmp_path / "mark", 6)])
    np.testing.assert_allclose(model.built.weights, descent(3), rtol=1e-12)
    assert len(done.report.rounds) == 2


class Scores(Callback):
    """Gives epochs their scores."""

    def on_epoch_end(self, run: Any) -> None:
        run.logs["error"] = [3.0, 1.0, 2.0, 2.0, 0.5][run.epoch - 1]


def best(patience: int) -> list[Callback]:
    return [Scores(), EarlyStopping("error", patience=patience, restore_best=True)]


@pytest.mark.parametrize(("patience", "ends"), [(1, 3), (10, 4)])
@pytest.mark.parametrize("ranks", [1, 2])
def test_the_best_epoch_is_what_a_fit_ends_with(ranks: int, patience: int, ends: int) -> None:
    model = model_of()
    done = fit(model, ranks, 4, callbacks=best(patience))
    np.testing.assert_allclose(model.built.weights, descent(2), rtol=1e-12)
    assert [stats[0].extra.get("restored") for stats in done.epochs] == [
        1.0 if k == 1 else None for k in range(ends)
    ]
    fit(model, ranks, 1)
    np.testing.assert_allclose(model.built.weights, descent(3), rtol=1e-12)


def test_the_best_epoch_outlives_a_lost_rank(tmp_path: Path) -> None:
    model = model_of()
    done = fit(model, 2, 4, callbacks=[*best(10), Kill(tmp_path / "mark", 10)])
    assert len(done.report.rounds) == 2
    np.testing.assert_allclose(model.built.weights, descent(2), rtol=1e-12)


def test_a_best_epoch_of_another_process_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fit(model_of(tmp_path), 1, 3, callbacks=best(10))
    again = model_of(tmp_path)
    fit(again, 1, 4, resume=True, callbacks=best(10))
    assert "the best epoch came before this fit was resumed" in caplog.text
    np.testing.assert_allclose(again.built.weights, descent(4), rtol=1e-12)
    better = model_of(tmp_path)
    fit(better, 1, 5, resume=True, callbacks=best(10))
    np.testing.assert_allclose(better.built.weights, descent(5), rtol=1e-12)


class Interrupting(Callback):
    """Sends the driver an interrupt after a step."""

    def __init__(self, driver: int, step: int) -> None:
        self.driver, self.step = driver, step

    def on_step_end(self, run: Any) -> None:
        if run.iteration == self.step and run.rank == 0:
            os.kill(self.driver, signal.SIGINT)
        time.sleep(0.02)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("step", [2, 7])
def test_an_interrupted_fit_keeps_what_was_trained(ranks: int, step: int) -> None:
    model, before = model_of(), signal.getsignal(signal.SIGINT)
    done = fit(model, ranks, 500, callbacks=[Interrupting(os.getpid(), step)])
    assert done.interrupted
    steps = model.position.iteration
    assert step <= steps < 500
    np.testing.assert_allclose(model.built.weights, descent(steps=steps), rtol=1e-12)
    assert signal.getsignal(signal.SIGINT) is before
    fit(model, ranks, 1)


def test_a_second_interrupt_ends_at_once() -> None:
    class Twice(Interrupting):
        def on_step_end(self, run: Any) -> None:
            if run.iteration >= self.step:
                os.kill(self.driver, signal.SIGINT)
                time.sleep(0.5)
                os.kill(self.driver, signal.SIGINT)
                time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        fit(model_of(), 1, 500, callbacks=[Twice(os.getpid(), 3)])


def test_state_is_the_whole_training() -> None:
    framework, file = Linear(), io.BytesIO(b"longer than what comes" * 99)
    one, other = LinearModel(RECIPE), LinearModel(RECIPE)
    one.weights[:], one.speed[:] = 1.5, -2.5
    framework.write(file, one, Position(1, 2, 6), {"history": [{"epoch": 1}]})
    state = framework.read(file.getvalue())
    assert framework.apply(other, state) == Position(1, 2, 6)
    assert state.extras == {"history": [{"epoch": 1}]}
    assert (other.weights == 1.5).all()
    assert (other.speed == -2.5).all()


@pytest.mark.parametrize("blob", [b"", b"PK\x03\x04", b"nothing of the kind"])
def test_what_is_no_state_is_refused(blob: bytes) -> None:
    with pytest.raises(InputError, match="a saved linear model"):
        Linear().read(blob)


def test_state_of_another_model_is_refused() -> None:
    framework, file = Linear(), io.BytesIO()
    framework.write(file, LinearModel(LinearRecipe(5)), Position(), {})
    with pytest.raises(InputError, match="4 weights; received 6 of them"):
        framework.apply(LinearModel(RECIPE), framework.read(file.getvalue()))
