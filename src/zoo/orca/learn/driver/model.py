"""What an estimator trains and how far it is, on the driver: made once, saved, read, resumed."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Mapping
from typing import Any

from zoo.errors import InputError
from zoo.orca.data.storage import locate
from zoo.orca.learn.driver.keeper import write_whole
from zoo.orca.learn.driver.resume import newest_state
from zoo.orca.learn.driver.rounds import Start
from zoo.orca.learn.driver.snapshots import SnapshotError, SnapshotStore, read_bytes, seal
from zoo.orca.learn.driver.stages import Stages
from zoo.orca.learn.framework import Framework, State
from zoo.orca.learn.steps import Position
from zoo.orca.learn.trigger import EveryEpoch, Trigger

__all__ = ["TrainedModel"]

_log = logging.getLogger(__name__)
_ZIP = b"PK\x03\x04"


class TrainedModel:
    """A recipe, what was built from it, and where it stands.

    Args:
        framework: Builds it.
        recipe: What the user gave.
        model_dir: Where snapshots are kept, or None.
        keep: How many of a fit; None keeps all.
        stages: Applied to its data.

    Attributes:
        position: Where training stands.
        fresh: Nothing was trained or read so far.
        stages: Applied to its data.
    """

    def __init__(
        self,
        framework: Framework,
        recipe: Any,
        model_dir: str | None,
        keep: int | None,
        stages: Stages | None = None,
    ) -> None:
        self._framework, self._recipe = framework, recipe
        self._model_dir, self._keep = model_dir, keep
        self.stages = stages or Stages()
        self._built: Any = None
        self._asked: dict[str, Any] = {}
        self.position, self.fresh = Position(), True
        # Read from a file, inside an epoch: the next fit goes on there.
        self._begun: State | None = None

    @property
    def _cannot_load(self) -> str:
        return f"Cannot load the {self._framework.title} model"

    @property
    def built(self) -> Any:
        """Model, optimizer and schedule, made at first use."""
        if self._built is None:
            self._built = self._framework.build(self._recipe)
            self._asked = self._framework.settings(self._built)
        return self._built

    def state(self) -> bytes:
        """All of it, as the content of a file."""
        file = io.BytesIO()
        self._framework.write(file, self.built, self.position, self._extras())
        return file.getvalue()

    def take(self, blob: bytes) -> None:
        """Continue from the content of a file.

        Raises:
            InputError: It is none, it is damaged, or it is of another model.
        """
        try:
            blob = seal(blob) if blob.startswith(_ZIP) else blob
        except SnapshotError as exc:
            raise InputError(
                "a whole file", exc.received, f"{self._cannot_load}. {exc.remedy}"
            ) from exc
        self._apply(self._framework.read(blob))

    def end_fit(self, blob: bytes) -> None:
        """Take the state with which a fit ended: the next one begins a new epoch."""
        state = self._framework.read(blob)
        self.position, self._begun = self._framework.apply(self.built, state), None
        self.fresh, self.stages.settled = False, True
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
            blob = read_bytes(locate(path))
        except OSError as exc:
            raise InputError(
                "a file written by save()",
                str(exc),
                f"{self._cannot_load}: check the path.",
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
            InputError: It is no trigger.
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
            _log.warning(
                "checkpoint_trigger has no effect without a model_dir: no snapshot is written. "
                "Pass model_dir to the estimator."
            )
        return None

    def resume(self, resume: bool | str) -> int | None:
        """Continue from the newest snapshot, if that is wanted and there is one.

        Args:
            resume: As in `TorchEstimator.fit`.

        Returns:
            Epochs that were done before the fit that is gone on with; None without one.

        Raises:
            InputError: There is nothing to resume from.
        """
        if resume not in (True, False, "epoch"):
            raise InputError("resume as True, False or 'epoch'", repr(resume), "Choose one.")
        if not resume:
            return None
        store = self.store()
        if store is None:
            raise InputError(
                "a model_dir to resume from", "None", "Pass model_dir to the estimator."
            )
        found = newest_state(store, self._framework.read, between_epochs=resume == "epoch")
        if found is None:
            return None
        self._apply(found, keep=True)
        return int(found.extras.get("fit", {}).get("first_epoch", 0))

    def start(self, epochs: int, first: int | None = None) -> Start:
        """Where a fit begins, and where it will end.

        Args:
            epochs: How many.
            first: What `resume` has given.
        """
        first = self.position.epoch if first is None else first
        start = Start(self.state(), first, first + epochs, self._extras())
        self._begun = None
        return start

    def _apply(self, state: State, *, keep: bool = False) -> None:
        stages = Stages.read(state.extras)
        self.position, self.fresh = self._framework.apply(self.built, state), False
        self.stages = stages or self.stages
        self._begun = state if keep or self.position.step else None
        self._say_what_is_kept()

    def _say_what_is_kept(self) -> None:
        """A state brings its settings along; somebody may have changed them in the program."""
        now = self._framework.settings(self.built)
        other = {n: v for n, v in self._asked.items() if n in now and now[n] != v}
        if other:
            shown = ", ".join(f"{name} {now[name]}, not {value}" for name, value in other.items())
            _log.warning(
                "training goes on as the saved state has it: %s. To change that, %s",
                shown, self._framework.other_settings,
            )  # fmt: skip

    def _extras(self) -> Mapping[str, Any]:
        begun = {} if self._begun is None else self._begun.extras
        return {**begun, **self.stages.extras}
