"""What a fit does beside plain steps: frozen layers, running statistics, lost ranks, loggers."""

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pyspark import cloudpickle
from pyspark.sql import DataFrame, SparkSession
from torch import nn

from zoo.errors import RankError
from zoo.orca.learn.callbacks import Callback, Run
from zoo.orca.learn.loggers import Logger
from zoo.orca.learn.metrics import MSE
from zoo.orca.learn.pytorch import Estimator
from zoo.orca.learn.recovery import Recovery

# Ranks cannot import a test module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.spark

STEPS = 6


@pytest.fixture(scope="module")
def frame(spark: SparkSession) -> Iterator[DataFrame]:
    """90 rows in three partitions: six steps, the last one short."""
    columns = ["sin(id) a", "cos(3 * id) b", "sin(id) - 2 * cos(3 * id) + 1 y"]
    made = spark.range(0, 90, 1, 3).selectExpr(*columns).persist()
    yield made
    made.unpersist()


def net(config: dict[str, Any]) -> nn.Module:
    torch.manual_seed(7)
    hidden = nn.Linear(2, 4)
    hidden.requires_grad_(not config.get("frozen"))
    return nn.Sequential(hidden, nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0)).double()


def normed(config: dict[str, Any]) -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(
        nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0)
    ).double()


def adam(model: nn.Module, config: dict[str, Any]) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.05)


def estimator(ranks: int = 2, model: Any = net, **given: Any) -> Any:
    loss = given.pop("loss", nn.MSELoss())
    return Estimator.from_torch(
        model=model, optimizer=adam, loss=loss, workers_per_node=ranks, **given
    )


def fit(est: Any, frame: DataFrame, epochs: int = 2, **given: Any) -> Any:
    columns = {"feature_cols": ["a", "b"], "label_cols": ["y"]}
    return est.fit(frame, epochs=epochs, batch_size=16, **columns, **given)


def assert_same(left: Any, right: Any, tolerance: float = 1e-9) -> None:
    states = (e.get_model().state_dict() for e in (left, right))
    for (name, one), other in zip(next(states).items(), next(states).values(), strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance, msg=name)


# Frozen layers


@pytest.mark.parametrize("ranks", [1, 2])
def test_frozen_layer_stays_as_it_is(frame: DataFrame, ranks: int) -> None:
    est = estimator(ranks, config={"frozen": True})
    fit(est, frame)
    first, fresh = est.get_model()[0], net({})[0]
    assert torch.equal(first.weight, fresh.weight)
    assert not torch.equal(est.get_model()[2].weight, net({})[2].weight)


class Unfreeze(Callback):
    """Trains the first layer too, from the second epoch on."""

    def __init__(self, method: str) -> None:
        self.method = method

    def on_epoch_begin(self, run: Run) -> None:
        if self.method == "on_epoch_begin" and run.epoch == 2:
            run.model.requires_grad_(True)

    def on_epoch_end(self, run: Run) -> None:
        if self.method == "on_epoch_end" and run.epoch == 1:
            run.model.requires_grad_(True)

    def on_step_end(self, run: Run) -> None:
        if self.method == "on_step_end" and run.iteration == 2:
            run.model.requires_grad_(True)


@pytest.mark.parametrize("method", ["on_epoch_begin", "on_epoch_end", "on_step_end"])
def test_layer_unfrozen_by_a_callback_is_trained_on_all_ranks(
    frame: DataFrame, method: str
) -> None:
    one, two = (estimator(r, config={"frozen": True}) for r in (1, 2))
    fit(one, frame, callbacks=[Unfreeze(method)])
    fit(two, frame, callbacks=[Unfreeze(method)])
    assert_same(one, two)
    assert not torch.equal(two.get_model()[0].weight, net({})[0].weight)


# Running statistics


