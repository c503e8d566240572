"""Everything that training continues from, as one file that `weights_only` reads.

The file holds weights, optimizer, schedule and position; inside an epoch also what there is of its
statistics, what callbacks remember, and which data it was: enough for any number of ranks, in any
process, to go on at the very next step.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO

import torch

from zoo.errors import InputError
from zoo.orca.learn.loop import Position
from zoo.orca.learn.pytorch.recipe import Built

__all__ = ["State", "apply_state", "load_state", "read_state", "save_state", "write_state"]

_FORMATS = ("zoo-torch-1", "zoo-torch-2")


@dataclass(frozen=True)
class State:
    """A saved state, read and not yet put anywhere.

    Attributes:
        position: Where training stands.
        tree: The whole content; of a file with nothing but weights, these under `model`.
        whole: False for a file with nothing but weights.
        extras: What the training remembers besides: statistics, callbacks, data.
    """

    position: Position
    tree: Mapping[str, Any]
    whole: bool = True
    extras: Mapping[str, Any] = field(default_factory=dict)


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
    """Put a state into what was built.

    Returns:
        Where training stands.

    Raises:
        InputError: The state is of another model, optimizer or schedule.
    """
    tree = state.tree
    try:
        if state.whole and tree["optimizer_kind"] != type(built.optimizer).__name__:
            raise ValueError(f"the state of another optimizer, {tree['optimizer_kind']}")
        built.model.load_state_dict(tree["model"])
        if state.whole:
            built.optimizer.load_state_dict(tree["optimizer"])
            if built.scheduler is not None and tree["scheduler"] is not None:
                built.scheduler.load_state_dict(tree["scheduler"])
            if built.scaler is not None and tree.get("scaler"):
                built.scaler.load_state_dict(tree["scaler"])
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError) as exc:
        raise _unreadable(" ".join(f"{type(exc).__name__}: {exc}".split())) from exc
    return Position(state.position.epoch, state.position.step, state.position.iteration)


def load_state(built: Built, blob: bytes) -> Position:
    """Read a state and put it into what was built; see `read_state` and `apply_state`."""
    return apply_state(built, read_state(blob))


def _unreadable(what: str) -> InputError:
    return InputError(
        "a file written by save(), or by torch.save(model.state_dict()), for this model",
        what,
        "Cannot load the PyTorch model: check the path and that the model is the same.",
    )
