"""What the driver does with snapshots, files and numbers of a fit."""

import logging
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from fsspec.implementations.local import LocalFileSystem

from zoo.cluster.ranks.messages import Message
from zoo.orca.learn.driver.keeper import FitKeeper, write_whole
from zoo.orca.learn.driver.snapshots import SnapshotStore, unseal
from zoo.orca.learn.loggers import Logger
from zoo.orca.learn.steps import EpochStats


@pytest.fixture(scope="module")
def payload(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What torch.save writes."""
    path = tmp_path_factory.mktemp("payload") / "state"
    torch.save({"format": "some", "weights": torch.arange(10)}, path)
    return path.read_bytes()


def state(payload: bytes, why: str = "snapshot", **facts: Any) -> Message:
    return Message(0, "state", {"why": why, "iteration": 8, **facts}, payload)


class Rows(Logger):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}
        self.rows: list[Any] = []
        self.closed: list[bool] = []
        self.heard = threading.Event()

    def log_params(self, params: Mapping[str, Any]) -> None:
        self.params.update(params)

    def log(
        self, iteration: int, values: Mapping[str, float], *, kind: str, wall_time: float
    ) -> None:
        self.rows.append((iteration, dict(values), kind, wall_time))
        self.heard.set()

    def close(self, *, failed: bool = False) -> None:
        self.closed.append(failed)


# Files


def test_file_appears_with_its_folders(tmp_path: Path) -> None:
    write_whole(tmp_path / "a b" / "ö[1]" / "model", b"content")
    assert (tmp_path / "a b" / "ö[1]" / "model").read_bytes() == b"content"
    assert [p.name for p in (tmp_path / "a b" / "ö[1]").iterdir()] == ["model"]


def test_file_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").write_bytes(b"old")

    def full(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[:2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_whole(tmp_path / "model", b"new content")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model").read_bytes() == b"old"


def test_file_elsewhere_than_on_a_disk(tmp_path: Path) -> None:
    write_whole(f"local://{tmp_path}/deep/model", b"content")
    assert (tmp_path / "deep" / "model").read_bytes() == b"content"


# Snapshots


def test_snapshots_go_to_the_store(tmp_path: Path, payload: bytes) -> None:
    store = SnapshotStore(tmp_path, keep=2)
    for iteration in (8, 16, 24):
        with FitKeeper(store, []) as keeper:
            keeper.keep(state(payload, iteration=iteration))
    kept = sorted(p.name for p in tmp_path.glob("*/model.*"))
    assert kept == ["model.16", "model.24"]
    newest = SnapshotStore(tmp_path).newest()
    assert newest is not None
    assert newest[0].iteration == 24


def test_file_of_a_callback_is_sealed(tmp_path: Path, payload: bytes) -> None:
    with FitKeeper(None, []) as keeper:
        keeper.keep(state(payload, "file", path=str(tmp_path / "best")))
    assert torch.load(tmp_path / "best", weights_only=True)["weights"].sum() == 45
    assert unseal((tmp_path / "best").read_bytes())


def test_without_a_store_snapshots_are_nobodys(tmp_path: Path, payload: bytes) -> None:
    with FitKeeper(None, []) as keeper:
        keeper.keep(state(payload))
    assert list(tmp_path.iterdir()) == []


def test_full_disk_costs_a_warning(
    tmp_path: Path, payload: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING), FitKeeper(None, []) as keeper:
        keeper.keep(state(payload, "file", path=str(tmp_path / "file" / "best")))
        keeper.keep(state(payload, "file", path=str(tmp_path / "best")))
    assert "file/best could not be written" in caplog.text
    assert (tmp_path / "best").exists()


def test_place_that_does_not_exist_is_said(
    payload: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), FitKeeper(None, []) as keeper:
        keeper.keep(state(payload, "file", path="nowhere-known://bucket/best"))
    assert "nowhere-known://bucket/best could not be written" in caplog.text


def test_slow_disk_does_not_hold_up_the_next_message(
    tmp_path: Path, payload: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    store = SnapshotStore(tmp_path)
    write = store.write
    monkeypatch.setattr(store, "write", lambda *given: gate.wait(10) and write(*given))
    logger = Rows()
    with FitKeeper(store, [logger]) as keeper:
        keeper.keep(state(payload))
        keeper.log([[1, 0.5, 0.1, 16, 100.0]])
        assert logger.heard.wait(10)
        assert not list(tmp_path.glob("*/model.*"))
        gate.set()
    assert len(list(tmp_path.glob("*/model.8"))) == 1


class StoreError(Exception):
    """As stores of clouds raise: no OSError."""


class BrokenStore(LocalFileSystem):
    """Takes nothing, and says so in its own way."""

    protocol = "broken"

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        raise StoreError(f"no rights to {path}")


@pytest.fixture
def broken_store() -> None:
    fsspec.register_implementation("broken", BrokenStore, clobber=True)


@pytest.mark.filterwarnings("ignore:UPath .broken. filesystem")
@pytest.mark.usefixtures("broken_store")
def test_error_of_a_store_costs_the_snapshot_also_the_last(
    tmp_path: Path, payload: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with FitKeeper(SnapshotStore(f"broken://{tmp_path}"), []) as keeper:
        keeper.keep(state(payload, iteration=8))
    assert "snapshot of step 8 could not be written" in caplog.text
    assert "StoreError: no rights" in caplog.text


@pytest.mark.filterwarnings("ignore:UPath .broken. filesystem")
@pytest.mark.usefixtures("broken_store")
def test_snapshots_that_a_store_does_not_give_are_skipped(
    tmp_path: Path, payload: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    SnapshotStore(tmp_path).write(8, payload)
    assert SnapshotStore(f"broken://{tmp_path}").newest() is None
    assert "skipped the snapshot" in caplog.text


def test_newer_snapshot_takes_the_place_of_one_that_waits(
    tmp_path: Path, payload: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate, store = threading.Event(), threading.Event(), SnapshotStore(tmp_path)
    write = store.write

    def slow(*given: Any) -> Any:
        begun.set()
        return gate.wait(10) and write(*given)

    monkeypatch.setattr(store, "write", slow)
    with FitKeeper(store, []) as keeper:
        keeper.keep(state(payload, iteration=8))
        assert begun.wait(10)
        for iteration in (16, 24, 32):
            keeper.keep(state(payload, iteration=iteration))
        gate.set()
    assert sorted(p.name for p in tmp_path.glob("*/model.*")) == ["model.32", "model.8"]


def test_files_of_callbacks_all_arrive_on_a_slow_disk(
    tmp_path: Path, payload: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, store = threading.Event(), SnapshotStore(tmp_path)
    monkeypatch.setattr(store, "write", lambda *given: gate.wait(10))
    with FitKeeper(store, []) as keeper:
        keeper.keep(state(payload))
        for name in ("first", "second"):
            keeper.keep(state(payload, "file", path=str(tmp_path / name)))
        gate.set()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["first", "second"]


# Numbers


class BrokenLogger(Rows):
    """Fails where it can."""

    def log(self, *given: Any, **named: Any) -> None:
        self.rows.append(given)
        raise StoreError("no server")

    def close(self, *, failed: bool = False) -> None:
        super().close(failed=failed)
        raise StoreError("still no server")


def test_a_logger_that_fails_costs_its_own_numbers_only(caplog: pytest.LogCaptureFixture) -> None:
    broken, logger = BrokenLogger(), Rows()
    with FitKeeper(None, [broken, logger]) as keeper:
        keeper.log([[1, 0.5, 0.1, 16, 100.0], [2, 0.4, 0.1, 16, 100.5]])
    assert (len(broken.rows), len(logger.rows)) == (1, 2)
    assert (broken.closed, logger.closed) == ([False], [False])
    assert "BrokenLogger failed and gets no more numbers" in caplog.text
    assert "BrokenLogger could not be closed" in caplog.text


def test_a_logger_that_takes_its_time_does_not_hold_up_the_driver() -> None:
    gate, logger = threading.Event(), Rows()

    class Slow(Logger):
        def log(self, *given: Any, **named: Any) -> None:
            gate.wait(10)

    with FitKeeper(None, [Slow(), logger]) as keeper:
        keeper.log([[1, 0.5, 0.1, 16, 100.0], [2, 0.4, 0.1, 16, 100.5]])
        assert not logger.rows
        gate.set()
    assert len(logger.rows) == 2


def test_steps_become_rows_with_throughput() -> None:
    logger = Rows()
    with FitKeeper(None, [logger]) as keeper:
        keeper.log([[1, 0.5, 0.1, 16, 100.0], [2, 0.4, 0.1, 16, 100.5]])
        keeper.log([[3, 0.3, 0.1, 8, 101.0]])
    first = {"loss": 0.5, "lr": 0.1}
    assert logger.rows[0] == (1, first, "train", 100.0)
    assert [row[1].get("throughput") for row in logger.rows] == [None, 32.0, 16.0]


def test_steps_taken_again_have_no_throughput_from_before() -> None:
    logger = Rows()
    with FitKeeper(None, [logger]) as keeper:
        keeper.log([[4, 0.5, 0.1, 16, 100.0], [3, 0.6, 0.1, 16, 101.0], [4, 0.5, 0.1, 16, 102.0]])
    assert [row[1].get("throughput") for row in logger.rows] == [None, None, 16.0]


def test_epoch_tells_validation_and_what_callbacks_added() -> None:
    logger = Rows()
    stats = EpochStats(1, validation={"val_loss": 0.2, "MSE": 0.3}, extra={"lr": 0.1, "worth": 7.0})
    with FitKeeper(None, [logger]) as keeper:
        keeper.log_epoch(stats, 8, 100.0)
    assert logger.rows == [
        (8, {"val_loss": 0.2, "val_MSE": 0.3}, "validation", 100.0),
        (8, {"worth": 7.0}, "train", 100.0),
    ]


def test_logger_hears_of_the_fit_and_of_its_end() -> None:
    logger = Rows()
    with FitKeeper(None, [logger]) as keeper:
        assert keeper.logs
        keeper.describe({"batch_size": 16})
    with pytest.raises(KeyError), FitKeeper(None, [logger]):
        raise KeyError("in the fit")
    assert logger.params == {"batch_size": 16}
    assert logger.closed == [False, True]


def test_without_loggers_steps_are_not_wanted() -> None:
    assert not FitKeeper(None, []).logs
