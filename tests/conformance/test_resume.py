"""A training that was broken off goes on as if it had not been: in any process, with any ranks.

The same file is the program of the other process, which gets the folder as its argument.
"""

import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pyspark import cloudpickle
from pyspark.sql import DataFrame, SparkSession
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, TensorDataset

from zoo.errors import InputError
from zoo.orca import OrcaContext, init_orca_context, stop_orca_context
from zoo.orca.learn.callbacks import Callback, Run
from zoo.orca.learn.optimizers import SGD
from zoo.orca.learn.optimizers.schedule import Poly
from zoo.orca.learn.pytorch import Estimator
from zoo.orca.learn.trigger import SeveralIteration

# Ranks cannot import a test module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.spark

ROWS, BATCH, STEPS = 90, 16, 6


def frame_of(spark: SparkSession, rows: int = ROWS, parts: int = 3) -> DataFrame:
    """90 rows in three partitions: six steps, the last one short; `id` is a feature."""
    columns = ["sin(id) a", "cos(3 * id) b", "double(id) id", "sin(id) - 2 * cos(3 * id) + 1 y"]
    return spark.range(0, rows, 1, parts).selectExpr(*columns)


@pytest.fixture(scope="module")
def frame(spark: SparkSession) -> Iterator[DataFrame]:
    made = frame_of(spark).persist()
    yield made
    made.unpersist()


class Net(nn.Module):
    """Small and not linear, with dropout left out so that ranks may change; writes down rows."""

    def __init__(self, log: str | None) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 1), nn.Flatten(0))
        self.log = log

    def forward(self, x: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        if self.log is not None and self.training:
            with open(self.log, "a") as file:
                file.write(" ".join(str(int(r)) for r in row) + "\n")
        return self.layers(x)


def make_net(config: dict[str, Any]) -> nn.Module:
    torch.manual_seed(11)
    return Net(config.get("log")).double()


def adam(model: nn.Module, config: dict[str, Any]) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.02)


def momentum(model: nn.Module, config: dict[str, Any]) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True)


def cosine(optimizer: torch.optim.Optimizer, config: dict[str, Any]) -> Any:
    return CosineAnnealingLR(optimizer, T_max=4 * STEPS)


KINDS: dict[str, dict[str, Any]] = {
    "adam": {"optimizer": adam},
    "momentum": {"optimizer": momentum},
    "cosine": {"optimizer": adam, "scheduler_creator": cosine},
    "cosine by epoch": {
        "optimizer": momentum,
        "scheduler_creator": lambda optimizer, config: CosineAnnealingLR(optimizer, T_max=4),
        "scheduler_step_freq": "epoch",
    },
    "schedule of orca": {
        "optimizer": SGD(0.1, momentum=0.9, learningrate_schedule=Poly(2.0, 5 * STEPS))
    },
    "half precision": {"optimizer": adam, "precision": "fp16"},
}


def estimator(kind: str = "adam", ranks: int = 2, **given: Any) -> Any:
    return Estimator.from_torch(
        model=make_net, loss=nn.MSELoss(), workers_per_node=ranks, **KINDS[kind], **given
    )


def fit(est: Any, frame: DataFrame, epochs: int = 3, **given: Any) -> Any:
    columns = {"feature_cols": [["a", "b"], "id"], "label_cols": ["y"], "batch_size": BATCH}
    return est.fit(frame, epochs=epochs, **(columns | given))


def weights(est: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in est.get_model().state_dict().items()}


def assert_same(left: Any, right: Any, tolerance: float = 1e-9) -> None:
    for (name, one), other in zip(left.items(), right.values(), strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance, msg=name)


