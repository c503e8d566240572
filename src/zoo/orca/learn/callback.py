"""The contract of a callback: what it sees, when it is called, how several are called as one."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from zoo.errors import InputError

__all__ = ["Callback", "CallbackList", "Run"]

_log = logging.getLogger(__name__)


class Run(Protocol):
    """The training as a callback sees it.

    Attributes:
        model: The model that is trained.
        optimizer: Its optimizer.
        epoch: Number of the running epoch, from 1, over all fits.
        step: Steps done in this epoch.
        steps: Steps of an epoch; None when ranks may have unequal numbers.
        iteration: Steps done in all.
        rank: Number of this rank, from 0.
        size: How many ranks there are now; may change from round to round.
        mean_loss: Mean loss of the epoch so far.
        logs: Numbers. After a step `loss` and `lr`; after an epoch `train_loss`, `lr`, and with
            validation data `val_loss` and `val_<Metric>`. What a callback adds after an epoch
            reaches the result of `fit` and the loggers.
    """

    model: Any
    optimizer: Any
    epoch: int
    step: int
    steps: int | None
    iteration: int
    rank: int
    size: int
    mean_loss: float
    logs: dict[str, float]

    def stop(self, why: str) -> None:
        """End the fit after this step, on all ranks: one rank's word is enough.

        Args:
            why: The reason, in words.
        """

    def save(self, path: str) -> None:
        """Write the whole state, as the estimator's `save` does, from rank 0 to the driver.

        Args:
            path: Where, on a file system of the driver. Call it on every rank.
        """

    def keep(self) -> None:
        """Let the fit end with the state of this moment, unless a later one is kept.

        Call it on every rank.
        """


class Callback:
    """Base of callbacks; every method may be left out.

    `zoo.orca.learn.callbacks` says how they are called.
    """

    def on_train_begin(self, run: Run) -> None:
        """Called when a rank begins or goes on with the training, the state being loaded."""

    def on_epoch_begin(self, run: Run) -> None:
        """Called before the first step of an epoch; not when a run goes on inside one."""

    def on_step_end(self, run: Run) -> None:
        """Called after every step, so it should be quick."""

    def on_epoch_end(self, run: Run) -> None:
        """Called after an epoch and its validation."""

    def on_train_end(self, run: Run) -> None:
        """Called when the fit is done or was stopped, not when it failed."""

    def state_dict(self) -> dict[str, Any]:
        """Return what must outlive this process, in plain numbers, texts, lists and dicts."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Args:
            state: What it returned, perhaps in another process.
        """


class CallbackList(Callback):
    """Several callbacks as one, called in order.

    An error that one raises carries a note with its name. States go by position and class; a run
    that resumes with other callbacks gives the rest nothing, and says so once.
    """

    def __init__(self, callbacks: Sequence[Callback] = ()) -> None:
        """Keep the callbacks.

        Args:
            callbacks: In the order in which they are called.

        Raises:
            InputError: One is no callback.
        """
        for callback in callbacks:
            if not isinstance(callback, Callback):
                raise InputError(
                    "callbacks of zoo.orca.learn.callbacks",
                    repr(callback),
                    "Derive the class from Callback, and give an object of it.",
                )
        self.callbacks = tuple(callbacks)

    def on_train_begin(self, run: Run) -> None:
        """Tell all that a rank begins or goes on."""
        self._tell("on_train_begin", run)

    def on_epoch_begin(self, run: Run) -> None:
        """Tell all that an epoch begins."""
        self._tell("on_epoch_begin", run)

    def on_step_end(self, run: Run) -> None:
        """Tell all that a step is done."""
        self._tell("on_step_end", run)

    def on_epoch_end(self, run: Run) -> None:
        """Tell all that an epoch is done."""
        self._tell("on_epoch_end", run)

    def on_train_end(self, run: Run) -> None:
        """Tell all that the fit is done."""
        self._tell("on_train_end", run)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of all that have one, by position and class."""
        states: dict[str, Any] = {}
        for key, callback in self._keys():
            with _named(callback, "state_dict"):
                state = callback.state_dict()
            if state:
                states[key] = state
        return states

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Hand out states; those that fit no callback are left, with one warning.

        Args:
            state: What `state_dict` returned, perhaps of other callbacks.
        """
        for key, callback in self._keys():
            if key in state:
                with _named(callback, "load_state_dict"):
                    callback.load_state_dict(state[key])
        left = sorted(set(state) - {key for key, _ in self._keys()})
        if left:
            _log.warning(
                "The saved training had other callbacks; what %s remembered is not used",
                ", ".join(left),
            )

    def _tell(self, method: str, run: Run) -> None:
        for callback in self.callbacks:
            with _named(callback, method):
                getattr(callback, method)(run)

    def _keys(self) -> Iterator[tuple[str, Callback]]:
        for at, callback in enumerate(self.callbacks):
            yield f"{at}:{type(callback).__name__}", callback


@contextmanager
def _named(callback: Callback, method: str) -> Iterator[None]:
    try:
        yield
    except Exception as exc:
        exc.add_note(f"raised in {type(callback).__name__}.{method}, a callback")
        raise
