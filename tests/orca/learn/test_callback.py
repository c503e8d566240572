"""Several callbacks as one: order, errors, states."""

import logging
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from zoo.errors import InputError
from zoo.orca.learn.callback import Callback, CallbackList

METHODS = ["on_train_begin", "on_epoch_begin", "on_step_end", "on_epoch_end", "on_train_end"]


@dataclass
class Training:
    """A training that only notes what callbacks ask of it."""

    model: Any = None
    optimizer: Any = None
    epoch: int = 1
    step: int = 0
    iteration: int = 0
    rank: int = 0
    size: int = 1
    logs: dict[str, float] = field(default_factory=dict)
    stops: list[str] = field(default_factory=list)
    saves: list[str] = field(default_factory=list)

    def stop(self, why: str) -> None:
        self.stops.append(why)

    def keep(self) -> None:
        raise AssertionError("nothing is kept")

    def save(self, path: str) -> None:
        self.saves.append(path)


class Adding(Callback):
    """Adds its name to the logs after an epoch, and remembers how often."""

    def __init__(self, name: str) -> None:
        self.name, self.times = name, 0

    def on_epoch_end(self, run: Training) -> None:
        self.times += 1
        run.logs[self.name] = len(run.logs)

    def state_dict(self) -> dict[str, Any]:
        return {"times": self.times}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.times = state["times"]


class Noting(Callback):
    def __init__(self) -> None:
        self.called: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name in METHODS:
            return lambda run: self.called.append(name)
        return super().__getattribute__(name)


class Breaking(Callback):
    def on_step_end(self, run: Training) -> None:
        raise RuntimeError("no disk")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_reaches_callbacks(method: str) -> None:
    noting = Noting()
    getattr(CallbackList([Callback(), noting]), method)(Training())
    assert noting.called == [method]


def test_callbacks_are_called_in_order() -> None:
    run = Training()
    CallbackList([Adding("first"), Adding("second")]).on_epoch_end(run)
    assert run.logs == {"first": 0, "second": 1}


def test_error_names_callback_and_method_even_from_another_process() -> None:
    with pytest.raises(RuntimeError, match="no disk") as caught:
        CallbackList([Breaking()]).on_step_end(Training())
    far = pickle.loads(pickle.dumps(caught.value))
    assert far.__notes__ == ["raised in Breaking.on_step_end, a callback"]


@pytest.mark.parametrize("given", [Callback, print, None])
def test_only_callbacks_are_taken(given: Any) -> None:
    with pytest.raises(InputError, match="Derive the class from Callback"):
        CallbackList([given])


def test_state_goes_by_position_and_class() -> None:
    saved = CallbackList([Adding("a"), Callback(), Adding("b")])
    for callback in saved.callbacks[1:]:
        callback.on_epoch_end(Training())
    state = saved.state_dict()
    assert state == {"0:Adding": {"times": 0}, "2:Adding": {"times": 1}}
    resumed = CallbackList([Adding("a"), Callback(), Adding("b")])
    resumed.load_state_dict(state)
    assert [one.times for one in resumed.callbacks if isinstance(one, Adding)] == [0, 1]


def test_state_of_other_callbacks_is_left_with_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        CallbackList([Callback()]).load_state_dict({"0:Adding": {"times": 3}, "1:Old": {"x": 1}})
    assert [record.getMessage() for record in caplog.records] == [
        "The saved training had other callbacks; what 0:Adding, 1:Old remembered is not used"
    ]


def test_new_callbacks_need_no_state(caplog: pytest.LogCaptureFixture) -> None:
    CallbackList([Adding("a")]).load_state_dict({})
    assert not caplog.records