class StopsAt(Callback):
    """Breaks the fit off."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def on_step_end(self, run: Run) -> None:
        if run.iteration == self.iteration:
            run.stop("enough")


def broken_off(
    frame: DataFrame, folder: Path, at: int = 10, every: int = 4, ranks: int = 2, **given: Any
) -> None:
    """A fit of three epochs that ends after a step; its newest snapshot is a little older."""
    est = estimator(ranks=ranks, model_dir=str(folder), **given)
    fit(est, frame, checkpoint_trigger=SeveralIteration(every), callbacks=[StopsAt(at)])


@pytest.fixture(scope="module")
def undisturbed(frame: DataFrame) -> Any:
    """What an undisturbed fit of three epochs gives."""
    est = estimator()
    return fit(est, frame), weights(est)


# Another process


@pytest.fixture(scope="module")
def elsewhere(
    frame: DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """Two epochs of every kind here, two more in another process; a broken off fit goes on there.

    Gives what the other process holds at its end.
    """
    folder = tmp_path_factory.mktemp("elsewhere")
    for kind in KINDS:
        est = estimator(kind)
        fit(est, frame, epochs=2)
        est.save(str(folder / kind))
    broken_off(frame, folder / "broken off")
    program = [sys.executable, "-W", "error::UserWarning", __file__, str(folder)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, Any]] = torch.load(folder / "found", weights_only=True)
    return found


def go_on(folder: Path) -> None:
    """What the other process does."""
    init_orca_context(cores=4, memory="1g", conf={"spark.ui.enabled": "false"})
    frame = frame_of(OrcaContext.get_spark_session()).persist()
    found: dict[str, Any] = {}
    for kind in KINDS:
        est = estimator(kind).load(str(folder / kind))
        results = list(fit(est, frame, epochs=2))
        found[kind] = {"weights": weights(est), "results": results}
    est = estimator(ranks=4, model_dir=str(folder / "broken off"))
    results = list(fit(est, frame, resume=True))
    found["broken off"] = {"weights": weights(est), "results": results}
    torch.save(found, folder / "found")
    stop_orca_context()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
def test_two_epochs_and_two_in_a_new_process_are_four(
    frame: DataFrame, elsewhere: dict[str, dict[str, Any]], kind: str
) -> None:
    est = estimator(kind)
    results = fit(est, frame, epochs=4)
    assert_same(weights(est), elsewhere[kind]["weights"])
    for one, other in zip(results[2:], elsewhere[kind]["results"], strict=True):
        assert one == pytest.approx(other, rel=1e-9)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_new_process_goes_on_inside_the_epoch(
    undisturbed: Any, elsewhere: dict[str, dict[str, Any]]
) -> None:
    results, expected = undisturbed
    assert_same(expected, elsewhere["broken off"]["weights"])
    for one, other in zip(results, elsewhere["broken off"]["results"], strict=True):
        assert one == pytest.approx(other, rel=1e-9)


# This process


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_fit_goes_on_inside_the_epoch_with_other_ranks(
    frame: DataFrame, tmp_path: Path, undisturbed: Any, ranks: int
) -> None:
    broken_off(frame, tmp_path, ranks=3 - min(ranks, 2))
    est = estimator(ranks=ranks, model_dir=str(tmp_path))
    results = list(fit(est, frame, resume=True))
    assert_same(undisturbed[1], weights(est))
    assert [r["epoch"] for r in results] == [1, 2, 3]
    for one, other in zip(undisturbed[0], results, strict=True):
        assert one == pytest.approx(other, rel=1e-9)


def test_each_row_is_used_once_an_epoch(frame: DataFrame, tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    broken_off(frame, tmp_path / "m", at=8, every=8, ranks=1, config={"log": str(before)})
    again = estimator(ranks=2, model_dir=str(tmp_path / "m"), config={"log": str(after)})
    fit(again, frame, epochs=2, resume=True)
    used = Counter((before.read_text() + after.read_text()).split())
    assert used == {str(row): 2 for row in range(ROWS)}
    assert len(before.read_text().splitlines()) == 8


def test_checkpoint_of_orca_goes_on_in_the_begun_epoch(
    frame: DataFrame, tmp_path: Path, undisturbed: Any
) -> None:
    broken_off(frame, tmp_path)
    est = estimator(ranks=1)
    run = next(tmp_path.iterdir())
    est.load_orca_checkpoint(str(run), version=8, prefix="orca")
    # The second epoch was begun, so two epochs are the rest of it and the third.
    results = fit(est, frame, epochs=2)
    assert [r["epoch"] for r in results] == [2, 3]
    assert [r["num_samples"] for r in results] == [ROWS, ROWS]
    assert_same(undisturbed[1], weights(est))


def test_back_to_the_last_whole_epoch(frame: DataFrame, tmp_path: Path, undisturbed: Any) -> None:
    broken_off(frame, tmp_path, every=2)
    est = estimator(model_dir=str(tmp_path), keep_snapshots=None)
    results = fit(est, frame, resume="epoch")
    assert_same(undisturbed[1], weights(est))
    assert len(results) == 3


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"batch_size": 18}, "batch_size 18 instead of 16"),
        ({"seed": 5}, "seed of the order 5 instead of 0"),
        ({"rows": 89}, "rows 89 instead of 90"),
        ({"parts": 2}, "partitions 2 instead of 3"),
    ],
    ids=["batch size", "seed", "rows", "partitions"],
)
def test_other_data_is_refused_inside_an_epoch(
    frame: DataFrame, begun: Path, other: dict[str, int], said: str
) -> None:
    data = {k: v for k, v in other.items() if k in ("rows", "parts")}
    config = {"seed": other["seed"]} if "seed" in other else {}
    est = estimator(model_dir=str(begun), config=config)
    frame = frame_of(frame.sparkSession, **data) if data else frame
    with pytest.raises(InputError, match=said) as caught:
        fit(est, frame, resume=True, batch_size=other.get("batch_size", BATCH))
    assert "resume='epoch'" in str(caught.value)


@pytest.fixture(scope="module")
def begun(frame: DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a fit that was broken off inside its second epoch."""
    folder = tmp_path_factory.mktemp("begun")
    broken_off(frame, folder)
    return folder


