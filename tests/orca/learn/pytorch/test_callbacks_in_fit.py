"""Callbacks end to end: on all ranks, with the same numbers, and their state goes on."""

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

from zoo.orca.learn.callbacks import Callback, EarlyStopping, KeepBest, Run, StopWhen
from zoo.orca.learn.metrics import MSE
from zoo.orca.learn.pytorch import Estimator
from zoo.orca.learn.trigger import MaxIteration, SeveralIteration

# Ranks cannot import a test module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.spark

STEPS = 4


@pytest.fixture(scope="module")
def frame(spark: SparkSession) -> Iterator[DataFrame]:
    """64 rows, four steps of 16."""
    columns = ["sin(id) a", "cos(3 * id) b", "sin(id) - 2 * cos(3 * id) + 1 y"]
    made = spark.range(0, 64, 1, 2).selectExpr(*columns).persist()
    yield made
    made.unpersist()


def linear(config: dict[str, Any]) -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)).double()


def sgd(model: nn.Module, config: dict[str, Any]) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=config.get("lr", 0.05))


def estimator(ranks: int = 2, **given: Any) -> Any:
    return Estimator.from_torch(
        model=linear, optimizer=sgd, loss=nn.MSELoss(), workers_per_node=ranks, **given
    )


def fit(est: Any, frame: DataFrame, epochs: int = 2, **given: Any) -> Any:
    columns = {"feature_cols": ["a", "b"], "label_cols": ["y"]}
    return est.fit(frame, epochs=epochs, batch_size=16, **columns, **given)


class Notes(Callback):
    """Writes down in a file for each rank what it was told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _note(self, run: Run, what: str) -> None:
        with (self.folder / f"rank{run.rank}").open("a") as file:
            file.write(f"{what} {run.epoch}.{run.step}.{run.iteration} {sorted(run.logs)}\n")

    def on_train_begin(self, run: Run) -> None:
        self._note(run, "train begins")

    def on_epoch_begin(self, run: Run) -> None:
        self._note(run, "epoch begins")

    def on_step_end(self, run: Run) -> None:
        self._note(run, "step ends")

    def on_epoch_end(self, run: Run) -> None:
        self._note(run, "epoch ends")

    def on_train_end(self, run: Run) -> None:
        self._note(run, "train ends")


def test_every_rank_is_told_the_same_in_order(frame: DataFrame, tmp_path: Path) -> None:
    fit(estimator(), frame, epochs=1, callbacks=[Notes(tmp_path)])
    first, second = ((tmp_path / f"rank{r}").read_text().splitlines() for r in (0, 1))
    assert first == second
    step = "['loss', 'lr']"
    assert first[1:] == [
        "epoch begins 1.0.0 []",
        *(f"step ends 1.{k}.{k} {step}" for k in range(1, STEPS + 1)),
        "epoch ends 1.4.4 ['lr', 'train_loss']",
        "train ends 1.4.4 ['lr', 'train_loss']",
    ]


class Means(Callback):
    """Compares the mean so far with that of the losses it was told."""

    def on_train_begin(self, run: Run) -> None:
        self.losses: list[float] = []
        assert run.steps == STEPS

    def on_step_end(self, run: Run) -> None:
        self.losses.append(run.logs["loss"])
        assert run.mean_loss == pytest.approx(sum(self.losses) / len(self.losses))

    def on_epoch_end(self, run: Run) -> None:
        assert run.mean_loss == run.logs["train_loss"]


def test_mean_loss_and_steps_of_the_epoch_are_known(frame: DataFrame) -> None:
    fit(estimator(), frame, epochs=1, callbacks=[Means()])


class StopsAt(Callback):
    """One rank asks for the end after a step."""

    def __init__(self, iteration: int, rank: int) -> None:
        self.iteration, self.rank = iteration, rank

    def on_step_end(self, run: Run) -> None:
        if run.iteration == self.iteration and run.rank == self.rank:
            run.stop("it is enough")


@pytest.mark.parametrize(("ranks", "iteration"), [(1, 2), (2, 2), (2, 4), (2, 5)])
def test_fit_ends_after_the_step_at_which_one_rank_asks(
    frame: DataFrame, ranks: int, iteration: int
) -> None:
    est, same = estimator(ranks), estimator(ranks)
    results = fit(est, frame, callbacks=[StopsAt(iteration, ranks - 1)])
    assert sum(r["batch_count"] for r in results) == iteration
    whole, rest = divmod(iteration, STEPS)
    assert [r["batch_count"] for r in results] == [STEPS] * whole + [rest] * bool(rest)
    if not rest:
        fit(same, frame, epochs=whole)
        assert_same(est, same)


def test_stop_by_a_trigger_is_exact(frame: DataFrame, tmp_path: Path) -> None:
    est = estimator()
    stop = StopWhen(MaxIteration(3))
    results = fit(est, frame, callbacks=[stop, Notes(tmp_path)])
    assert [r["num_samples"] for r in results] == [48]
    steps = [x for x in (tmp_path / "rank0").read_text().splitlines() if x.startswith("step")]
    assert len(steps) == 3


def test_early_stopping_ends_all_ranks_at_the_same_epoch(frame: DataFrame, tmp_path: Path) -> None:
    est = estimator(config={"lr": 0.0})
    stop = EarlyStopping(patience=2)
    results = fit(est, frame, 9, validation_data=frame, callbacks=[stop, Notes(tmp_path)])
    assert [r["epoch"] for r in results] == [1, 2, 3]
    ends = [(tmp_path / f"rank{r}").read_text().splitlines()[-1][:12] for r in (0, 1)]
    assert ends == ["train ends 3", "train ends 3"]


def test_resuming_after_an_early_stop_trains_no_more(frame: DataFrame, tmp_path: Path) -> None:
    def run(**given: Any) -> Any:
        est = estimator(1, config={"lr": 0.0}, model_dir=str(tmp_path))
        stop = [EarlyStopping(patience=2)]
        return fit(est, frame, 9, validation_data=frame, callbacks=stop, **given)

    assert [epoch["epoch"] for epoch in run()] == [1, 2, 3]
    assert [epoch["epoch"] for epoch in run(resume=True)] == [1, 2, 3]


class Rising(Callback):
    """A number of an epoch that is best in the second one."""

    def on_epoch_end(self, run: Run) -> None:
        run.logs["worth"] = float(10 - abs(run.epoch - 2))


def test_best_epoch_is_kept_and_goes_on(frame: DataFrame, tmp_path: Path) -> None:
    best = tmp_path / "deep" / "best"
    keep = KeepBest(str(best), monitor="worth")
    results = fit(estimator(), frame, epochs=4, callbacks=[Rising(), keep])
    assert [r["worth"] for r in results] == [9.0, 10.0, 9.0, 8.0]
    loaded, plain = estimator().load(str(best)), estimator()
    fit(plain, frame, epochs=2)
    assert_same(loaded, plain)
    # The file is that of a whole epoch: the next fit is the third one, with any batch size.
    assert [r["epoch"] for r in fit(loaded, frame, epochs=1)] == [3]
    fit(plain, frame, epochs=1)
    assert_same(loaded, plain)


class Saves(Callback):
    """Saves inside an epoch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_step_end(self, run: Run) -> None:
        if run.iteration == 2:
            run.save(str(self.path))


