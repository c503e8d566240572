"""Which types and shapes a graph takes, and how its loss adds up, found out on the driver.

The graph says what its placeholders take. A few made-up rows show that it runs, before any job; and
once, and then twice in one batch, they show whether the loss is a mean over rows, or a sum.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf

from zoo.errors import ColumnError, InputError
from zoo.orca.data.tensors.plan import TensorPlan, TensorSpec
from zoo.orca.learn.graph.built import Built
from zoo.orca.learn.graph.program import Program
from zoo.orca.learn.graph.randomness import quiet
from zoo.orca.learn.graph.recipe import Port

__all__ = ["as_taken", "try_loss"]

_log = logging.getLogger(__name__)

_ROWS = 4
# How far a loss with noise in it may be off.
_NOISE = 0.2


def as_taken(built: Built, plan: TensorPlan, fixed: frozenset[str]) -> TensorPlan:
    """The layout in which placeholders take the tensors.

    Args:
        built: The graph.
        plan: Features, and targets if there are any.
        fixed: Columns whose type the user has chosen.

    Raises:
        ColumnError: They cannot take them.
    """
    recipe = built.recipe
    features = _paired("inputs", recipe.inputs, plan.features, fixed)
    labels = _paired("labels", recipe.labels, plan.labels, fixed) if plan.labels else ()
    taken = replace(plan, features=features, labels=labels)
    known = all(s.shape is not None and s.dtype is not None for s in taken.tensors)
    if recipe.loss is not None and (labels or not recipe.labels) and known:
        specs = zip((*recipe.inputs, *recipe.labels), (*features, *labels), strict=True)
        try_loss(built, {port.name: (s.dtype or "", s.shape or ()) for port, s in specs})
    return taken


def _paired(
    what: str, ports: Sequence[Port], specs: Sequence[TensorSpec], fixed: frozenset[str]
) -> tuple[TensorSpec, ...]:
    if len(ports) != len(specs):
        shown = ", ".join(f"'{s.name}'" for s in specs)
        name = "feature_cols" if what == "inputs" else "label_cols"
        raise ColumnError(
            f"{len(ports)} tensors for the {what} of the graph ({_names(ports)})",
            f"{len(specs)} ({shown})",
            f"Each entry of {name} is one of the {what}; a list inside the list puts columns side "
            "by side.",
        )
    return tuple(_as(port, spec, fixed) for port, spec in zip(ports, specs, strict=True))


def _names(ports: Sequence[Port]) -> str:
    return ", ".join(port.name for port in ports)


def _as(port: Port, spec: TensorSpec, fixed: frozenset[str]) -> TensorSpec:
    """A tensor in the type and shape of its placeholder, whose numbers have to be exact in it."""
    spec = _shaped(port, spec)
    chosen = {c.name for c in spec.columns} & fixed or any(c.is_bytes for c in spec.columns)
    if spec.dtype in (None, port.dtype) or (spec.is_text and port.dtype == "string"):
        return spec
    if chosen or not _number(port.dtype) or not _number(spec.dtype):
        raise ColumnError(
            f"{port.dtype} for {port.name!r}", f"'{spec.name}' as {spec.dtype}",
            "Let its decoder give that type, or change the type of the placeholder.",
        )  # fmt: skip
    columns = tuple(replace(column, dtype=port.dtype, exact=True) for column in spec.columns)
    return replace(spec, columns=columns, dtype=port.dtype)


def _number(dtype: str) -> bool:
    try:
        return np.dtype(dtype).kind in "biuf"
    except TypeError:
        return False


def _shaped(port: Port, spec: TensorSpec) -> TensorSpec:
    if port.shape is None or spec.shape is None:
        return spec
    wanted, shape = port.shape[1:], spec.shape
    if wanted in ((1,), (None,)) and shape == ():
        return replace(spec, shape=(1,))
    if wanted == () and shape == (1,) and len(spec.columns) == 1 and not spec.columns[0].shaped:
        return replace(spec, shape=())
    fits = len(wanted) == len(shape) and all(
        w is None or w == s for w, s in zip(wanted, shape, strict=True)
    )
    if not fits:
        raise ColumnError(
            f"rows of shape {wanted} for {port.name!r}",
            f"'{spec.name}' with rows of shape {shape}",
            "Give as many columns as the placeholder takes, or change its shape.",
        )
    return spec


def try_loss(built: Built, specs: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Run the loss on made-up rows, and see how it adds up.

    Args:
        built: Is told.
        specs: Type and shape of a row, for each tensor that is fed.

    Raises:
        ColumnError: The graph cannot take such rows.
    """
    recipe = built.recipe
    assert recipe.loss is not None
    name = recipe.loss.name
    fixed = built.program.fixed(["loss"], training=False)

    def loss(feeds: Mapping[str, np.ndarray], seed: int = 0, of: Program | None = None) -> Any:
        key = {} if recipe.seed is None else {recipe.seed: np.array([seed, 0])}
        (found,) = (of or built.program).run([name], {**feeds, **fixed, **key})
        return np.asarray(found, np.float64)

    once = _rows(specs, _ROWS)
    twice = {tensor: np.concatenate([rows, rows]) for tensor, rows in once.items()}
    with _kept(built):
        try:
            first = loss(once)
        except tf.errors.OpError as exc:
            raise _refused(specs, exc) from None
        if first.shape[:1] != ((_ROWS,) if built.adds_up == "rows" else ()):
            raise ColumnError(
                f"a loss that is one number, or one for each of {_ROWS} rows",
                f"{name!r} of shape {first.shape}",
                "Look at the shapes of outputs and labels: of (rows, 1) and (rows,) TensorFlow "
                "makes (rows, rows). Reduce with tf.reduce_mean.",
            )
        if built.adds_up is None:
            program = _silenced(built) if first != loss(once, 1) else built.program
            single, again, double = (
                float(loss(feeds, seed, program))
                for feeds, seed in ((once, 0), (once, 1), (twice, 0))
            )
            built.adds_up = _kind(single, double, 1e-3 if single == again else _NOISE)
        _require_means(built, once, twice)
    if built.adds_up == "mixed":
        _log.warning(
            "the loss of a batch is neither the mean of the losses of its rows nor their sum: it "
            "trains on one rank only"
        )