def test_other_values_in_the_same_rows_are_refused(frame: DataFrame, begun: Path) -> None:
    other = frame.selectExpr("a", "b", "id", "y + 1 y")
    with pytest.raises(InputError, match="another content of partitions"):
        fit(estimator(model_dir=str(begun)), other, resume=True)


def test_without_a_snapshot_the_fit_begins_from_scratch(
    frame: DataFrame, tmp_path: Path, undisturbed: Any
) -> None:
    est = estimator(model_dir=str(tmp_path / "nothing"))
    assert len(fit(est, frame, resume=True)) == 3
    assert_same(undisturbed[1], weights(est))


def test_finished_fit_is_not_done_again(frame: DataFrame, tmp_path: Path, undisturbed: Any) -> None:
    first = estimator(model_dir=str(tmp_path / "m"))
    done = fit(first, frame)
    log = tmp_path / "log"
    est = estimator(model_dir=str(tmp_path / "m"), config={"log": str(log)})
    again = fit(est, frame, resume=True)
    assert again == done
    assert not log.exists()
    assert_same(undisturbed[1], weights(est))
    # It counts from where that fit began; a plain fit goes on from its end.
    assert [r["epoch"] for r in fit(est, frame, epochs=1)] == [4]


def test_damaged_snapshot_is_passed_over(
    frame: DataFrame, begun: Path, tmp_path: Path, undisturbed: Any
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(begun, folder)
    newest = max(folder.glob("*/model.*"), key=lambda p: int(p.suffix[1:]))
    blob = bytearray(newest.read_bytes())
    blob[len(blob) // 2] ^= 1
    newest.write_bytes(bytes(blob))
    est = estimator(model_dir=str(folder))
    fit(est, frame, resume=True)
    assert_same(undisturbed[1], weights(est))


def test_fit_resumes_from_storage_that_is_no_local_disk(
    frame: DataFrame, tmp_path: Path, undisturbed: Any
) -> None:
    place = f"local://{tmp_path}/m"
    est = estimator(model_dir=place)
    fit(est, frame, checkpoint_trigger=SeveralIteration(4), callbacks=[StopsAt(9)])
    again = estimator(model_dir=place)
    fit(again, frame, resume=True)
    assert_same(undisturbed[1], weights(again))


def test_second_fit_is_resumed_from_where_it_began(frame: DataFrame, tmp_path: Path) -> None:
    est = estimator(model_dir=str(tmp_path))
    fit(est, frame, epochs=1)
    fit(est, frame, epochs=2, checkpoint_trigger=SeveralIteration(2), callbacks=[StopsAt(10)])
    again = estimator(model_dir=str(tmp_path))
    results = fit(again, frame, epochs=2, resume=True)
    assert [r["epoch"] for r in results] == [2, 3]
    whole = estimator()
    fit(whole, frame, epochs=3)
    assert_same(weights(whole), weights(again))


def loader(config: dict[str, Any], batch_size: int) -> DataLoader[Any]:
    """The same rows as a shuffled data loader."""
    row = torch.arange(ROWS, dtype=torch.float64)
    x = torch.stack([row.sin(), (3 * row).cos()], dim=1)
    rows = TensorDataset(x, row, x[:, 0] - 2 * x[:, 1] + 1)
    return DataLoader(rows, batch_size=batch_size, shuffle=True)


def test_loaders_go_on_inside_the_epoch(spark: SparkSession, tmp_path: Path) -> None:
    log, folder = tmp_path / "log", str(tmp_path / "m")
    given: dict[str, Any] = {"epochs": 2, "feature_cols": None, "label_cols": None}
    whole = estimator()
    fit(whole, loader, **given)
    one, two = (estimator(ranks=r, model_dir=folder, config={"log": str(log)}) for r in (1, 2))
    when = {"checkpoint_trigger": SeveralIteration(8), "callbacks": [StopsAt(8)]}
    fit(one, loader, **given, **when)
    fit(two, loader, **given, resume=True)
    assert_same(weights(whole), weights(two))
    assert Counter(log.read_text().split()) == {str(row): 2 for row in range(ROWS)}


@pytest.mark.parametrize("wrong", ["yes", 2, None])
def test_word_that_is_no_way_to_resume(frame: DataFrame, wrong: Any) -> None:
    with pytest.raises(InputError, match="resume as True, False or 'epoch'"):
        fit(estimator(model_dir="/nowhere"), frame, resume=wrong)


def test_resume_needs_a_folder(frame: DataFrame) -> None:
    with pytest.raises(InputError, match="model_dir"):
        fit(estimator(), frame, resume=True)


def test_run_tells_its_facts_in_plain_values(begun: Path) -> None:
    newest = max(begun.glob("*/model.*"), key=lambda p: int(p.suffix[1:]))
    state = torch.load(newest, weights_only=True)
    assert (state["epoch"], state["step"], state["iteration"]) == (1, 2, 8)
    assert json.loads(json.dumps(state["extras"]))["fit"]["first_epoch"] == 0


if __name__ == "__main__":
    go_on(Path(sys.argv[1]))
