"""Everything that training continues from, as one file that `weights_only` reads.

The file holds weights, optimizer, schedule and position; inside an epoch also what there is of its
statistics, what callbacks remember, and which data it was: enough for any number of ranks, in any
process, to go on at the very next step.
"""

from __future__ import annotations

import copy
import io
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, BinaryIO

import torch

from zoo.errors import InputError
from zoo.orca.learn.framework import State
from zoo.orca.learn.pytorch.operator.several import OptimizerList, members
from zoo.orca.learn.pytorch.recipe import Built
from zoo.orca.learn.steps import Position

__all__ = [
    "apply_state",
    "load_state",
    "read_state",
    "save_state",
    "settings_of",
    "write_state",
]

_log = logging.getLogger(__name__)

_FORMATS = ("zoo-torch-1", "zoo-torch-2")


def write_state(
    file: BinaryIO, built: Built, position: Position, extras: Mapping[str, Any] | None = None
) -> None:
    """Write the state to a file from its beginning on, as quickly as memory can be copied.

    What is in the file already is overwritten in place: memory that was touched before takes a
    tenth of the time. The zip file in it has no checksums for its members; `SnapshotStore` puts one
    over all of it.

    Args:
        file: In memory, to be used again for the next state.
        built: Model, optimizer and schedule.
        position: Where training stands.
        extras: Plain values to keep with it.
    """
    usual = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        file.seek(0)
        torch.save(_tree(built, position, extras), file)
        file.truncate()
    finally:
        torch.serialization.set_crc32_options(usual)


def save_state(built: Built, position: Position, extras: Mapping[str, Any] | None = None) -> bytes:
    """The state as the content of a file.

    Args:
        built: Model, optimizer and schedule.
        position: Where training stands.
        extras: Plain values to keep with it.
    """
    buffer = io.BytesIO()
    torch.save(_tree(built, position, extras), buffer)
    return buffer.getvalue()


def _tree(built: Built, position: Position, extras: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "format": _FORMATS[-1],
        **asdict(position),
        "model": built.model.state_dict(),
        "optimizer": built.optimizer.state_dict(),
        "scheduler": None if built.scheduler is None else _plain(built.scheduler.state_dict()),
        "scaler": None if built.scaler is None else built.scaler.state_dict(),
        "optimizer_kind": type(built.optimizer).__name__,
        "extras": dict(extras or {}),
    }


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """Without functions, which would need pickle and are made anew by the creator."""
    return {k: v for k, v in state.items() if not callable(v)}


def read_state(blob: bytes) -> State:
    """Read the content of a file.

    Raises:
        InputError: It is no state.
    """
    try:
        tree = torch.load(io.BytesIO(blob), map_location="cpu", weights_only=True)
    except Exception as exc:  # torch raises many kinds for what is no file of its own
        raise _unreadable(f"{type(exc).__name__}: {exc}".splitlines()[0]) from exc
    if not isinstance(tree, dict):
        raise _unreadable(f"a saved {type(tree).__name__}")
    if tree.get("format") not in _FORMATS:
        return State(Position(), {"model": tree}, whole=False)
    try:
        position = Position(tree["epoch"], tree.get("step", 0), tree["iteration"])
        return State(position, tree, extras=tree.get("extras", {}))
    except KeyError as exc:
        raise _unreadable(f"a state without {exc}") from exc


def apply_state(built: Built, state: State) -> Position:
    """Put a state into what was built, or refuse it and change nothing.

    Returns:
        Where training stands.

    Raises:
        InputError: The state is of another model, optimizer or schedule.
    """
    tree, undo = state.tree, list[Callable[[], object]]()
    with_optimizer = state.whole and _wants_optimizer(built, tree["optimizer_kind"])
    if not state.whole:
        _require_one_value(built.model, tree["model"])
    try:
        certain = _fits(built.model, tree["model"])
        if not certain:
            undo.append(_memory(built.model))
            built.model.load_state_dict(tree["model"])
        if with_optimizer:
            # These take a state in the place of theirs, which is still there to go back to. The
            # model is overwritten: where it comes last no second copy of it is needed.
            for part, saved in _small_parts(built, tree):
                before = copy.copy(part.state_dict())
                undo.append(partial(part.load_state_dict, before))
                part.load_state_dict(saved)
        if certain:
            built.model.load_state_dict(tree["model"])
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError) as exc:
        for step in reversed(undo):
            step()
        raise _unreadable(" ".join(f"{type(exc).__name__}: {exc}".split())) from exc
    return Position(state.position.epoch, state.position.step, state.position.iteration)


