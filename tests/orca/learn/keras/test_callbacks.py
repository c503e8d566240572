"""Callbacks of Keras do what they do in Keras's own fit, in one round and in several."""

import csv
import importlib.util
import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cloudpickle
import keras
import numpy as np
import pytest
from keras import callbacks as kc
from keras import layers

from zoo.errors import InputError
from zoo.orca.learn.callback import CallbackList
from zoo.orca.learn.callbacks import KeepBest
from zoo.orca.learn.keras.callbacks import OnFirstRank, adapted

cloudpickle.register_pickle_by_value(sys.modules[__name__])

STEPS, BATCH = 3, 8
X = np.random.default_rng(1).normal(size=(STEPS * BATCH, 2)).astype("float32")
Y = (X @ np.array([[1.0], [-2.0]]) + 0.3).astype("float32")
CHECK = X[:10], Y[:10] + np.float32(0.7)
"""Validation that is best after some epochs."""


@pytest.fixture(scope="module")
def shared() -> keras.Model:
    inputs = layers.Input((2,))
    model = keras.Model(inputs, layers.Dense(1)(inputs))
    model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse", metrics=["mae"])
    return model


@pytest.fixture
def model(shared: keras.Model) -> keras.Model:
    """As it was first: its graphs are made once for all tests."""
    shared.set_weights([np.zeros((2, 1)), np.zeros(1)])
    shared.optimizer.learning_rate = 0.1
    shared.optimizer.iterations.assign(0)
    return shared


class Round:
    """A round of a training as the ranks have it, on one of them; see `Run`."""

    rank, size, steps = 0, 1, STEPS

    def __init__(self, model: keras.Model, rank: int = 0) -> None:
        self.model, self.optimizer, self.rank = model, model.optimizer, rank
        self.epoch, self.step, self.iteration, self.mean_loss = 1, 0, 0, math.nan
        self.logs: dict[str, float] = {}
        self.why, self.kept = "", list[int]()

    def stop(self, why: str) -> None:
        self.why = why

    def save(self, path: str) -> None:
        raise NotImplementedError

    def keep(self) -> None:
        self.kept.append(self.epoch)


class Training:
    """Rounds of a training, each in fresh copies of the callbacks, which get their state back."""

    def __init__(self, model: keras.Model, callbacks: Sequence[Any], epochs: int) -> None:
        self.model, self.callbacks, self.epochs = model, list(callbacks), epochs
        self.history: list[dict[str, Any]] = []
        self.state: dict[str, Any] = {}
        self.why, self.kept = "", list[int]()

    def run(self, until: int | None = None, rank: int = 0) -> "Training":
        """Train until so many epochs are done, in one round."""
        run = Round(self.model, rank)
        run.epoch = len(self.history) + 1
        made = adapted(self.callbacks, epochs=self.epochs)
        called = CallbackList(cloudpickle.loads(cloudpickle.dumps(made)))
        if self.state:
            called.load_state_dict(self.state)
        called.on_train_begin(run)
        while len(self.history) < (until or self.epochs) and not run.why:
            run.epoch, run.step = len(self.history) + 1, 0
            called.on_epoch_begin(run)
            self._epoch(run, called)
            self.state = json.loads(json.dumps(called.state_dict()))
        called.on_train_end(run)
        self.why, self.kept = run.why, self.kept + run.kept
        return self

    def _epoch(self, run: Round, called: CallbackList) -> None:
        losses = []
        for step in range(STEPS):
            rows = slice(step * BATCH, step * BATCH + BATCH)
            self.model.reset_metrics()
            losses.append(float(self.model.train_on_batch(X[rows], Y[rows])[0]))
            run.step, run.iteration = step + 1, run.iteration + 1
            run.mean_loss = float(np.mean(losses))
            run.logs = {"loss": losses[-1]}
            called.on_step_end(run)
            if run.why:
                return
        self.model.reset_metrics()
        loss, mae = map(float, self.model.test_on_batch(*CHECK))
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        run.logs = {"train_loss": run.mean_loss, "lr": rate, "val_loss": loss, "val_mae": mae}
        called.on_epoch_end(run)
        self.history.append(dict(run.logs))


def plain(model: keras.Model, callbacks: Sequence[Any], epochs: int) -> dict[str, list[float]]:
    """What Keras's own fit does."""
    settings = {"batch_size": BATCH, "shuffle": False, "verbose": 0}
    found = model.fit(
        X, Y, epochs=epochs, validation_data=CHECK, callbacks=list(callbacks), **settings
    )
    history: dict[str, list[float]] = found.history
    return history


