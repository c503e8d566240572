"""Runs in MLflow: on a store of files or a database, on a server that is gone."""

import logging
import math
import sqlite3
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from zoo.errors import MissingExtraError
from zoo.orca.learn.mlflow_logger import MLflowLogger

# MLflow calls parts of its own needs that are deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mlflow", "mlflow.entities"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"zoo\[mlflow\]"):
        MLflowLogger("trial")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    # The small package knows no databases, and the old store only when it is asked for.
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return f"sqlite:///{tmp_path}/runs.db" if find_spec("sqlalchemy") else f"file://{tmp_path}/runs"


def run_of(logger: MLflowLogger) -> Any:
    return logger._client.get_run(logger.run_id)


def history(logger: MLflowLogger, name: str) -> list[tuple[int, float, int]]:
    found = logger._client.get_metric_history(logger.run_id, name)
    return [(one.step, one.value, one.timestamp) for one in found]


def test_numbers_arrive_with_step_and_time(store: str) -> None:
    logger = MLflowLogger("trial", tracking_uri=store, run_name="one")
    for step in (1, 2):
        logger.log(step, {"loss": 1 / step, "lr": 0.1}, kind="train", wall_time=1000.5 + step)
    logger.log(2, {"val_loss": 0.7, "HitRate@10": 0.5}, kind="validation", wall_time=1003.0)
    logger.close()
    assert history(logger, "loss") == [(1, 1.0, 1001500), (2, 0.5, 1002500)]
    metrics = run_of(logger).data.metrics
    assert metrics == {"loss": 0.5, "lr": 0.1, "val_loss": 0.7, "val_HitRate_10": 0.5}
    assert (run_of(logger).info.run_name, run_of(logger).info.status) == ("one", "FINISHED")


def test_more_than_one_batch_arrives(store: str) -> None:
    logger = MLflowLogger("trial", tracking_uri=store)
    logger.log_params({f"p{n}": n for n in range(150)})
    for step in range(2500):
        logger.log(step, {"loss": math.nan if step == 7 else step}, kind="train", wall_time=1.0)
    logger.close()
    assert len(history(logger, "loss")) == 2500
    assert run_of(logger).data.params["p149"] == "149"


def test_later_fit_goes_on_with_the_run(store: str) -> None:
    logger = MLflowLogger("trial", tracking_uri=store)
    for step in (1, 2):
        logger.log_params({"epochs": step})
        logger.log(step, {"loss": 1.0}, kind="train", wall_time=1.0)
        assert run_of(logger).info.status == "RUNNING"
        logger.close(failed=step == 2)
    assert (run_of(logger).data.params, len(history(logger, "loss"))) == ({"epochs": "1"}, 2)
    assert run_of(logger).info.status == "FAILED"


def test_run_of_another_process_goes_on(store: str) -> None:
    first = MLflowLogger("trial", tracking_uri=store)
    first.log_params({"epochs": 1})
    first.log(1, {"loss": 1.0}, kind="train", wall_time=1.0)
    first.close(failed=True)
    second = MLflowLogger("trial", tracking_uri=store, run_id=first.run_id)
    second.log_params({"epochs": 2, "seed": 3})
    second.log(2, {"loss": 0.5}, kind="train", wall_time=2.0)
    second.close()
    assert run_of(second).data.params == {"epochs": "1", "seed": "3"}
    assert [step for step, _, _ in history(second, "loss")] == [1, 2]
    assert run_of(second).info.status == "FINISHED"


def test_experiment_is_made_once(store: str) -> None:
    loggers = [MLflowLogger("trial", tracking_uri=store) for _ in range(2)]
    for logger in loggers:
        logger.log(1, {"loss": 1.0}, kind="train", wall_time=1.0)
        logger.close()
    assert len({run_of(logger).info.experiment_id for logger in loggers}) == 1
    assert len({logger.run_id for logger in loggers}) == 2


def test_unused_logger_leaves_nothing(store: str, tmp_path: Path) -> None:
    MLflowLogger("trial", tracking_uri=store).close()
    assert not list(tmp_path.iterdir())


def broken(store: str, logger: MLflowLogger, *, now: bool) -> None:
    """Take the metrics from the store, or give them back."""
    if store.startswith("sqlite"):
        names = ("metrics", "gone") if now else ("gone", "metrics")
        with sqlite3.connect(store.removeprefix("sqlite:///")) as database:
            database.execute(f"ALTER TABLE {names[0]} RENAME TO {names[1]}")
        return
    (run,) = Path(store.removeprefix("file://")).glob(f"*/*{logger.run_id}")
    run.rename(run.with_name(f"gone-{logger.run_id}" if now else str(logger.run_id)))


def test_store_that_fails_for_a_while_loses_nothing(
    store: str, caplog: pytest.LogCaptureFixture
) -> None:
    logger = MLflowLogger("trial", tracking_uri=store)
    logger.log_params({"a": 1})
    broken(store, logger, now=True)
    logger.log(1, {"loss": 1.0}, kind="train", wall_time=1.0)
    assert logger._sending is not None
    logger._sending.result(30)
    assert "MLflow took no metrics, 1 are kept" in caplog.text
    broken(store, logger, now=False)
    logger.log(2, {"loss": 1.0}, kind="train", wall_time=1.0)
    logger.close()
    assert len(history(logger, "loss")) == 2


def test_store_that_stays_broken_does_not_end_the_training(
    store: str, caplog: pytest.LogCaptureFixture
) -> None:
    logger = MLflowLogger("trial", tracking_uri=store)
    logger.log_params({"a": 1})
    broken(store, logger, now=True)
    with caplog.at_level(logging.WARNING):
        logger.log(1, {"loss": 1.0}, kind="train", wall_time=1.0)
        logger.close()
    assert f"MLflow run {logger.run_id} misses 1 metrics" in caplog.text


def test_wrong_address_is_found_at_first_contact(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    logger = MLflowLogger("trial", tracking_uri="http://127.0.0.1:1")
    with pytest.raises(logger._error, match="127.0.0.1"):
        logger.log_params({"a": 1})
