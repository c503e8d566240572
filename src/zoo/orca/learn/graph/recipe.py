"""A graph with all that training needs, as plain values: it travels to the ranks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from zoo.orca.learn.optimizers.optimizer import Optimizer

__all__ = ["Gradient", "Port", "Recipe", "Step", "Stored"]


@dataclass(frozen=True)
class Port:
    """A tensor of the graph that is fed or fetched.

    Attributes:
        name: As sessions know it, `x:0`.
        dtype: In numpy's words.
        shape: With None for what is not known; None when nothing is.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Stored:
    """A variable of the graph.

    Attributes:
        name: As TensorFlow's checkpoints have it.
        dtype: In numpy's words.
        shape: Of its value.
        read: The tensor that gives its value.
        place: The tensor that is fed with a new value.
        assign: The operation that takes that.
        own: The user's graph had it; others belong to the optimizer.
        op: What the graph calls it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    read: str
    place: str
    assign: str
    own: bool
    op: str


@dataclass(frozen=True)
class Gradient:
    """Where the gradient of a variable comes out, and where its mean goes in.

    Attributes:
        out: The tensor that gives it, dense, in single or double precision.
        place: The tensor that is fed with the mean.
        dtype: Of both.
        shape: Of both.
        seen: Of a table of which rows are looked up, the tensor that gives a 1 for each such row.
        seen_place: The tensor that is fed with the sum of these.
    """

    out: str
    place: str
    dtype: str
    shape: tuple[int, ...]
    seen: str | None = None
    seen_place: str | None = None


@dataclass(frozen=True)
class Step:
    """What a step of training runs.

    Attributes:
        gradients: Of all that is trained.
        updates: Operations that run with them.
        state: Names of variables that those, or the forward pass, write.
        after: Tensors that give these variables after that.
        apply: The operation that takes the mean gradients.
        rate: The learning rate, or the tensor that gives it.
        rate_place: The tensor that is fed with the rate; None where the graph has it.
        optimizer: Settings whose schedule gives the rate that is fed.
        kind: The name of the optimizer.
    """

    gradients: tuple[Gradient, ...]
    updates: tuple[str, ...]
    state: tuple[str, ...]
    after: tuple[str, ...]
    apply: str
    rate: float | str
    rate_place: str | None = None
    optimizer: Optimizer | None = None
    kind: str = ""


@dataclass(frozen=True)
class Recipe:
    """A graph, which of its tensors are what, and how it is trained.

    Attributes:
        graph: A `GraphDef`.
        inputs: What features go to.
        outputs: What predictions are.
        labels: What targets go to.
        variables: All of them.
        loss: One number for a batch, or one for each row; None without.
        metrics: Tensors by the name of the metric.
        of_rows: The loss is one number for each row.
        weights: The tensor that is fed with what each row weighs; None where that cannot be.
        step: None where there is nothing to train with.
        init: The operation that gives all variables their first values.
        setup: The operation that runs first in a session: tables, local variables.
        seed: The tensor that is fed with what random operations depend on.
        values: Of the variables at first; a rank gets them with its state instead.
        feeds: For other tensors by name, what they are fed with in training and else.
        needs: For what is run, by name, the tensors that have to be fed.
        session_config: A `ConfigProto`, or empty.
        config: Its `seed` and `shuffle` are those of the order of rows.
        version: Of TensorFlow, which ranks need as well.
        makes_weights: The weights are first ones, which nothing has trained.
    """

    graph: bytes
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    labels: tuple[Port, ...]
    variables: tuple[Stored, ...]
    loss: Port | None = None
    metrics: Mapping[str, str] = field(default_factory=dict)
    of_rows: bool = False
    weights: str | None = None
    step: Step | None = None
    init: str | None = None
    setup: str | None = None
    seed: str | None = None
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    feeds: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    needs: Mapping[str, frozenset[str]] = field(default_factory=dict)
    session_config: bytes = b""
    config: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""
    makes_weights: bool = True

    @property
    def compares(self) -> bool:
        """Whether the graph takes targets."""
        return bool(self.labels)

    def doubts(self, *, labels: bool) -> list[str]:
        """Nothing can be forgotten: a fit asks for all."""
        return []

    def describe(self) -> dict[str, Any]:
        """What loggers write down."""
        plain = {k: v for k, v in self.config.items() if isinstance(v, str | int | float | bool)}
        step = {} if self.step is None else {"optimizer": self.step.kind, "rate": self.step.rate}
        return {k: v for k, v in step.items() if k == "optimizer" or isinstance(v, float)} | plain
