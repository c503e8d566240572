"""TensorBoard event files: written, read, cut, and seen by others."""

import logging
import os
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from zoo.errors import InputError, MissingExtraError
from zoo.orca.learn.loggers import Logger
from zoo.orca.learn.tensorboard import TagError, TensorBoardSummary, read_scalar, read_summary

pytest.importorskip("tensorboardX")


def write(
    folder: Path, rows: Mapping[int, float], *, kind: str = "train", name: str = "loss"
) -> None:
    """One fit: rows of one name."""
    summary = TensorBoardSummary(str(folder), "app")
    for iteration, value in rows.items():
        summary.log(iteration, {name: value}, kind=kind, wall_time=1000.0 + value)  # type: ignore[arg-type]
    summary.close()


def steps(rows: list[list[float]]) -> dict[float, float]:
    return {step: value for step, value, _ in rows}


def test_rows_come_back(tmp_path: Path) -> None:
    write(tmp_path, {1: 4.0, 2: 2.0, 3: 1.0})
    rows = read_summary(str(tmp_path), "app", "train", "Loss")
    assert rows == [[1, 4.0, 1004.0], [2, 2.0, 1002.0], [3, 1.0, 1001.0]]


@pytest.mark.parametrize(
    ("kind", "name", "tag"),
    [
        ("train", "loss", "Loss"),
        ("train", "lr", "LearningRate"),
        ("train", "throughput", "Throughput"),
        ("validation", "val_loss", "Loss"),
        ("validation", "val_Top1Accuracy", "Top1Accuracy"),
        ("validation", "HitRate@10", "HitRate@10"),
    ],
)
def test_names_become_the_tags_that_programs_read(
    tmp_path: Path, kind: str, name: str, tag: str
) -> None:
    write(tmp_path, {5: 0.5}, kind=kind, name=name)
    assert steps(read_summary(str(tmp_path), "app", kind, tag)) == {5: 0.5}  # type: ignore[arg-type]


def test_folders_are_those_of_the_reference(tmp_path: Path) -> None:
    write(tmp_path, {1: 1.0})
    write(tmp_path, {1: 1.0}, kind="validation")
    found = {path.parent.name: path.name for path in tmp_path.glob("app/*/*")}
    assert sorted(found) == ["train", "validation"]
    assert found["train"].startswith("events.out.tfevents.")


def test_fits_of_one_second_are_kept_apart(tmp_path: Path) -> None:
    for start in (0, 10, 20):
        write(tmp_path, {start + 1: 1.0, start + 2: 1.0})
    assert list(steps(read_scalar(tmp_path / "app" / "train", "Loss"))) == [1, 2, 11, 12, 21, 22]


def test_steps_taken_again_replace_the_lost_ones(tmp_path: Path) -> None:
    summary = TensorBoardSummary(tmp_path, "app")
    for iteration, value in [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (2, 20.0)]:
        summary.log(iteration, {"loss": value}, kind="train", wall_time=1.0)
    summary.close()
    assert steps(read_scalar(summary.folder / "train", "Loss")) == {1: 1.0, 2: 20.0}


def test_resumed_run_replaces_what_its_start_had_not_saved(tmp_path: Path) -> None:
    write(tmp_path, {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0})
    write(tmp_path, {3: 30.0})
    assert steps(read_scalar(tmp_path / "app" / "train", "Loss")) == {1: 1.0, 2: 2.0, 3: 30.0}


def test_new_training_replaces_validations_of_an_old_one(tmp_path: Path) -> None:
    write(tmp_path, {2: 1.0, 4: 1.0}, kind="validation")
    summary = TensorBoardSummary(tmp_path, "app")
    summary.log(1, {"loss": 1.0}, kind="train", wall_time=1.0)
    summary.log(3, {"val_loss": 7.0}, kind="validation", wall_time=1.0)
    summary.close()
    assert steps(read_summary(tmp_path, "app", "validation", "Loss")) == {3: 7.0}


def test_later_row_of_an_iteration_counts(tmp_path: Path) -> None:
    write(tmp_path, {1: 1.0, 2: 2.0})
    summary = TensorBoardSummary(tmp_path, "app")
    summary.log(3, {"loss": 3.0}, kind="train", wall_time=1.0)
    summary.log(3, {"loss": 4.0}, kind="train", wall_time=2.0)
    summary.close()
    assert read_scalar(summary.folder / "train", "Loss")[-1] == [3, 4.0, 2.0]