class WritesStatistics(Callback):
    """Writes them down after every step, in a file for each rank."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_step_end(self, run: Run) -> None:
        norm = run.model[1]
        values = [*norm.running_mean.tolist(), *norm.running_var.tolist()]
        with (self.folder / f"rank{run.rank}").open("a") as file:
            file.write(" ".join(v.hex() for v in values) + f" {norm.num_batches_tracked}\n")


def test_running_statistics_agree_after_every_step(frame: DataFrame, tmp_path: Path) -> None:
    est = estimator(2, normed)
    fit(est, frame, callbacks=[WritesStatistics(tmp_path)])
    first, second = ((tmp_path / f"rank{r}").read_text().splitlines() for r in (0, 1))
    assert len(first) == 2 * STEPS
    assert first == second
    last = est.get_model()[1].running_mean.tolist()
    assert [float.fromhex(x) for x in first[-1].split()[:4]] == last


class Ends(Callback):
    """Ends its process with a signal, once, after a step of one rank."""

    def __init__(self, mark: Path, iteration: int = 8, rank: int = 1) -> None:
        self.mark, self.iteration, self.rank = mark, iteration, rank

    def on_step_end(self, run: Run) -> None:
        if (run.iteration, run.rank) == (self.iteration, self.rank) and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("model", [net, normed])
@pytest.mark.parametrize("rank", [0, 1])
def test_fit_whose_rank_is_killed_ends_as_if_undisturbed(
    frame: DataFrame, tmp_path: Path, model: Any, rank: int
) -> None:
    est, same = estimator(2, model), estimator(2, model)
    results = fit(est, frame, callbacks=[Ends(tmp_path / "mark", rank=rank)])
    expected = fit(same, frame)
    assert_same(est, same)
    for one, other in zip(results, expected, strict=True):
        assert one == pytest.approx(other, rel=1e-9)
    assert [r.ranks for r in est.report.rounds] == [2, 2]
    assert [r.ended for r in est.report.rounds] == ["a rank was lost", "done"]


def test_fit_whose_only_rank_is_killed_goes_back_to_its_state(
    frame: DataFrame, tmp_path: Path
) -> None:
    est, same = estimator(1), estimator(1)
    fit(est, frame, callbacks=[Ends(tmp_path / "mark", rank=0)])
    fit(same, frame)
    assert_same(est, same)
    assert len(est.report.rounds) == 2


def test_loss_without_retries_is_raised(frame: DataFrame, tmp_path: Path) -> None:
    est = estimator(recovery=Recovery(retries=0))
    with pytest.raises(RankError, match=r"rank 1 on .* \(process \d+\) was lost"):
        fit(est, frame, callbacks=[Ends(tmp_path / "mark")])
    fit(est, frame, epochs=1)


class Fails(nn.Module):
    """A loss that raises after some calls, and counts them."""

    def __init__(self, log: Path) -> None:
        super().__init__()
        self.log, self.calls = log, 0

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if "PYTHON_WORKER_FACTORY_SECRET" not in os.environ:  # tried on the driver
            return nn.functional.mse_loss(output, target)
        self.calls += 1
        with self.log.open("a") as file:
            file.write(f"{self.calls}\n")
        if self.calls == 3:
            raise ArithmeticError("my loss has an error")
        return nn.functional.mse_loss(output, target)


def test_error_of_the_user_is_raised_at_once(frame: DataFrame, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(ArithmeticError, match="my loss has an error") as caught:
        fit(estimator(loss=Fails(log)), frame)
    assert "Raised by rank" in "\n".join(caught.value.__notes__)
    assert log.read_text().splitlines().count("1") == 2
    assert log.read_text().splitlines().count("3") <= 2


class Sleeps(Callback):
    """One rank takes long for one step."""

    def on_step_end(self, run: Run) -> None:
        if run.iteration == 2 and run.rank == 1:
            time.sleep(3.5)


def test_rank_that_stalls_is_named_in_the_log(
    frame: DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    est = estimator(recovery=Recovery(stall_s=1.0))
    with caplog.at_level(logging.WARNING):
        fit(est, frame, epochs=1, callbacks=[Sleeps()])
    said = [r.getMessage() for r in caplog.records if "the others wait for it" in r.getMessage()]
    assert said
    assert all("rank 1 on" in text and "in a callback" in text for text in said)


# Numbers for people


class Keeps(Logger):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}
        self.rows: list[Any] = []
        self.closed: list[bool] = []

    def log_params(self, params: Mapping[str, Any]) -> None:
        self.params.update(params)

    def log(
        self, iteration: int, values: Mapping[str, float], *, kind: str, wall_time: float
    ) -> None:
        self.rows.append((kind, iteration, dict(values)))

    def close(self, *, failed: bool = False) -> None:
        self.closed.append(failed)


def test_logger_gets_what_describes_the_fit_and_every_step(frame: DataFrame) -> None:
    logger = Keeps()
    est = estimator(config={"seed": 3, "note": "mine"}, gradient_accumulation=2)
    results = fit(est, frame, callbacks=[logger], validation_data=frame)
    expected = {"batch_size": 16, "epochs": 2, "seed": 3, "note": "mine"}
    assert expected.items() <= logger.params.items()
    assert logger.params["gradient_accumulation"] == 2
    steps = [row for row in logger.rows if row[0] == "train"]
    assert [iteration for _, iteration, _ in steps] == list(range(1, 2 * STEPS + 1))
    assert steps[-1][2]["loss"] == pytest.approx(results[-1]["last_train_loss"])
    validated = [row for row in logger.rows if row[0] == "validation"]
    assert [iteration for _, iteration, _ in validated] == [STEPS, 2 * STEPS]
    assert validated[1][2] == {"val_loss": results[1]["val_loss"]}
    assert logger.closed == [False]


def test_logger_hears_that_a_fit_failed(frame: DataFrame, tmp_path: Path) -> None:
    logger = Keeps()
    with pytest.raises(ArithmeticError):
        fit(estimator(loss=Fails(tmp_path / "log")), frame, callbacks=[logger])
    assert logger.closed == [True]


class Adds(Callback):
    """Adds a number of its own to every epoch."""

    def on_epoch_end(self, run: Run) -> None:
        run.logs["worth"] = 3.0 * run.epoch


def test_number_of_a_callback_reaches_logger_and_result(frame: DataFrame) -> None:
    logger = Keeps()
    results = fit(estimator(), frame, callbacks=[Adds(), logger])
    assert [r["worth"] for r in results] == [3.0, 6.0]
    assert ("train", 2 * STEPS, {"worth": 6.0}) in logger.rows


@pytest.mark.parametrize("killed", [False, True])
def test_tensorboard_has_one_row_for_every_step(
    frame: DataFrame, tmp_path: Path, killed: bool
) -> None:
    est = estimator(metrics=[MSE()])
    est.set_tensorboard(tmp_path, "app")
    ends = [Ends(tmp_path / "mark")] if killed else []
    results = fit(est, frame, validation_data=frame, callbacks=ends)
    losses = est.get_train_summary("Loss")
    assert [row[0] for row in losses] == list(range(1, 2 * STEPS + 1))
    assert losses[-1][1] == pytest.approx(results[-1]["last_train_loss"], rel=1e-6)
    rates = est.get_train_summary("LearningRate")
    assert [row[1] for row in rates] == pytest.approx([0.05] * 2 * STEPS)
    speed = est.get_train_summary("Throughput")
    assert len(speed) >= 2 * STEPS - 3
    assert all(row[1] > 0 for row in speed)
    scores = est.get_validation_summary("MSE")
    assert [row[:2] for row in scores] == [
        [STEPS * (k + 1), pytest.approx(r["val_MSE"], rel=1e-6)] for k, r in enumerate(results)
    ]
    assert len(est.get_validation_summary("Loss")) == 2


def test_second_fit_goes_on_in_the_summary(frame: DataFrame, tmp_path: Path) -> None:
    est = estimator()
    est.set_tensorboard(tmp_path, "app")
    fit(est, frame, epochs=1)
    fit(est, frame, epochs=1)
    assert [row[0] for row in est.get_train_summary("Loss")] == list(range(1, 2 * STEPS + 1))
