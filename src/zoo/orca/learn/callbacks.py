"""What happens during a training besides the training: stop early, keep the best, your own.

A callback is an object with methods that the training calls::

    class HalveEveryTen(Callback):
        def on_epoch_end(self, run: Run) -> None:
            if run.epoch % 10 == 0:
                for group in run.optimizer.param_groups:
                    group["lr"] /= 2

    estimator.fit(frame, epochs=50, callbacks=[HalveEveryTen(), EarlyStopping(patience=5)])

How they are called:

- On **every rank**, with the same numbers, so that all ranks decide the same. Change model and
  optimizer in the same way everywhere; write files or send messages `if run.rank == 0`.
- A rank may be lost and another take its place, inside an epoch. What a callback must remember
  belongs in `state_dict`: it is saved with the training, and loaded before a resumed or recovered
  run goes on. A step that had not reached the saved state is taken, and reported, again.
- A training is a series of rounds, and a rank begins each of them with the state loaded and
  `on_train_begin`. So that method prepares (opens, looks up); it must not count or reset.
- The learning rate is in `run.logs` after every step and epoch, as `lr`.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from typing import Any, Literal

from zoo.errors import InputError
from zoo.orca.learn.callback import Callback, CallbackList, Run
from zoo.orca.learn.trigger import Moment, Trigger

__all__ = [
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "KeepBest",
    "MonitorCallback",
    "Run",
    "StopWhen",
    "TerminateOnNaN",
]

Mode = Literal["auto", "min", "max"]

_FALLING_PARTS = ("loss", "error", "entropy", "divergence", "perplexity", "poisson", "distance")
_FALLING_WORDS = frozenset({"mae", "mse", "rmse", "mape", "smape", "mase", "msle", "nll", "kl"})


class MonitorCallback(Callback):
    """Base of callbacks that watch one number after every epoch and keep its best value.

    A value that is not finite is never an improvement. An epoch without the number is passed over
    when an earlier one had it.

    Attributes:
        best: The best value so far, None before the first.
        best_epoch: The epoch that had it.
    """

    def __init__(
        self, monitor: str = "val_loss", *, mode: Mode = "auto", min_delta: float = 0.0
    ) -> None:
        """Choose what to watch.

        Args:
            monitor: A name in `run.logs`, such as `val_loss` or `val_Accuracy`.
            mode: Whether smaller (`min`) or larger (`max`) is better; `auto` tells by the name.
            min_delta: Smaller changes are no improvement.

        Raises:
            InputError: The mode is another one, or `min_delta` is negative.
        """
        if mode not in ("auto", "min", "max"):
            raise InputError("mode as 'auto', 'min' or 'max'", repr(mode), "Choose one of them.")
        if not min_delta >= 0:
            raise InputError("min_delta of 0 or more", repr(min_delta), "Drop the sign.")
        falling = _falls(monitor) if mode == "auto" else mode == "min"
        self.monitor, self.mode, self.min_delta = monitor, "min" if falling else "max", min_delta
        self.best: float | None = None
        self.best_epoch = 0
        self._seen = False

    def value(self, run: Run) -> float | None:
        """Return the watched number of this epoch, None when only earlier ones had it.

        Args:
            run: The training after an epoch.

        Raises:
            InputError: No epoch had the number.
        """
        if self.monitor in run.logs:
            self._seen = True
            return float(run.logs[self.monitor])
        if self._seen:
            return None
        there = ", ".join(sorted(run.logs)) or "nothing"
        raise InputError(
            f"{self.monitor!r} among the numbers of an epoch, as {type(self).__name__} watches it",
            there,
            "Monitor one of these; numbers that begin with val_ need validation_data, and metrics "
            "need to be given to the estimator.",
        )

    def improved(self, run: Run) -> bool | None:
        """Compare this epoch with the best one and remember the better.

        Args:
            run: The training after an epoch.

        Returns:
            Whether it is better; None when the epoch does not have the number.

        Raises:
            InputError: No epoch had the number.
        """
        value = self.value(run)
        if value is None:
            return None
        if not math.isfinite(value):
            return False
        if self.best is not None:
            gain = self.best - value if self.mode == "min" else value - self.best
            if not gain > self.min_delta:
                return False
        self.best, self.best_epoch = value, run.epoch
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return the best value and its epoch."""
        return {"best": self.best, "best_epoch": self.best_epoch, "seen": self._seen}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a best value.

        Args:
            state: What `state_dict` returned.
        """
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self._seen = state["seen"]


class EarlyStopping(MonitorCallback):
    """Stop when a number has not improved for some epochs.

    With `restore_best` the fit ends with the whole state of the best epoch, however it ends: the
    next fit goes on from there. In its result that epoch has `restored`. The state passes through
    the driver after each better epoch; it is lost where a fit is resumed in another process.

    Attributes:
        waited: Epochs in a row without improvement.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        patience: int = 3,
        min_delta: float = 0.0,
        mode: Mode = "auto",
        restore_best: bool = False,
    ) -> None:
        """Choose what to watch, and for how long.

        Args:
            monitor: A name in `run.logs`, such as `val_loss` or `val_Accuracy`.
            patience: Stop after this many epochs in a row without improvement; 0 is as 1.
            min_delta: Smaller changes are no improvement.
            mode: Whether smaller (`min`) or larger (`max`) is better; `auto` tells by the name.
            restore_best: End with the state of the best epoch instead of the last.

        Raises:
            InputError: An argument is out of its range.
        """
        super().__init__(monitor, mode=mode, min_delta=min_delta)
        if patience < 0:
            raise InputError("patience of 0 or more epochs", repr(patience), "Drop the sign.")
        self.patience, self.restore_best = patience, restore_best
        self.waited = 0

    def on_epoch_end(self, run: Run) -> None:
        """Count epochs without improvement, and stop after the last that patience allows.

        Args:
            run: The training after an epoch.

        Raises:
            InputError: No epoch had the number.
        """
        improved = self.improved(run)
        if improved is None:
            return
        if improved and self.restore_best:
            run.keep()
        self.waited = 0 if improved else self.waited + 1
        self._stop_in_time(run)

    def on_train_begin(self, run: Run) -> None:
        """Stay stopped, where a fit is resumed that had come to its end here.

        Args:
            run: The training before its first step.
        """
        self._stop_in_time(run)

    def _stop_in_time(self, run: Run) -> None:
        if self.waited and self.waited >= self.patience:
            run.stop(
                f"{self.monitor} has not been finite so far"
                if self.best is None
                else f"{self.monitor} is no better than {self.best:.6g} since epoch "
                f"{self.best_epoch}"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the best value, its epoch, and the epochs since."""
        restores = self.best_epoch if self.restore_best else 0
        return {**super().state_dict(), "waited": self.waited, "restores_epoch": restores}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on waiting.

        Args:
            state: What `state_dict` returned.
        """
        super().load_state_dict(state)
        self.waited = state["waited"]


class KeepBest(MonitorCallback):
    """Save the training after every epoch that is the best so far.

    `estimator.load(path)` brings it back. With the default `monitor`, validation data is needed.
    """

    def __init__(
        self,
        path: str,
        monitor: str = "val_loss",
        *,
        mode: Mode = "auto",
        min_delta: float = 0.0,
    ) -> None:
        """Choose what to watch, and where to save.

        Args:
            path: A file, on a file system of the driver; replaced by every better epoch.
            monitor: A name in `run.logs`, such as `val_loss` or `val_Accuracy`.
            mode: Whether smaller (`min`) or larger (`max`) is better; `auto` tells by the name.
            min_delta: Smaller changes are no improvement.

        Raises:
            InputError: An argument is out of its range.
        """
        super().__init__(monitor, mode=mode, min_delta=min_delta)
        self.path = path

    def on_epoch_end(self, run: Run) -> None:
        """Save when this epoch is better.

        Args:
            run: The training after an epoch.

        Raises:
            InputError: No epoch had the number.
        """
        if self.improved(run):
            run.save(self.path)


class StopWhen(Callback):
    """Stop when a trigger fires: after so many steps, or at a loss or a score that is enough.

    The score that triggers see is the first metric of the last validation, `val_loss` aside.
    """

    def __init__(self, trigger: Trigger) -> None:
        """Choose when to stop.

        Args:
            trigger: Asked after every step, and once more after every epoch.

        Raises:
            InputError: Another kind of object was given.
        """
        if not isinstance(trigger, Trigger):
            raise InputError(
                "a trigger of zoo.orca.learn.trigger", repr(trigger), "Use MinLoss(0.1), say."
            )
        self.trigger = trigger
        self._score: float | None = None
        self._seconds, self._counted_at = 0.0, 0.0

    def on_train_begin(self, run: Run) -> None:
        """Count the seconds from here on.

        Args:
            run: The training at its beginning.
        """
        self._counted_at = time.monotonic()

    def on_step_end(self, run: Run) -> None:
        """Ask the trigger after a step.

        Args:
            run: The training after a step.
        """
        self._ask(run, "loss", epochs=run.epoch - 1, ended=False)

    def on_epoch_end(self, run: Run) -> None:
        """Ask the trigger after an epoch.

        Args:
            run: The training after an epoch.
        """
        metrics = (value for name, value in run.logs.items() if _is_metric(name))
        self._score = next(metrics, self._score)
        self._ask(run, "train_loss", epochs=run.epoch, ended=True)

    def state_dict(self) -> dict[str, Any]:
        """Return the last score, and for how long the training went on."""
        return {"score": self._score, "seconds": self._seconds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there.

        Args:
            state: What `state_dict` returned.
        """
        self._score, self._seconds = state["score"], state["seconds"]

    def _ask(self, run: Run, loss: str, *, epochs: int, ended: bool) -> None:
        now = time.monotonic()
        self._seconds, self._counted_at = self._seconds + now - self._counted_at, now
        moment = Moment(
            iteration=run.iteration,
            epoch=epochs,
            epoch_ended=ended,
            loss=run.logs.get(loss, math.nan),
            score=self._score,
            seconds=self._seconds,
        )
        if self.trigger.fires(moment):
            run.stop(f"{type(self.trigger).__name__} fired at iteration {run.iteration}")


class TerminateOnNaN(Callback):
    """Stop when the loss of a step is not a number, or infinite."""

    def on_step_end(self, run: Run) -> None:
        """Look at the loss.

        Args:
            run: The training after a step.
        """
        loss = run.logs.get("loss", 0.0)
        if not math.isfinite(loss):
            run.stop(f"the loss is {loss} at iteration {run.iteration}; a smaller rate may help")


def _falls(name: str) -> bool:
    """Whether a number of this name is better when it is smaller."""
    lower = name.lower()
    words = re.split(r"[^a-z0-9]+", lower)
    return any(p in lower for p in _FALLING_PARTS) or not _FALLING_WORDS.isdisjoint(words)


def _is_metric(name: str) -> bool:
    return name.startswith("val_") and name != "val_loss"
