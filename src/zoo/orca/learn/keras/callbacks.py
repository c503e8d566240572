"""Callbacks of Keras in `fit`: where each runs, and how it goes on in another round.

They are called on every rank, with numbers that all ranks share, so that all decide the same and
leave in the same step:

- `EarlyStopping`, `ReduceLROnPlateau`, `LearningRateScheduler`, `TerminateOnNaN`, `LambdaCallback`
  and classes of your own run on every rank. `self.params` has the `rank` and the `size` besides:
  write files `if self.params["rank"] == 0`, or give `OnFirstRank(callback)`.
- `ModelCheckpoint` decides on every rank, and rank 0 writes. `CSVLogger`, `TensorBoard` and
  `RemoteMonitor` run on rank 0. So paths have to be on a disk that rank 0 sees: with ranks on
  several hosts, a shared one.
- `ProgbarLogger` and `History` are left out: `fit` shows its progress and gives a history back.
- `BackupAndRestore`, `OrbaxCheckpoint` and `SwapEMAWeights` are refused, with what to use instead.

A training is a series of rounds, and each begins with `on_train_begin` in a fresh copy. What a
callback has changed of its attributes since it was given (numbers, texts, lists and dicts of them)
is part of the saved training, and is put back after `on_train_begin`. Methods for test and predict
batches are not called. After a step the logs have the `loss`, the mean over the epoch so far.
"""

from __future__ import annotations

import copy
import csv
import importlib.util
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras.src.callbacks.monitor_callback import MonitorCallback
from keras.src.utils import is_default

from zoo.errors import InputError
from zoo.orca.learn.callback import Callback, Run
from zoo.orca.learn.keras.process import Sent

__all__ = ["KerasCallback", "OnFirstRank", "adapted"]

_log = logging.getLogger(__name__)

_NOT_KEPT = frozenset({"_model", "params", "verbose"})
_BATCH_HOOKS = {
    "begin": ("on_train_batch_begin", "on_batch_begin"),
    "end": ("on_train_batch_end", "on_batch_end"),
}
_UNHEARD = (
    "on_test_begin", "on_test_end", "on_test_batch_begin", "on_test_batch_end",
    "on_predict_begin", "on_predict_end", "on_predict_batch_begin", "on_predict_batch_end",
)  # fmt: skip