def test_file_saved_inside_an_epoch_goes_on_there(frame: DataFrame, tmp_path: Path) -> None:
    est = estimator()
    fit(est, frame, epochs=1, callbacks=[Saves(tmp_path / "inside")])
    loaded = estimator().load(str(tmp_path / "inside"))
    result = fit(loaded, frame, epochs=1)
    assert [(r["epoch"], r["batch_count"], r["num_samples"]) for r in result] == [(1, 4, 64)]
    assert_same(loaded, est)


class Counts(Callback):
    """Counts steps, and remembers."""

    def __init__(self) -> None:
        self.steps = 0

    def on_step_end(self, run: Run) -> None:
        self.steps += 1

    def on_epoch_end(self, run: Run) -> None:
        run.logs["steps_seen"] = self.steps

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steps = state["steps"]


def test_state_of_a_callback_goes_on_after_resume(frame: DataFrame, tmp_path: Path) -> None:
    when = {"checkpoint_trigger": SeveralIteration(2)}
    est = estimator(model_dir=str(tmp_path))
    fit(est, frame, callbacks=[Counts(), StopsAt(7, 0)], **when)
    again = estimator(1, model_dir=str(tmp_path))
    results = fit(again, frame, callbacks=[Counts()], resume=True)
    assert [r["steps_seen"] for r in results] == [4, 8]


def test_callback_sees_validation(frame: DataFrame, tmp_path: Path) -> None:
    est = estimator(metrics=[MSE()])
    results = fit(est, frame, 1, validation_data=frame, callbacks=[Notes(tmp_path)])
    told = (tmp_path / "rank1").read_text().splitlines()[-2]
    assert told.endswith("['lr', 'train_loss', 'val_MSE', 'val_loss']")
    assert results[0]["val_MSE"] == pytest.approx(results[0]["val_loss"])


class Sleeps(Callback):
    """Takes its time at the end of an epoch."""

    def on_epoch_end(self, run: Run) -> None:
        time.sleep(0.3)


def test_the_end_of_an_epoch_is_in_its_times(frame: DataFrame, tmp_path: Path) -> None:
    est = estimator(1, model_dir=str(tmp_path))
    fit(est, frame, callbacks=[Sleeps()])
    (rank,) = est.report.ranks
    assert 0 < rank.snapshot_s < rank.observe_s
    assert 0.6 <= rank.observe_s < rank.seconds
    assert "callbacks and snapshots" in est.explain()


class Fails(Callback):
    """Raises in one rank."""

    def on_epoch_end(self, run: Run) -> None:
        if run.rank == 1:
            raise KeyError("no such thing")


def test_error_of_a_callback_names_it(frame: DataFrame) -> None:
    with pytest.raises(KeyError, match="no such thing") as caught:
        fit(estimator(), frame, callbacks=[Fails()])
    notes = "\n".join(caught.value.__notes__)
    assert "raised in Fails.on_epoch_end, a callback" in notes
    assert "rank 1" in notes


def test_rate_changed_by_a_callback_counts_on_all_ranks(frame: DataFrame) -> None:
    class Halve(Callback):
        def on_epoch_end(self, run: Run) -> None:
            for group in run.optimizer.param_groups:
                group["lr"] /= 2

    est, alone = estimator(2), estimator(1)
    results = fit(est, frame, callbacks=[Halve()])
    fit(alone, frame, callbacks=[Halve()])
    assert results[1]["lr"] == pytest.approx(0.0125)
    assert_same(est, alone, tolerance=1e-12)


def assert_same(left: Any, right: Any, tolerance: float = 0.0) -> None:
    pairs = zip(left.get_model().parameters(), right.get_model().parameters(), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, atol=tolerance, rtol=0)