def _wants_optimizer(built: Built, saved: str) -> bool:
    """Whether the file's optimizer and schedule are to be used.

    Raises:
        InputError: The user has chosen another one.
    """
    own = type(built.optimizer).__name__
    if saved == own:
        return True
    if built.chosen:
        raise InputError(
            f"a file that was saved with the optimizer {own}",
            f"the state of another optimizer, {saved}",
            "Cannot load the PyTorch model with it. Make the estimator with that one, or with "
            "none to evaluate and predict.",
        )
    _log.info("the file's optimizer, %s, is not used: the estimator was made with none", saved)
    return False


def _small_parts(built: Built, tree: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """What has a state besides the model, each with what is to be its state, in order."""
    saved = tree["optimizer"]
    several = saved.get("optimizers", [saved])
    parts: list[tuple[Any, Any]] = list(zip(members(built.optimizer), several, strict=True))
    if isinstance(built.optimizer, OptimizerList) and built.optimizer.memory is not None:
        parts.append((built.optimizer.memory, saved["operator"]))
    if built.scheduler is not None and tree["scheduler"] is not None:
        parts.append((built.scheduler, tree["scheduler"]))
    if built.scaler is not None and tree.get("scaler"):
        parts.append((built.scaler, tree["scaler"]))
    return parts


def _fits(model: torch.nn.Module, weights: Mapping[str, Any]) -> bool:
    """Whether the model takes these weights for certain.

    It may take others, too: modules know older names, and may have a state that is no tensor.
    """
    own = model.state_dict()
    return own.keys() == weights.keys() and all(
        isinstance(value, torch.Tensor)
        and isinstance(weights[name], torch.Tensor)
        and value.shape == weights[name].shape
        for name, value in own.items()
    )


def _require_one_value(model: torch.nn.Module, weights: Mapping[str, Any]) -> None:
    """Refuse two values for what is one parameter here: the last to come would win unnoticed."""
    first: dict[int, str] = {}
    for name, parameter in model.state_dict(keep_vars=True).items():
        other = first.setdefault(id(parameter), name)
        one, two = weights.get(other), weights.get(name)
        if other == name or not isinstance(one, torch.Tensor) or not isinstance(two, torch.Tensor):
            continue
        if not torch.equal(one, two):
            raise _unreadable(
                f"other weights for '{name}' than for '{other}', which are one parameter here"
            )


def _memory(model: torch.nn.Module) -> Callable[[], object]:
    """Copies the model's state; gives what puts it back."""
    before = copy.deepcopy(model.state_dict())
    return lambda: model.load_state_dict(before)


# Of a schedule: these change while it works.
_MOVING = {"last_epoch", "best", "num_bad_epochs", "cooldown_counter", "T_cur", "T_i"}


def settings_of(built: Built) -> dict[str, Any]:
    """What optimizer and schedule were made with, by name, as far as it is plain numbers.

    Args:
        built: Before training, or at any time after: what training changes is left out.
    """
    several, found = len(built.optimizer.param_groups) > 1, dict[str, Any]()
    for number, group in enumerate(built.optimizer.param_groups):
        own = {k: v for k, v in group.items() if not k.startswith(("param", "initial_", "max_"))}
        own["lr"] = float(group.get("initial_lr", group["lr"]))
        if "max_momentum" in group:  # a cycle, which moves them
            own = {k: v for k, v in own.items() if k not in ("momentum", "betas")}
        of = f" of group {number}" if several else ""
        found |= {f"{name}{of}": value for name, value in own.items() if _is_plain(value)}
    if built.scheduler is not None:
        state = built.scheduler.state_dict().items()
        kept = {k: v for k, v in state if k not in _MOVING and not k.startswith("_")}
        found |= {f"{k} of the schedule": v for k, v in kept.items() if _is_plain(v)}
    return found


def _is_plain(value: object) -> bool:
    parts = value if isinstance(value, tuple) else (value,)
    return all(isinstance(part, int | float) for part in parts)


def load_state(built: Built, blob: bytes) -> Position:
    """Read a state and put it into what was built; see `read_state` and `apply_state`."""
    return apply_state(built, read_state(blob))


def _unreadable(what: str) -> InputError:
    return InputError(
        "a file written by save(), or by torch.save(model.state_dict()), for this model",
        what,
        "Cannot load the PyTorch model: check the path and that the model is the same.",
    )
