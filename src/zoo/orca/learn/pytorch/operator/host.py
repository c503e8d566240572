"""Makes a user's operator where it is needed, and remembers for it where it is not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from zoo.errors import InputError
from zoo.orca.learn.pytorch.batches import Batch
from zoo.orca.learn.pytorch.operator.several import Models, OptimizerList, members, require_plain
from zoo.orca.learn.pytorch.recipe import Built
from zoo.orca.learn.pytorch.training_operator import Parts, Stepper, TrainingOperator
from zoo.orca.learn.steps import Position

__all__ = [
    "OperatorHost",
    "Predictor",
    "add_operator",
    "checked_operator",
    "host_of",
    "predicting",
    "replaces",
    "to_tuple",
]


def replaces(operator: type[TrainingOperator], *names: str) -> bool:
    """Whether an operator has methods of its own in the place of any of these."""
    return any(getattr(operator, n) is not getattr(TrainingOperator, n) for n in names)


def checked_operator(operator: Any, accumulate: int) -> type[TrainingOperator] | None:
    """Look at the operator that a user gave; None when it is the default one.

    Args:
        operator: A class, or None.
        accumulate: Parts in which a rank goes through its rows of a step.

    Raises:
        InputError: It is no operator, or cannot do what is asked.
    """
    if operator is None or operator is TrainingOperator:
        return None
    if not isinstance(operator, type) or not issubclass(operator, TrainingOperator):
        raise InputError(
            "training_operator_cls as a class derived from TrainingOperator", repr(operator),
            "Import TrainingOperator from zoo.orca.learn.pytorch and derive from it.",
        )  # fmt: skip
    if accumulate > 1 and replaces(operator, "train_epoch", "train_batch"):
        raise InputError(
            "gradient_accumulation=1 with an operator that takes its own steps",
            str(accumulate),
            "Go through parts of the batch in your train_batch, or replace forward_batch only.",
        )
    return operator


def to_tuple(batch: Batch) -> tuple[Any, ...]:
    """A batch as operators see it: features, then the target."""
    targets = batch.targets
    target = targets[0] if len(targets) == 1 else list(targets) if targets else None
    return (*batch.features, target)


class OperatorHost:
    """Stands for the operator in what was built.

    Args:
        kind: The user's class.
        config: Of the estimator.
        use_tqdm: What the estimator was given.

    Attributes:
        kind: The user's class.
        info: What `fit` or `evaluate` was given.
        rank: Number of this rank; 0 where there are none.
        position: Where training stands; the loop moves it on.
    """

    def __init__(
        self, kind: type[TrainingOperator], config: Mapping[str, Any], use_tqdm: bool
    ) -> None:
        self.kind = kind
        self.info: Mapping[str, Any] = {}
        self.rank = 0
        self.position = Position()
        self._config, self._use_tqdm = dict(config), use_tqdm
        self._kept: dict[str, Any] = {}
        self._live: TrainingOperator | None = None

    @property
    def operator(self) -> TrainingOperator:
        """The operator that `start` made here."""
        assert self._live is not None
        return self._live

    def start(
        self, built: Built, *, train: bool = True, stepper: Stepper | None = None
    ) -> TrainingOperator:
        """Make the operator in this process.

        Args:
            built: What it works with.
            train: Whether it gets optimizers and schedules.
            stepper: Takes its steps, when it takes them itself.
        """
        parts = Parts(
            models=members(built.model),
            optimizers=members(built.optimizer) if train else (),
            criterion=built.loss,
            schedulers=members(built.scheduler) if train and built.scheduler is not None else (),
            device=built.device,
            world_rank=self.rank,
            use_fp16=built.precision == "fp16",
            use_tqdm=self._use_tqdm,
            stepper=stepper,
        )
        kind = self.kind if stepper is None else _heard(self.kind, stepper)
        self._live = kind(self._config, parts)
        if self._kept:
            self._live.load_state_dict(self._kept)
        return self._live

    def state_dict(self) -> dict[str, Any]:
        """What the operator remembers, or did when it was last heard of."""
        if self._live is None:
            return self._kept
        state = self._live.state_dict() or {}
        require_plain(state)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state."""
        self._kept = state
        if self._live is not None and state:
            self._live.load_state_dict(state)

    def __getstate__(self) -> dict[str, Any]:
        # Every process makes its own: it may hold files or connections.
        return {**vars(self), "_kept": self.state_dict(), "_live": None}


def _heard(kind: type[TrainingOperator], stepper: Stepper) -> type[TrainingOperator]:
    """The class of a user, whose `train_batch` is heard even by a `train_epoch` of the user's."""

    class Heard(kind):  # type: ignore[valid-type, misc]
        def train_batch(self, batch: Any, batch_info: dict[str, Any]) -> Any:
            numbers = super().train_batch(batch, batch_info)
            stepper.hear(numbers)
            return numbers

    Heard.__name__, Heard.__qualname__ = kind.__name__, kind.__qualname__
    return Heard


def add_operator(
    built: Built, kind: type[TrainingOperator], config: Mapping[str, Any], use_tqdm: bool
) -> None:
    """Give what was built an operator, and let what it remembers be saved with the optimizers.

    Args:
        built: Has none yet.
        kind: The user's class.
        config: Of the estimator.
        use_tqdm: What the estimator was given.
    """
    built.operator = host = OperatorHost(kind, config, use_tqdm)
    if isinstance(built.optimizer, OptimizerList):
        built.optimizer.memory = host
    elif replaces(kind, "state_dict", "load_state_dict"):
        built.optimizer = OptimizerList([built.optimizer], host)


def host_of(built: Built) -> OperatorHost:
    """The host of an operator that is there."""
    assert isinstance(built.operator, OperatorHost)
    return built.operator


class Predictor(torch.nn.Module):
    """Calls the operator's `predict` as if it were a model.

    Args:
        built: What the operator works with.
    """

    def __init__(self, built: Built) -> None:
        super().__init__()
        self.model = built.model
        self._host, self._loss, self._device = host_of(built), built.loss, built.device
        self._operator: TrainingOperator | None = None

    def forward(self, *features: torch.Tensor) -> Any:
        """Predict on one batch."""
        if self._operator is None:
            nothing = OptimizerList(())
            built = Built(self.model, nothing, self._loss, None, self._device)
            self._operator = self._host.start(built, train=False)
        output = self._operator.predict(iter([features]))
        if isinstance(output, tuple | list):
            return [torch.as_tensor(one) for one in output]
        return torch.as_tensor(output)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_operator": None}


def predicting(built: Built) -> Built:
    """What was built, with a model that predicts as the operator does."""
    host = built.operator
    if host is None:
        return built
    own = isinstance(built.model, Models) or replaces(host.kind, "predict", "predict_batch")
    if not own:
        return built
    return Built(Predictor(built), built.optimizer, None, None, built.device)
