"""What the driver tells the ranks of a round: the one contract between both sides."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo.orca.data.tensors.plan import TensorPlan
from zoo.orca.data.tensors.tensor_shard import TensorShard
from zoo.orca.learn.callback import Callback
from zoo.orca.learn.steps import GradientLimits
from zoo.orca.learn.trigger import Trigger

__all__ = ["GivenData", "LoaderSource", "Order", "SnapshotOrder", "Source", "TensorSource"]


@dataclass(frozen=True)
class TensorSource:
    """Rows that lie in tensor shards.

    Attributes:
        plan: The tensors.
        shards: All shards of the frame.
        batch_size: Rows of a step over all ranks.
        seed: Of the order; None keeps the order of the frame.
        part: Which data of the fit: 0 for training, 1 for validation.
        copies: Each shard is to have a copy on another host.
    """

    plan: TensorPlan
    shards: tuple[TensorShard, ...]
    batch_size: int
    seed: int | None
    part: int = 0
    copies: bool = False


class GivenData(ABC):
    """A creator function of what was made on the driver already: all ranks share its batches.

    Attributes:
        own_batch_size: Rows of these batches.
    """

    own_batch_size: int

    @abstractmethod
    def __call__(self, config: dict[str, Any], batch_size: int) -> Any:
        """What the framework loads data with, in a rank."""


@dataclass(frozen=True)
class LoaderSource:
    """Rows that a creator function makes on every rank.

    Attributes:
        creator: `f(config, batch_size)` that returns what the framework loads data with.
        config: Its first argument, to which `rank` and `size` are added.
        batch_size: Rows of a step over all ranks.
        seed: Of the order.
        steps: Of an epoch; None for those that there are. A framework may have no use for it.
        part: 0 for training, where an epoch of so many steps begins where the one before has ended;
            1 for validation and evaluation, which look at the same rows each time.
    """

    creator: Callable[[dict[str, Any], int], Any]
    config: Mapping[str, Any]
    batch_size: int
    seed: int
    steps: int | None = None
    part: int = 0


Source = TensorSource | LoaderSource


@dataclass(frozen=True)
class SnapshotOrder:
    """When the driver gets the state while training goes on.

    Attributes:
        trigger: For snapshots that are kept; None for none.
        hold_s: How often the driver gets one to go back to; None for never.
        since_s: When the round begins, how long it is since the last snapshot, or since the fit
            began.
    """

    trigger: Trigger | None = None
    hold_s: float | None = None
    since_s: float = 0.0


@dataclass(frozen=True)
class Order:
    """What all ranks of a round work on: from a state to the end of an epoch.

    Attributes:
        framework: Its name in `zoo.orca.learn.framework.FRAMEWORKS`.
        recipe: What the user gave, pickled by the driver; the framework builds from it.
        state: Where training stands, as the framework writes it.
        source: The training data.
        validation: The validation data, or None.
        metrics: Computed in validation.
        until: Epochs done, since the estimator was made, when the fit is over.
        threads: Of every rank.
        seed: Of randomness inside the model.
        limits: For gradients, or None.
        callbacks: Called in every rank.
        snapshots: When the driver gets the state.
        facts: Of the fit and its data, kept with the state.
        log_steps: The driver wants the numbers of every step.
        info: For the user's own code in the ranks.
    """

    framework: str
    recipe: bytes
    state: bytes
    source: Source | None = None
    validation: Source | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    until: int = 0
    threads: int = 1
    seed: int = 0
    limits: GradientLimits | None = None
    callbacks: tuple[Callback, ...] = ()
    snapshots: SnapshotOrder = field(default_factory=SnapshotOrder)
    facts: Mapping[str, Any] = field(default_factory=dict)
    log_steps: bool = False
    info: Mapping[str, Any] = field(default_factory=dict)