class Rates(kc.Callback):
    """Notes the rate of each epoch."""

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs["rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))


def falling(epoch: int, rate: float) -> float:
    return float(rate * 0.7) if epoch % 2 else float(rate)


CASES: dict[str, Callable[[], kc.Callback]] = {
    "early stopping": lambda: kc.EarlyStopping(patience=2),
    "of the loss": lambda: kc.EarlyStopping("loss", min_delta=0.05, patience=1),
    "late start": lambda: kc.EarlyStopping("val_mae", start_from_epoch=4, patience=1),
    "baseline": lambda: kc.EarlyStopping(baseline=0.2, patience=3),
    "plateau": lambda: kc.ReduceLROnPlateau(factor=0.5, patience=2, cooldown=1, min_lr=0.01),
    "scheduler": lambda: kc.LearningRateScheduler(falling),
    "lambda": lambda: kc.LambdaCallback(on_epoch_end=lambda epoch, logs: logs.update(seen=epoch)),
}


@pytest.mark.parametrize("rounds", [[9], [1, 2, 5, 9]], ids=["one round", "four rounds"])
@pytest.mark.parametrize("case", CASES)
def test_epochs_rates_and_stops_are_those_of_keras(
    case: str, rounds: list[int], model: keras.Model
) -> None:
    expected = plain(model, [CASES[case](), Rates()], 9)
    model.set_weights([np.zeros((2, 1)), np.zeros(1)])
    model.optimizer.learning_rate = 0.1
    training = Training(model, [CASES[case](), Rates()], 9)
    for until in rounds:
        training.run(until)
    found = training.history
    assert [h["rate"] for h in found] == pytest.approx(expected["rate"])
    assert [h["val_loss"] for h in found] == pytest.approx(expected["val_loss"], rel=1e-4)
    assert [h.get("seen") for h in found] == expected.get("seen", [None] * len(found))
    stops = len(expected["loss"]) < 9
    assert bool(training.why) == stops, training.why
    assert ("EarlyStopping" in training.why) == stops


def test_a_training_that_was_stopped_stays_stopped(model: keras.Model) -> None:
    training = Training(model, [kc.EarlyStopping(patience=1)], 9).run()
    epochs = len(training.history)
    assert epochs < 9
    training.run()
    assert len(training.history) == epochs
    assert training.why == "EarlyStopping had ended the training"


def test_patience_of_the_program_counts_and_not_that_of_the_saved_training(
    model: keras.Model,
) -> None:
    training = Training(model, [kc.EarlyStopping(patience=1)], 12).run(3)
    training.callbacks = [kc.EarlyStopping(patience=6)]
    training.run()
    other = Training(model, [kc.EarlyStopping(patience=6)], 12)
    assert other.callbacks[0].best is None
    best = int(np.argmin([h["val_loss"] for h in training.history]))
    assert len(training.history) in (best + 1 + 6, 12)


def test_best_weights_are_a_state_that_the_driver_keeps(model: keras.Model) -> None:
    stop = kc.EarlyStopping(patience=2, restore_best_weights=True)
    training = Training(model, [stop], 9).run(2).run()
    losses = [h["val_loss"] for h in training.history]
    assert training.kept[-1] == int(np.argmin(losses)) + 1
    assert training.state["0:_Stopping"]["restores_epoch"] == training.kept[-1]
    assert stop.restore_best_weights


def test_loss_that_is_no_number_ends_it_at_once(model: keras.Model) -> None:
    model.optimizer.learning_rate = 1e30
    training = Training(model, [kc.TerminateOnNaN()], 9).run()
    assert training.why == "TerminateOnNaN ended it in epoch 1"
    assert not training.history or len(training.history) == 1


class Told(kc.Callback):
    """Notes what it is told."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.calls = str(folder), []

    def _note(self, what: str, number: int, logs: Any) -> None:
        self.calls.append(f"{what} {number} {sorted(logs)}")
        if self.params["rank"] == 0:
            (Path(self.folder) / "calls").write_text("\n".join(self.calls))

    def on_train_begin(self, logs: Any = None) -> None:
        self.calls = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._note("epoch", epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._note("batch", batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._note("done", batch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._note("ended", epoch, logs)
        assert self.params["epochs"] == 2
        assert self.params["steps"] == STEPS
        if epoch == 1:
            self.model.stop_training = True


def test_own_callback_hears_what_keras_tells(model: keras.Model, tmp_path: Path) -> None:
    training = Training(model, [Told(tmp_path)], 2).run(1).run()
    epochs = [
        [f"epoch {k} []"]
        + [line for b in range(STEPS) for line in (f"batch {b} []", f"done {b} ['loss']")]
        + [f"ended {k} ['loss', 'val_loss', 'val_mae']"]
        for k in (0, 1)
    ]
    # The second round went on with what the first had noted.
    assert (tmp_path / "calls").read_text().splitlines() == epochs[0] + epochs[1]
    assert training.why == "Told ended it in epoch 2"


def test_table_goes_on_in_the_next_round(model: keras.Model, tmp_path: Path) -> None:
    log = kc.CSVLogger(str(tmp_path / "log.csv"))
    other = Training(model, [log], 4)
    training = Training(model, [log], 4).run(2)
    state, history = training.state, training.history
    with (tmp_path / "log.csv").open("a") as file:
        file.write("2,0,0,0\r\n")  # an epoch that is trained again, after a loss
    other.state, other.history = state, history
    other.run()
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2, 3]
    assert [float(row["val_loss"]) for row in rows] == [h["val_loss"] for h in other.history]


@pytest.mark.parametrize("rank", [0, 1])
def test_only_rank_0_writes_files_and_all_know_the_best(
    rank: int, model: keras.Model, tmp_path: Path
) -> None:
    best = kc.ModelCheckpoint(str(tmp_path / "best.keras"), save_best_only=True)
    each = kc.ModelCheckpoint(str(tmp_path / "w{epoch}.weights.h5"), save_weights_only=True)
    by_steps = {"save_weights_only": True, "save_freq": 4}
    steps = kc.ModelCheckpoint(str(tmp_path / "s{epoch}-{batch}.weights.h5"), **by_steps)
    log = kc.CSVLogger(str(tmp_path / "log.csv"))
    training = Training(model, [best, each, steps, log], 6).run(2, rank=rank).run(rank=rank)
    losses = [h["val_loss"] for h in training.history]
    assert training.state["0:_Checkpoint"]["kept"]["best"] == min(losses)
    files = sorted(path.name for path in tmp_path.iterdir())
    if rank:
        assert files == []
        return
    steps_of = [f"s{i // 3 + 1}-{i % 3 + 1}.weights.h5" for i in (3, 7, 11, 15)]
    weights = [f"w{k}.weights.h5" for k in range(1, 7)]
    assert files == sorted(["best.keras", "log.csv", *steps_of, *weights])
    saved = keras.saving.load_model(tmp_path / "best.keras")
    assert saved.evaluate(*CHECK, verbose=0)[0] == pytest.approx(min(losses), rel=1e-5)


def test_tensorboard_has_the_numbers_of_all_rounds(model: keras.Model, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    board = kc.TensorBoard(str(tmp_path), update_freq="epoch")
    training = Training(model, [board], 3).run(1).run()
    import tensorflow as tf

    found = {}
    for file in sorted((tmp_path / "validation").iterdir(), key=lambda path: path.stat().st_mtime):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                found[value.tag, event.step] = tf.make_ndarray(value.tensor).item()
    expected = {("epoch_loss", k): h["val_loss"] for k, h in enumerate(training.history)}
    assert {k: v for k, v in found.items() if k[0] == "epoch_loss"} == pytest.approx(expected)


def test_tensorboard_without_its_package_names_what_there_is(tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorboard"):
        pytest.skip("it is installed")
    with pytest.raises(InputError, match=r"package tensorboard.*set_tensorboard"):
        adapted(kc.TensorBoard(str(tmp_path)), epochs=1)


def test_callback_for_the_first_rank_alone(model: keras.Model, tmp_path: Path) -> None:
    for rank in (1, 0):
        Training(model, [OnFirstRank(Told(tmp_path))], 2).run(rank=rank)
        assert (tmp_path / "calls").exists() == (rank == 0)


def test_number_that_no_epoch_has_is_named(model: keras.Model) -> None:
    training = Training(model, [kc.EarlyStopping("val_acc", mode="max")], 2)
    with pytest.raises(InputError, match="'val_acc' among the numbers.*val_loss, val_mae"):
        training.run()


@pytest.mark.parametrize(
    ("callback", "match"),
    [
        (kc.BackupAndRestore("backup"), "BackupAndRestore.*model_dir.*resume=True"),
        (kc.SwapEMAWeights(), "SwapEMAWeights.*ema_overwrite_frequency"),
        (kc.EarlyStopping, "as objects; received the class EarlyStopping"),
    ],
)
def test_what_cannot_work_is_refused_with_what_does(callback: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        adapted([callback], epochs=1)


def test_others_pass_and_superfluous_ones_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    keep = KeepBest("path")
    assert adapted([keep, kc.History(), kc.ProgbarLogger()], epochs=1) == [keep]
    assert adapted(None, epochs=1) == []
    assert len(adapted(kc.TerminateOnNaN(), epochs=1)) == 1
    assert "History is left out: fit returns its own history" in caplog.text


class WaitsForTests(kc.Callback):
    """Waits for what is not told."""

    def on_test_begin(self, logs: Any = None) -> None:
        """Nothing."""


def test_methods_that_are_not_called_are_named(caplog: pytest.LogCaptureFixture) -> None:
    adapted([WaitsForTests()], epochs=1)
    assert "on_test_begin of WaitsForTests is not called" in caplog.text


def test_callback_with_a_model_of_an_earlier_fit_travels_without_it(model: keras.Model) -> None:
    stop = kc.EarlyStopping(patience=3)
    plain(model, [stop], 1)
    (made,) = adapted([stop], epochs=1)
    assert len(cloudpickle.dumps(made)) < 4000
    assert stop.model is model
