"""Callbacks of Keras end to end: on all ranks, and as in Keras's own fit."""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import callbacks as kc
from keras import layers
from pyspark import cloudpickle
from pyspark.sql import DataFrame, SparkSession

from zoo.errors import InputError
from zoo.orca.learn.tf2 import Estimator

# Ranks cannot import a test module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.spark

ROWS = 64


@pytest.fixture(scope="module")
def frame(spark: SparkSession) -> Iterator[DataFrame]:
    """All rows are one step, so that their order does not matter."""
    columns = ["float(sin(id)) a", "float(cos(3 * id)) b", "float(sin(id) - cos(3 * id) + 1) y"]
    made = spark.range(0, ROWS, 1, 2).selectExpr(*columns).persist()
    yield made
    made.unpersist()


def linear(config: dict[str, Any]) -> keras.Model:
    inputs = layers.Input((2,))
    model = keras.Model(inputs, layers.Dense(1, kernel_initializer="zeros")(inputs))
    rate = config.get("rate", 0.9)
    model.compile(optimizer=keras.optimizers.SGD(rate), loss="mse", metrics=["mae"])
    return model


def estimator(ranks: int = 2, **given: Any) -> Any:
    return Estimator.from_keras(model_creator=linear, workers_per_node=ranks, **given)


def fit(est: Any, frame: DataFrame, epochs: int, **given: Any) -> Any:
    columns = {"feature_cols": ["a", "b"], "label_cols": ["y"]}
    frames = {"validation_data": frame} | given
    return est.fit(frame, epochs=epochs, batch_size=ROWS, **columns, **frames)


def plain(frame: DataFrame, epochs: int, callbacks: list[Any]) -> dict[str, list[float]]:
    rows = frame.toPandas()
    x, y = rows[["a", "b"]].to_numpy(), rows[["y"]].to_numpy()
    settings = {"batch_size": ROWS, "epochs": epochs, "verbose": 0, "callbacks": callbacks}
    history: dict[str, list[float]] = (
        linear({}).fit(x, y, validation_data=(x, y), **settings).history
    )
    return history


class Notes(kc.Callback):
    """Writes down what each rank is told."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = str(folder)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        with (Path(self.folder) / f"rank{self.params['rank']}").open("a") as file:
            file.write(f"{epoch} {sorted(logs.items())}\n")


def test_rates_stops_and_files_on_two_ranks_are_those_of_keras(
    frame: DataFrame, tmp_path: Path
) -> None:
    def callbacks(folder: Path) -> list[Any]:
        folder.mkdir()
        slower = kc.ReduceLROnPlateau(factor=0.5, patience=1, min_delta=0.05)
        stop = kc.EarlyStopping("val_mae", patience=2, min_delta=0.02, mode="min")
        best = kc.ModelCheckpoint(str(folder / "best.keras"), save_best_only=True)
        return [slower, stop, kc.CSVLogger(str(folder / "log.csv")), best]

    expected = plain(frame, 12, callbacks(tmp_path / "plain"))
    (tmp_path / "notes").mkdir()
    notes = Notes(tmp_path / "notes")
    found = fit(estimator(), frame, 12, callbacks=[*callbacks(tmp_path / "ours"), notes])
    assert 2 < len(found) == len(expected["loss"]) < 12
    for name in ("val_loss", "val_mae", "learning_rate", "mae"):
        assert [h[name] for h in found] == pytest.approx(expected[name], rel=1e-4), name
    assert [h["train_loss"] for h in found] == pytest.approx(expected["loss"], rel=1e-4)
    tables = []
    for folder in ("plain", "ours"):
        with (tmp_path / folder / "log.csv").open() as file:
            tables.append([{n: float(v) for n, v in row.items()} for row in csv.DictReader(file)])
    assert [pytest.approx(row, rel=1e-4) for row in tables[0]] == tables[1]
    models = [keras.saving.load_model(tmp_path / f / "best.keras") for f in ("plain", "ours")]
    for one, two in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4)
    first, second = ((tmp_path / "notes" / f"rank{k}").read_text() for k in (0, 1))
    assert first == second


def test_resumed_fit_runs_the_missing_epochs_and_goes_on_waiting(
    frame: DataFrame, tmp_path: Path
) -> None:
    def callbacks() -> list[Any]:
        return [
            kc.ReduceLROnPlateau(factor=0.5, patience=2, min_delta=0.05),
            kc.LearningRateScheduler(lambda epoch, rate: float(rate * 0.98)),
            kc.CSVLogger(str(tmp_path / "log.csv")),
        ]

    whole = fit(estimator(), frame, 7, callbacks=callbacks())
    kept = str(tmp_path / "snapshots")

    def stop_after_4(epoch: int, logs: Any) -> None:
        if epoch == 3:
            raise KeyError("the program ends here")

    fail = kc.LambdaCallback(on_epoch_end=stop_after_4)
    with pytest.raises(KeyError, match="ends here"):
        fit(estimator(model_dir=kept), frame, 7, callbacks=[*callbacks(), fail])
    again = fit(estimator(1, model_dir=kept), frame, 7, callbacks=callbacks(), resume=True)
    assert [h["epoch"] for h in again] == [1, 2, 3, 4, 5, 6, 7]
    for name in ("lr", "val_loss"):
        assert [h[name] for h in again] == pytest.approx([h[name] for h in whole], rel=1e-5)
    with (tmp_path / "log.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == list("0123456")


def test_best_weights_come_back(frame: DataFrame) -> None:
    est = estimator(config={"rate": 1.4})  # too fast: each epoch is worse than the one before
    stop = kc.EarlyStopping(patience=2, restore_best_weights=True)
    found = fit(est, frame, 9, callbacks=[stop])
    losses = [h["val_loss"] for h in found]
    best = int(np.argmin(losses))
    assert len(losses) == best + 3
    assert found[best]["restored"] == 1.0
    assert est.evaluate(frame)["val_loss"] == pytest.approx(losses[best], rel=1e-5)


def test_callback_that_cannot_work_is_refused_before_anything_starts(frame: DataFrame) -> None:
    with pytest.raises(InputError, match="BackupAndRestore.*resume=True"):
        fit(estimator(), frame, 1, callbacks=[kc.BackupAndRestore("backup")])
