"""Logging a training to MLflow, from the driver.

A tracking server that is reached over http or on Databricks needs the small package only (extra
`mlflow`). A database file, `sqlite:///runs.db`, needs the package `mlflow` itself.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from zoo.errors import load_extra
from zoo.orca.learn.loggers import Kind, Logger
from zoo.orca.learn.steps import validation_name

__all__ = ["MLflowLogger"]

_PARAMS, _METRICS = 100, 1000  # most that a tracking server takes at once
_KEPT = 200_000
_SEND_S, _RETRY_S = 5.0, 60.0

_log = logging.getLogger(__name__)


class MLflowLogger(Logger):
    """Logs parameters and metrics as one run of an MLflow experiment.

    Metrics are sent in batches from a thread of the driver. A server that does not answer does not
    stop the training: what it missed is kept and sent later, at the latest at the end. The first
    contact must succeed, so that wrong addresses and names are found at once.

    Steps that are taken again after a lost rank are in the history of a metric twice, the ones that
    count last: MLflow cannot take back.

    MLflow's active run, that of `mlflow.start_run`, is neither used nor changed.

    Attributes:
        run_id: MLflow's name of the run, None before the first contact. Later fits with the same
            logger go on with it.
    """

    def __init__(
        self,
        experiment: str,
        *,
        tracking_uri: str | None = None,
        run_name: str | None = None,
        run_id: str | None = None,
    ) -> None:
        """Say where to log; contact is made by the first call that logs.

        Args:
            experiment: Name of the experiment, which is made when there is none.
            tracking_uri: The server or store; None for what MLflow is set to, by its own functions
                or `MLFLOW_TRACKING_URI`.
            run_name: Name of the run; None lets MLflow invent one.
            run_id: A run of MLflow to go on with, for a fit that resumes in another process; None
                starts one.

        Raises:
            MissingExtraError: The extra `mlflow` is not installed.
        """
        self._entities = load_extra("mlflow.entities", "mlflow")
        self._error = load_extra("mlflow.exceptions", "mlflow").MlflowException
        self.experiment, self.tracking_uri, self.run_name = experiment, tracking_uri, run_name
        self.run_id = run_id
        self._client: Any = None
        self._params: set[str] = set()
        self._waiting: list[Any] = []
        self._lost = 0
        self._sender: ThreadPoolExecutor | None = None
        self._sending: Future[None] | None = None
        self._next_send = 0.0
        self._failing = False

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Log parameters of the run as texts.

        Args:
            params: Values by name. A name keeps its first value over all fits of a run.

        Raises:
            MlflowException: The server cannot be reached.
        """
        self._open()
        new = {_key(name): str(value) for name, value in params.items()}
        found = [self._entities.Param(*one) for one in new.items() if one[0] not in self._params]
        self._params.update(new)
        for at in range(0, len(found), _PARAMS):
            self._client.log_batch(self.run_id, params=found[at : at + _PARAMS])

    def log(
        self, iteration: int, values: Mapping[str, float], *, kind: Kind, wall_time: float
    ) -> None:
        """Log numbers as metrics with the iteration as step; names of validation begin with `val_`.

        Args:
            iteration: Steps done in all.
            values: Numbers by name.
            kind: Of which data they tell.
            wall_time: When, in seconds since 1970.

        Raises:
            MlflowException: The first contact failed.
        """
        self._open()
        milliseconds = int(wall_time * 1000)
        self._waiting += [
            self._entities.Metric(_metric_key(name, kind), float(value), milliseconds, iteration)
            for name, value in values.items()
        ]
        free = self._sending is None or self._sending.done()
        many = len(self._waiting) >= _METRICS and not self._failing
        if self._sender and free and (many or time.monotonic() >= self._next_send):
            self._sending = self._sender.submit(self._send)

    def close(self, *, failed: bool = False) -> None:
        """Send the rest and end the run.

        Args:
            failed: Ends it as `FAILED`, not `FINISHED`.
        """
        if self._sender is None:
            return
        self._sender.shutdown(wait=True)
        self._sender = self._sending = None
        self._send()
        self._lost += len(self._waiting)
        self._waiting.clear()
        if self._lost:
            _log.warning("MLflow run %s misses %d metrics", self.run_id, self._lost)
        self._lost, self._next_send = 0, 0.0
        try:
            self._client.set_terminated(self.run_id, status="FAILED" if failed else "FINISHED")
        except Exception as exc:  # noqa: BLE001 - as above
            _log.warning("MLflow run %s could not be ended: %s", self.run_id, exc)

    def _open(self) -> None:
        if self._sender is not None:
            return
        if self._client is None:
            tracking = load_extra("mlflow.tracking", "mlflow")
            self._client = tracking.MlflowClient(tracking_uri=self.tracking_uri)
            if self.run_id is not None:
                # MLflow refuses another value for a parameter that it has.
                self._params.update(self._client.get_run(self.run_id).data.params)
        if self.run_id is None:
            run = self._client.create_run(self._experiment_id(), run_name=self.run_name)
            self.run_id = str(run.info.run_id)
        else:
            self._client.update_run(self.run_id, status="RUNNING")
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="zoo-mlflow")

    def _experiment_id(self) -> str:
        found = self._client.get_experiment_by_name(self.experiment)
        if found is None:
            try:
                return str(self._client.create_experiment(self.experiment))
            except self._error:
                # Another driver may have made it in between.
                found = self._client.get_experiment_by_name(self.experiment)
                if found is None:
                    raise
        return str(found.experiment_id)

    def _send(self) -> None:
        """Send what waits. One thread does this at a time; others only add at the end."""
        try:
            while batch := self._waiting[:_METRICS]:
                self._client.log_batch(self.run_id, metrics=batch)
                del self._waiting[: len(batch)]
            self._failing, self._next_send = False, time.monotonic() + _SEND_S
        except Exception as exc:  # noqa: BLE001 - a store behind MLflow has errors of its own
            self._failing, self._next_send = True, time.monotonic() + _RETRY_S
            self._lost += max(0, len(self._waiting) - _KEPT)
            del self._waiting[:-_KEPT]
            _log.warning("MLflow took no metrics, %d are kept: %s", len(self._waiting), exc)


def _metric_key(name: str, kind: Kind) -> str:
    return _key(name if kind == "train" else validation_name(name))


def _key(name: str) -> str:
    """The name without what MLflow refuses, such as the `@` of `HitRate@10`."""
    return re.sub(r"[^\w./ :-]", "_", name)