class KerasCallback(Sent, Callback):
    """A callback of Keras as the training calls it, on every rank.

    Args:
        inner: The callback; a copy of it runs, and it stays as it is.
        params: What its `params` say besides steps, rank and size.
    """

    def __init__(self, inner: keras.callbacks.Callback, params: Mapping[str, Any]) -> None:
        self._inner, self._params = copy.copy(inner), dict(params)
        # One that was used in a fit of Keras holds its model and that fit's numbers.
        self._inner._model = self._inner.params = None
        self._given = _plain(self._inner)
        self._kept: Mapping[str, Any] = {}
        self._begun = self._stopped = self._seen = False
        self._hears = {
            when: not all(is_default(getattr(inner, name)) for name in names)
            for when, names in _BATCH_HOOKS.items()
        }

    @property
    def name(self) -> str:
        """Of its class."""
        return type(self._inner).__name__

    def on_train_begin(self, run: Run) -> None:
        """Begin, or go on with what was kept."""
        inner = self._inner
        run.model.stop_training = False
        if run.rank and hasattr(inner, "verbose"):
            inner.verbose = 0
        inner.set_model(self._view(run))
        inner.set_params(self._params | {"steps": run.steps, "rank": run.rank, "size": run.size})
        self._tell(run, inner.on_train_begin, {})
        for name, value in self._kept.items():
            setattr(inner, name, copy.deepcopy(value))
        self._begun = True
        if self._stopped:
            run.stop(f"{self.name} had ended the training")

    def on_epoch_begin(self, run: Run) -> None:
        """Tell it, and that the first batch begins."""
        self._tell(run, self._inner.on_epoch_begin, run.epoch - 1, {})
        self._begin_batch(run, 0)

    def on_step_end(self, run: Run) -> None:
        """Tell it that a batch is done, and that the next begins."""
        if self._hears["end"]:
            logs = {"loss": run.mean_loss}
            self._tell(run, self._inner.on_train_batch_end, run.step - 1, logs)
        if run.steps is None or run.step < run.steps:
            self._begin_batch(run, run.step)

    def on_epoch_end(self, run: Run) -> None:
        """Tell it; numbers that it adds to the logs reach the history.

        Raises:
            InputError: It watches a number that no epoch had.
        """
        logs = _keras_logs(run.logs)
        self._require_monitored(logs)
        before = set(logs)
        self._tell(run, self._inner.on_epoch_end, run.epoch - 1, logs)
        for name in logs.keys() - before:
            if isinstance(logs[name], int | float | np.number):
                run.logs[name] = float(logs[name])

    def on_train_end(self, run: Run) -> None:
        """Tell it."""
        self._tell(run, self._inner.on_train_end, _keras_logs(run.logs))

    def state_dict(self) -> dict[str, Any]:
        """Return what it has changed of its attributes."""
        if not self._begun:
            return {}
        now, given = _plain(self._inner), self._given
        if isinstance(self._inner, MonitorCallback):
            now.pop("min_delta", None)  # its sign is turned at the first epoch of each round
        kept = {name: v for name, v in now.items() if name not in given or given[name] != v}
        return {"kept": kept, "stopped": self._stopped, "seen": self._seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Args:
            state: What it returned, perhaps in another process.
        """
        self._kept, self._begun = state["kept"], True
        self._stopped, self._seen = state["stopped"], state["seen"]

    def _view(self, run: Run) -> Any:
        """The model as the callback sees it."""
        return run.model

    def _begin_batch(self, run: Run, batch: int) -> None:
        if self._hears["begin"]:
            self._tell(run, self._inner.on_train_batch_begin, batch, {})

    def _tell(self, run: Run, hook: Callable[..., None], *given: Any) -> None:
        before = run.model.stop_training
        hook(*given)
        if run.model.stop_training and not before:
            self._stopped = True
            run.stop(f"{self.name} ended it in epoch {run.epoch}")

    def _require_monitored(self, logs: Mapping[str, Any]) -> None:
        """Keras warns after every epoch, where nobody reads it, and never stops."""
        inner = self._inner
        if not isinstance(inner, MonitorCallback) or not _watches(inner):
            return
        self._seen = self._seen or inner.monitor in logs
        if not self._seen and self._params.get("validation_freq", 1) == 1:
            raise InputError(
                f"{inner.monitor!r} among the numbers of an epoch, as {self.name} watches it",
                ", ".join(sorted(logs)) or "nothing",
                "Monitor one of these; numbers that begin with val_ need validation_data.",
            )


class OnFirstRank(KerasCallback):
    """A callback of Keras that runs on rank 0 alone: one that writes, draws or sends.

    It must not change the model. What it has counted is lost with rank 0.

    Args:
        inner: The callback.
        params: What its `params` say besides steps, rank and size.
    """

    def __init__(
        self, inner: keras.callbacks.Callback, params: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(inner, params or {})

    def on_train_begin(self, run: Run) -> None:
        """See `KerasCallback`."""
        self._begun = True
        if run.rank == 0:
            super().on_train_begin(run)

    def on_epoch_begin(self, run: Run) -> None:
        """See `KerasCallback`."""
        if run.rank == 0:
            super().on_epoch_begin(run)

    def on_step_end(self, run: Run) -> None:
        """See `KerasCallback`."""
        if run.rank == 0:
            super().on_step_end(run)

    def on_epoch_end(self, run: Run) -> None:
        """See `KerasCallback`."""
        if run.rank == 0:
            super().on_epoch_end(run)

    def on_train_end(self, run: Run) -> None:
        """See `KerasCallback`."""
        if run.rank == 0:
            super().on_train_end(run)


class _Stopping(KerasCallback):
    """`EarlyStopping`: the best weights are those of a whole state, which the driver keeps."""

    def __init__(self, inner: keras.callbacks.Callback, params: Mapping[str, Any]) -> None:
        super().__init__(inner, params)
        self._restores = bool(self._inner.restore_best_weights)
        self._inner.restore_best_weights = False
        self._given = _plain(self._inner)

    def on_epoch_end(self, run: Run) -> None:
        super().on_epoch_end(run)
        best, epoch = self._inner.best, self._inner.best_epoch
        if self._restores and best is not None and epoch == run.epoch - 1:
            run.keep()

    def state_dict(self) -> dict[str, Any]:
        # The driver says so when this state is gone.
        best = self._inner.best_epoch + 1 if self._restores and self._begun else 0
        return super().state_dict() | {"restores_epoch": best}


class _Checkpoint(KerasCallback):
    """`ModelCheckpoint`: all ranks know what was the best, and rank 0 writes."""

    def _view(self, run: Run) -> Any:
        return _Writer(run.model, writes=run.rank == 0)


class _Writer:
    """A model whose files appear whole or not at all, and on one rank."""

    def __init__(self, model: Any, *, writes: bool) -> None:
        self._model, self._writes = model, writes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def save(self, filepath: str, overwrite: bool = True) -> None:
        self._write(self._model.save, filepath)

    def save_weights(self, filepath: str, overwrite: bool = True) -> None:
        self._write(self._model.save_weights, filepath)

    def _write(self, write: Callable[..., None], path: str) -> None:
        if not self._writes:
            return
        if "://" in path:
            write(path, overwrite=True)
            return
        target = Path(path)
        if target.is_dir():
            raise IsADirectoryError(path)
        beside = target.with_name(f".new-{target.name}")
        write(str(beside), overwrite=True)
        os.replace(beside, target)


class _Table(OnFirstRank):
    """`CSVLogger`: a round goes on with the file of the one before."""

    def on_train_begin(self, run: Run) -> None:
        if self._begun and run.rank == 0:
            self._inner.append = True
            self._drop_rows(run.epoch - 1)
        super().on_train_begin(run)

    def _drop_rows(self, epoch: int) -> None:
        """Those of epochs that are trained again, after a loss."""
        path = Path(self._inner.filename)
        if not path.exists():
            return
        with path.open(newline="") as file:
            head, *rows = [*csv.reader(file, delimiter=self._inner.sep)] or [[]]
        left = [row for row in rows if int(row[0]) < epoch]
        if len(left) < len(rows):
            with path.open("w", newline="") as file:
                csv.writer(file, delimiter=self._inner.sep).writerows([head, *left])


_REFUSED = {
    "BackupAndRestore": "Pass model_dir to the estimator, and resume=True to fit: it goes on at "
    "the very step.",
    "OrbaxCheckpoint": "Pass model_dir to the estimator: it writes snapshots after each epoch, or "
    "by checkpoint_trigger.",
    "SwapEMAWeights": "Give the optimizer use_ema=True and ema_overwrite_frequency, or swap after "
    "the fit, in the model that get_model() returns.",
}
_LEFT_OUT = {
    "ProgbarLogger": "fit shows its own progress",
    "History": "fit returns its own history",
}
_ADAPTERS: dict[str, Callable[..., KerasCallback]] = {
    "EarlyStopping": _Stopping,
    "ModelCheckpoint": _Checkpoint,
    "CSVLogger": _Table,
    "TensorBoard": OnFirstRank,
    "RemoteMonitor": OnFirstRank,
}


def adapted(
    callbacks: Any, *, epochs: int, verbose: Any = 0, validation_freq: int = 1
) -> list[Any]:
    """The callbacks of a fit in the form in which the training calls them.

    Args:
        callbacks: None, one, or a list of callbacks of Keras and of `zoo.orca.learn.callbacks`,
            and of loggers; all but the first come back as they are.
        epochs: The last epoch of the fit, counted over all fits.
        verbose: What was said of it.
        validation_freq: Epochs from one validation to the next.

    Raises:
        InputError: One cannot work with several ranks.
    """
    params = {"epochs": epochs, "verbose": verbose, "validation_freq": validation_freq}
    found: list[Any] = []
    for callback in _flat(callbacks):
        if isinstance(callback, KerasCallback):
            callback._params |= params
        elif isinstance(callback, type) and issubclass(callback, keras.callbacks.Callback):
            raise InputError(
                "callbacks as objects", f"the class {callback.__name__}", "Call it: Name(...)."
            )
        elif isinstance(callback, keras.callbacks.Callback):
            kind = _kind(callback, (*_REFUSED, *_LEFT_OUT, *_ADAPTERS))
            if kind in _REFUSED:
                raise InputError("callbacks that work with several ranks", kind, _REFUSED[kind])
            if kind in _LEFT_OUT:
                _log.warning("%s is left out: %s", kind, _LEFT_OUT[kind])
                continue
            if kind == "TensorBoard":
                _require_tensorboard()
            _say_unheard(callback)
            callback = _ADAPTERS.get(kind, KerasCallback)(callback, params)
        found.append(callback)
    return found


def _flat(callbacks: Any) -> Sequence[Any]:
    if callbacks is None:
        return []
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return list(callbacks.callbacks)
    return callbacks if isinstance(callbacks, list | tuple) else [callbacks]


def _kind(callback: keras.callbacks.Callback, known: Sequence[str]) -> str:
    """The class of Keras that it is, or is derived from."""
    names = [kind.__name__ for kind in type(callback).__mro__ if kind.__module__[:6] == "keras."]
    return next((name for name in names if name in known), "")


def _require_tensorboard() -> None:
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError(
            "the package tensorboard, for keras.callbacks.TensorBoard",
            "none that is installed",
            "Install it; or call set_tensorboard(log_dir, app_name) of the estimator, which writes "
            "the curves without it.",
        )


def _say_unheard(callback: keras.callbacks.Callback) -> None:
    if type(callback).__module__.startswith("keras."):
        return
    unheard = [name for name in _UNHEARD if not is_default(getattr(callback, name))]
    if unheard:
        _log.warning(
            "%s of %s is not called: validation is no part of Keras's own loop here; on_epoch_end "
            "has its numbers", ", ".join(unheard), type(callback).__name__,
        )  # fmt: skip


def _watches(callback: keras.callbacks.Callback) -> bool:
    """Whether it decides by the number that it monitors."""
    return bool(getattr(callback, "save_best_only", True))


def _keras_logs(logs: Mapping[str, float]) -> dict[str, Any]:
    """The numbers of an epoch by the names that Keras has for them."""
    named = {"loss": logs["train_loss"]} if "train_loss" in logs else {}
    return named | {name: v for name, v in logs.items() if name not in ("train_loss", "lr")}


def _plain(callback: keras.callbacks.Callback) -> dict[str, Any]:
    """Attributes that a saved training can hold: numbers, texts, lists and dicts of them."""
    found = {name: _value(v) for name, v in vars(callback).items() if name not in _NOT_KEPT}
    return {name: value for name, value in found.items() if value is not _NONE}


_NONE = object()


def _value(value: Any) -> Any:
    """A copy as plain values; `_NONE` when it has none."""
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        parts = [_value(part) for part in value]
        return _NONE if any(part is _NONE for part in parts) else parts
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        named = {key: _value(part) for key, part in value.items()}
        return _NONE if any(part is _NONE for part in named.values()) else named
    return _NONE
