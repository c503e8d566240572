"""What the user gave, checked: tensors of one graph, and what may be done with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from zoo.errors import InputError
from zoo.orca.learn.graph.recipe import Port
from zoo.orca.learn.optimizers.optimizer import Optimizer as NamedOptimizer

__all__ = ["Parts", "checked_parts", "port_of"]

v1 = tf.compat.v1


@dataclass(frozen=True)
class Parts:
    """Tensors and operations of one graph.

    Attributes:
        graph: Theirs.
        inputs: What features go to.
        outputs: What predictions are.
        labels: What targets go to.
        loss: One number for a batch, or one for each row; None without.
        metrics: Tensors by name.
        updates: Operations that run with each step.
        optimizer: Of `tf.compat.v1.train` or `zoo.orca.learn.optimizers`; None without.
    """

    graph: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    labels: tuple[Any, ...]
    loss: Any
    metrics: Mapping[str, Any]
    updates: tuple[Any, ...]
    optimizer: Any


def checked_parts(
    *,
    inputs: Any,
    outputs: Any,
    labels: Any,
    loss: Any,
    metrics: Mapping[str, Any],
    updates: Any,
    optimizer: Any,
    graph: Any,
) -> Parts:
    """Make sure that these are tensors of one graph.

    Args:
        inputs: A tensor, or several.
        outputs: The same, or None.
        labels: The same, or None.
        loss: A tensor, or None.
        metrics: Tensors by name.
        updates: Operations or tensors, or None.
        optimizer: Or None.
        graph: That of the session that was given, or None.

    Raises:
        InputError: One is something else, or of another graph.
    """
    ins, outs, targets = (
        _several("inputs", inputs),
        _several("outputs", outputs),
        _several("labels", labels),
    )
    if not ins:
        raise InputError(
            "inputs of the graph", repr(inputs), "Pass the placeholder that features go to."
        )
    if loss is not None:
        loss = _tensor("loss", loss)
    named = {name: _tensor(f"metrics[{name!r}]", metric) for name, metric in metrics.items()}
    run = tuple(_several("updates", updates, operations=True))
    graph = graph or ins[0].graph
    for what, part in [
        *(("inputs", t) for t in ins), *(("outputs", t) for t in outs),
        *(("labels", t) for t in targets), *(("updates", t) for t in run),
        *(() if loss is None else [("loss", loss)]), *(("metrics", t) for t in named.values()),
    ]:  # fmt: skip
        if part.graph is not graph:
            raise InputError(
                "tensors of one graph, that of inputs and of sess",
                f"{what} {part.name!r} of another graph",
                "Make all of them inside the same `with graph.as_default():`.",
            )
    if graph.finalized:
        raise InputError(
            "a graph that can grow", "one that was finalized",
            "Make the estimator before tf.compat.v1.train.MonitoredSession or finalize().",
        )  # fmt: skip
    for tensor in (*ins, *targets):
        _require_rows(graph, tensor)
    if loss is not None and not loss.dtype.is_floating:
        raise InputError("a loss of floating-point numbers", loss.dtype.name, "Cast it.")
    _require_optimizer(optimizer)
    return Parts(graph, ins, outs, targets, loss, named, run, optimizer)


def port_of(tensor: Any) -> Port:
    """A tensor by name."""
    shape = tensor.shape
    return Port(
        tensor.name,
        tensor.dtype.base_dtype.name,
        None if shape.rank is None else tuple(shape.as_list()),
    )


def _several(what: str, given: Any, *, operations: bool = False) -> tuple[Any, ...]:
    if given is None:
        return ()
    parts: Sequence[Any] = given if isinstance(given, list | tuple) else [given]
    return tuple(_tensor(what, part, operations=operations) for part in parts)


def _tensor(what: str, given: Any, *, operations: bool = False) -> Any:
    if operations and isinstance(given, tf.Operation):
        return given
    if isinstance(given, tf.Variable | v1.Variable) and hasattr(given, "graph"):
        with given.graph.as_default():  # what assignments give is a variable as well
            given = given.value()
    if isinstance(given, tf.Tensor) and tf.is_symbolic_tensor(given):
        return given
    kind = type(given).__name__
    keras = " Models of Keras go to Estimator.from_keras." if "Keras" in kind else ""
    raise InputError(
        f"{what} as a tensor of a TensorFlow graph",
        f"a value ({kind})" if isinstance(given, tf.Tensor) else f"{given!r} ({kind})",
        "Make it inside `with tf.Graph().as_default():`, or after "
        f"tf.compat.v1.disable_eager_execution().{keras}",
    )


def _require_rows(graph: Any, tensor: Any) -> None:
    if not graph.is_feedable(tensor):
        raise InputError(
            "inputs and labels that can be fed", repr(tensor.name), "Use tf.compat.v1.placeholder."
        )
    # As a list: after tf.compat.v1.disable_v2_behavior() a shape is one of `Dimension`s.
    shape = [None] if tensor.shape.rank is None else tensor.shape.as_list()
    if not shape or shape[0] is not None:
        raise InputError(
            "inputs and labels for any number of rows",
            f"{tensor.name!r} of shape {tuple(shape)}",
            "Give them None as their first dimension: a rank's part of a batch has any size.",
        )


def _require_optimizer(optimizer: Any) -> None:
    if optimizer is None or isinstance(optimizer, v1.train.Optimizer | NamedOptimizer):
        return
    raise InputError(
        "optimizer of tf.compat.v1.train or of zoo.orca.learn.optimizers",
        f"{type(optimizer).__name__} of {type(optimizer).__module__}",
        "Use tf.compat.v1.train.AdamOptimizer(), for example: optimizers of Keras do not run in "
        "graphs.",
    )