def _require_means(
    built: Built, once: Mapping[str, np.ndarray], twice: Mapping[str, np.ndarray]
) -> None:
    """Refuse a metric that is a sum over rows: its mean over batches would hang on their size.

    Raises:
        InputError: One is.
    """
    metrics = built.recipe.metrics
    fixed = built.program.fixed([f"metric {name!r}" for name in metrics], training=False)
    found = [built.program.run([*metrics.values()], {**rows, **fixed}) for rows in (once, twice)]
    for name, single, double in zip(metrics, *found, strict=True):
        if np.ndim(single) == 0 and single and np.isclose(double, 2 * float(single), rtol=1e-6):
            raise InputError(
                f"metric {name!r} as a mean over rows, or a number for each row",
                "a sum: of rows that come twice it is twice as much",
                "Use tf.reduce_mean, or leave the reduction out.",
            )


def _silenced(built: Built) -> Program:
    """The same without noise, which dropout makes."""
    definition = tf.compat.v1.GraphDef.FromString(built.recipe.graph)
    quiet(definition)
    program = Program(replace(built.recipe, graph=definition.SerializeToString()))
    program.load(built.program.values())
    return program


def _rows(specs: Mapping[str, tuple[str, tuple[int, ...]]], count: int) -> dict[str, np.ndarray]:
    """Made-up rows. Between 0 and 1 are probabilities, targets and pixels; 0 is a class."""
    draw = np.random.default_rng(0)
    return {
        name: np.full((count, *shape), b"", object)
        if dtype == "object"
        else draw.uniform(0.05, 0.95, (count, *shape)).astype(dtype)
        for name, (dtype, shape) in specs.items()
    }


@contextlib.contextmanager
def _kept(built: Built) -> Iterator[None]:
    """Variables that a forward pass writes are afterwards what they were."""
    step = built.recipe.step
    before = {} if step is None else built.program.values(step.state)
    try:
        yield
    finally:
        if before:
            built.program.load(before)


def _refused(specs: Mapping[str, tuple[str, tuple[int, ...]]], error: Exception) -> ColumnError:
    shown = ", ".join(
        f"{name} ({dtype}, rows of {shape})" for name, (dtype, shape) in specs.items()
    )
    return ColumnError(
        "rows that the graph can take",
        f"{shown}, of which TensorFlow says: {' '.join(str(error).split())[:300]}",
        "Change the columns, or the shapes of the placeholders.",
    )


def _kind(single: float, double: float, tolerance: float) -> str:
    """How a loss adds up, of some rows and of the same rows twice."""
    for kind, expected in (("mean", single), ("sum", 2 * single)):
        if math.isclose(double, expected, rel_tol=tolerance, abs_tol=1e-12):
            return kind
    return "mixed" if math.isfinite(single) and math.isfinite(double) else "mean"
