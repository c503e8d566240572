"""What an estimator trains and how far it is, on the driver: made once, saved, read, resumed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from zoo.errors import InputError
from zoo.orca.data.storage import locate
from zoo.orca.learn.keeper import write_whole
from zoo.orca.learn.loop import Position
from zoo.orca.learn.pytorch.recipe import Built, Recipe, build
from zoo.orca.learn.pytorch.resume import newest_state
from zoo.orca.learn.pytorch.rounds import Start
from zoo.orca.learn.pytorch.state import State, apply_state, read_state, save_state
from zoo.orca.learn.snapshots import SnapshotError, SnapshotStore, seal
from zoo.orca.learn.trigger import EveryEpoch, Trigger

__all__ = ["Training"]

_ZIP = b"PK\x03\x04"


class Training:
    """A recipe, what was built from it, and where it stands.

    Args:
        recipe: What the user gave.
        model_dir: Where snapshots are kept, or None.
        keep: How many of a fit; None keeps all.

    Attributes:
        position: Where training stands.
    """

    def __init__(self, recipe: Recipe, model_dir: str | None, keep: int | None) -> None:
        self._recipe, self._model_dir, self._keep = recipe, model_dir, keep
        self._built: Built | None = None
        self.position = Position()
        # Read from a file, inside an epoch: the next fit goes on there.
        self._begun: State | None = None

    @property
    def built(self) -> Built:
        """Model, optimizer and schedule, made at first use."""
        if self._built is None:
            seed = self._recipe.config.get("seed")
            with torch.random.fork_rng(devices=[], enabled=seed is not None):
                if seed is not None:
                    torch.manual_seed(int(seed))
                self._built = build(self._recipe)
        return self._built

    def state(self) -> bytes:
        """All of it, as the content of a file."""
        return save_state(self.built, self.position, self._extras())

    def take(self, blob: bytes) -> None:
        """Continue from the content of a file.

        Raises:
            InputError: It is none, it is damaged, or it is of another model.
        """
        try:
            blob = seal(blob) if blob.startswith(_ZIP) else blob
        except SnapshotError as exc:
            raise InputError(
                "a whole file", exc.received, f"Cannot load the PyTorch model. {exc.remedy}"
            ) from exc
        self._apply(read_state(blob))

    def end_fit(self, blob: bytes) -> None:
        """Take the state with which a fit ended: the next one begins a new epoch."""
        self.position, self._begun = apply_state(self.built, read_state(blob)), None
        self.position.step = 0

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file that appears whole or not at all."""
        write_whole(path, seal(self.state()))

    def load(self, path: str | os.PathLike[str]) -> None:
        """Read a file.

        Raises:
            InputError: It cannot be read, or see `take`.
        """
        try:
            blob = locate(path).read_bytes()
        except OSError as exc:
            raise InputError(
                "a file written by save()",
                str(exc),
                "Cannot load the PyTorch model: check the path.",
            ) from exc
        self.take(blob)

    def store(self) -> SnapshotStore | None:
        """Where snapshots go; None without a `model_dir`."""
        return None if self._model_dir is None else SnapshotStore(self._model_dir, keep=self._keep)

    def trigger(self, wanted: Any) -> Trigger | None:
        """When snapshots are written.

        Args:
            wanted: The user's `checkpoint_trigger`.

        Raises:
            InputError: It is no trigger, or there is no `model_dir`.
        """
        trigger = Trigger.convert_trigger(wanted)
        if trigger is not None and not isinstance(trigger, Trigger):
            raise InputError(
                "checkpoint_trigger as a trigger of zoo.orca.learn.trigger", repr(wanted),
                "Use SeveralIteration(100), for example.",
            )  # fmt: skip
        if self._model_dir is not None:
            return trigger or EveryEpoch()
        if trigger is not None:
            raise InputError(
                "a model_dir for snapshots", "checkpoint_trigger without one",
                "Pass model_dir to Estimator.from_torch.",
            )  # fmt: skip
        return None

    def start(self, epochs: int, resume: bool | str) -> Start:
        """Where a fit begins, and where it will end.

        Args:
            epochs: How many.
            resume: As in `TorchEstimator.fit`.

        Raises:
            InputError: There is nothing to resume from.
        """
        if resume not in (True, False, "epoch"):
            raise InputError("resume as True, False or 'epoch'", repr(resume), "Choose one.")
        first = None
        if resume:
            store = self.store()
            if store is None:
                raise InputError(
                    "a model_dir to resume from", "None", "Pass model_dir to Estimator.from_torch."
                )
            found = newest_state(store, between_epochs=resume == "epoch")
            if found is not None:
                self._apply(found, keep=True)
                first = int(found.extras.get("fit", {}).get("first_epoch", 0))
        first = self.position.epoch if first is None else first
        start = Start(self.state(), first, first + epochs, self._extras())
        self._begun = None
        return start

    def _apply(self, state: State, *, keep: bool = False) -> None:
        self.position = apply_state(self.built, state)
        self._begun = state if keep or self.position.step else None

    def _extras(self) -> Mapping[str, Any]:
        return {} if self._begun is None else self._begun.extras