def test_rows_can_be_read_while_written(tmp_path: Path) -> None:
    summary = TensorBoardSummary(tmp_path, "app")
    summary.log(1, {"loss": 1.0}, kind="train", wall_time=1.0)
    assert steps(read_scalar(summary.folder / "train", "Loss")) == {1: 1.0}
    summary.close()


def test_logging_after_close_goes_on(tmp_path: Path) -> None:
    summary = TensorBoardSummary(tmp_path, "app")
    for iteration in (1, 2):
        summary.log(iteration, {"loss": 1.0}, kind="train", wall_time=1.0)
        summary.close()
    assert steps(read_scalar(summary.folder / "train", "Loss")) == {1: 1.0, 2: 1.0}


@pytest.mark.parametrize("cut", [1, 20])
def test_cut_file_is_read_up_to_there(tmp_path: Path, cut: int) -> None:
    write(tmp_path, {1: 1.0, 2: 2.0})
    (file,) = tmp_path.glob("app/train/*")
    file.write_bytes(file.read_bytes()[:-cut])
    assert steps(read_scalar(file.parent, "Loss")) == {1: 1.0}


def test_nothing_written_is_nothing_read(tmp_path: Path) -> None:
    assert read_summary(str(tmp_path), "app", "train", "Loss") == []
    TensorBoardSummary(tmp_path, "app").close()
    assert read_summary(str(tmp_path), "app", "train", "Loss") == []


def test_unknown_metric_says_which_are_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, {1: 1.0}, kind="validation", name="val_MAE")
    with caplog.at_level(logging.WARNING):
        assert read_summary(str(tmp_path), "app", "validation", "MSE") == []
    assert "which has MAE" in caplog.text


@pytest.mark.parametrize("tag", ["loss", "Parameters", None])
def test_other_train_tags_are_type_errors(tmp_path: Path, tag: str | None) -> None:
    with pytest.raises(TypeError, match="Loss, LearningRate, Throughput") as caught:
        read_summary(str(tmp_path), "app", "train", tag)
    assert type(pickle.loads(pickle.dumps(caught.value))) is TagError


def test_remote_folder_is_refused_at_once() -> None:
    with pytest.raises(InputError, match="local path or file://"):
        TensorBoardSummary("memory://logs", "app")


def test_file_scheme_and_strange_names_are_taken(tmp_path: Path) -> None:
    summary = TensorBoardSummary(f"file://{tmp_path}/a b", "ünï [1]\n2")
    summary.log(1, {"loss": 1.0}, kind="train", wall_time=1.0)
    summary.close()
    rows = read_summary(f"file://{tmp_path}/a b", "ünï [1]\n2", "train", "Loss")
    assert steps(rows) == {1: 1.0}


def test_file_in_the_way_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "app").write_text("")
    with pytest.raises(InputError, match="folders can be made"):
        TensorBoardSummary(tmp_path, "app")


def test_disk_that_fails_does_not_end_the_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    summary = TensorBoardSummary(tmp_path, "app")
    (summary.folder / "train").rmdir()
    (summary.folder / "train").touch()
    for iteration in (1, 2):
        summary.log(iteration, {"loss": 1.0}, kind="train", wall_time=1.0)
    summary.close()
    assert caplog.text.count("No more summaries") == 1


def test_full_disk_is_said_at_the_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    summary = TensorBoardSummary(tmp_path, "app")
    summary.log(1, {"loss": 1.0}, kind="train", wall_time=1.0)
    with open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), summary._files["train"]._writer._writer.fileno())
    summary.log(2, {"loss": 1.0}, kind="train", wall_time=1.0)
    summary.close()
    assert "No space left" in caplog.text


@pytest.mark.slow
def test_tensorflow_reads_the_files(tmp_path: Path) -> None:
    tensorflow = pytest.importorskip("tensorflow")
    write(tmp_path, {1: 0.5, 2: 0.25})
    (file,) = tmp_path.glob("app/train/*")
    events = tensorflow.compat.v1.train.summary_iterator(str(file))
    rows = [(e.step, v.tag, v.simple_value) for e in events for v in e.summary.value]
    assert rows == [(1, "Loss", 0.5), (2, "Loss", 0.25)]


def test_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(MissingExtraError, match=r"zoo\[tensorboard\]"):
        TensorBoardSummary(tmp_path, "app")


def test_base_logger_takes_everything() -> None:
    logger = Logger()
    logger.log_params({"a": 1})
    logger.log(1, {"loss": 1.0}, kind="train", wall_time=1.0)
    logger.close(failed=True)
