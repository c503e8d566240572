"""What ranks add up in every step: gradients, and what layers keep, as flat arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from zoo.orca.learn.steps import GradientLimits

__all__ = ["FlatGradients", "MovingStatistics", "clipped"]


class FlatGradients:
    """Gradients of all weights as one array for each floating-point type.

    Args:
        variables: What is trained.

    Attributes:
        arrays: Which weights have a gradient, then the gradients; sums of them over ranks.
    """

    def __init__(self, variables: Sequence[keras.Variable]) -> None:
        # Half precision adds up in single precision: sums over many ranks keep their digits.
        wide = [v.dtype == "float64" for v in variables]
        sizes = [int(np.prod(v.shape)) for v in variables]
        flats = [
            np.zeros(sum(s for s, w in zip(sizes, wide, strict=True) if w == chosen), dtype)
            for chosen, dtype in ((False, np.float32), (True, np.float64))
        ]
        self._views, at = list[np.ndarray](), [0, 0]
        for variable, size, w in zip(variables, sizes, wide, strict=True):
            self._views.append(flats[w][at[w] : at[w] + size].reshape(variable.shape))
            at[w] += size
        self._flats = [flat for flat in flats if flat.size]
        self._present = np.zeros(len(variables))
        self.arrays = [self._present, *self._flats]

    def gather(self, gradients: Sequence[np.ndarray | None], factor: float) -> None:
        """Copy gradients in, times what they weigh. A weight that took no part has none."""
        for k, (gradient, view) in enumerate(zip(gradients, self._views, strict=True)):
            self._present[k] = gradient is not None
            if gradient is None or not factor:
                view[...] = 0.0
            else:
                np.multiply(gradient.astype(view.dtype, copy=False), factor, out=view)

    def mean(self, divisor: float) -> list[np.ndarray | None]:
        """The mean gradients, of the sums over all ranks."""
        if divisor != 1.0:
            for flat in self._flats:
                np.multiply(flat, 1.0 / divisor, out=flat)
        return [
            view if here else None for view, here in zip(self._views, self._present, strict=True)
        ]


class MovingStatistics:
    """What layers keep besides trained weights, as moving means, averaged over ranks every step.

    Every rank then holds the same at any moment: what a survivor has, or a snapshot, does not
    depend on which rank it came from. What is averaged is how far a step has moved them, so that
    what does not move keeps all its digits.

    Args:
        model: Its layers are looked up once.
    """

    def __init__(self, model: keras.Model) -> None:
        # A layer that is frozen has its weights among those that are not trained.
        frozen = {id(v) for layer in model._flatten_layers() for v in layer._trainable_variables}
        self._others = [v for v in model.non_trainable_weights if id(v) not in frozen]
        self._variables = [v for v in self._others if keras.backend.is_float_dtype(v.dtype)]
        flat = np.zeros(sum(int(np.prod(v.shape)) for v in self._variables))
        sizes = np.cumsum([int(np.prod(v.shape)) for v in self._variables])[:-1]
        parts = np.split(flat, sizes) if self._variables else []
        self._views = [p.reshape(v.shape) for p, v in zip(parts, self._variables, strict=True)]
        self.arrays = [flat] if flat.size else []
        self._keep()

    def _keep(self) -> None:
        self._before = {id(v): np.array(v.numpy()) for v in self._others}

    def gather(self, rows: int) -> None:
        """Put in how far this rank's batch has moved them, weighted by its rows."""
        for view, variable in zip(self._views, self._variables, strict=True):
            before = self._before[id(variable)].astype(np.float64)
            view[...] = (variable.numpy().astype(np.float64) - before) * rows

    def scatter(self, rows: int) -> None:
        """Take the mean over all rows of the step."""
        for view, variable in zip(self._views, self._variables, strict=True):
            before = self._before[id(variable)]
            moved = before.astype(np.float64) + view / float(rows)
            variable.assign(moved.astype(before.dtype))
        self._keep()

    def restore(self) -> None:
        """Back to the end of the last step: a forward pass that was cut off has moved them on."""
        for variable in self._others:
            variable.assign(self._before[id(variable)])


def clipped(gradients: Sequence[Any], limits: GradientLimits, scale: Any) -> list[Any]:
    """Gradients within limits.

    Args:
        gradients: Dense tensors; None where there is none.
        limits: For gradients of the loss.
        scale: What the loss was multiplied with before they were computed.
    """
    found = list(gradients)
    if limits.norm is not None:
        squares = [ops.sum(ops.square(ops.cast(g, "float32"))) for g in found if g is not None]
        if any(g is not None and str(g.dtype).endswith("float64") for g in found):
            squares = [ops.sum(ops.square(ops.cast(g, "float64"))) for g in found if g is not None]
        longest = ops.sqrt(sum(squares)) + 1e-6
        share = ops.minimum(1.0, ops.cast(limits.norm * scale, longest.dtype) / longest)
        found = [None if g is None else g * ops.cast(share, g.dtype) for g in found]
    if limits.low is not None or limits.high is not None:
        low = -np.inf if limits.low is None else limits.low * scale
        high = np.inf if limits.high is None else limits.high * scale
        found = [
            None
            if g is None
            else ops.minimum(ops.maximum(g, ops.cast(low, g.dtype)), ops.cast(high, g.dtype))
            for g in found
        ]
    return found
