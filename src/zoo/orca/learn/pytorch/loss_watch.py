"""Watches a loss that is a function of the user's: what it compares, and what its mean weighs.

Torch broadcasts rows against rows without a word, and a mean that was taken inside a function does
not say what it was divided by. While a `LossWatch` is entered it sees every operation of torch.
"""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from zoo.errors import InputError

__all__ = ["LossWatch", "MisalignedError", "align", "class_weight", "misaligned"]

_OUTPUT, _TARGET = 1, 2
_signature = functools.cache(inspect.signature)

# Their results have the shape of a broadcast for other reasons.
_LOOKUPS = {"__getitem__", "gather", "index_select", "take_along_dim", "__get__"}
_BY_CLASS = {functional.cross_entropy, functional.nll_loss}
_BY_ROW = {
    functional.binary_cross_entropy,
    functional.binary_cross_entropy_with_logits,
    functional.cosine_embedding_loss,
    functional.gaussian_nll_loss,
    functional.hinge_embedding_loss,
    functional.huber_loss,
    functional.kl_div,
    functional.l1_loss,
    functional.margin_ranking_loss,
    functional.mse_loss,
    functional.multi_margin_loss,
    functional.multilabel_margin_loss,
    functional.multilabel_soft_margin_loss,
    functional.poisson_nll_loss,
    functional.smooth_l1_loss,
    functional.soft_margin_loss,
    functional.triplet_margin_loss,
}
# These divide by the sum of such weights; the others only multiply.
_DIVIDE_BY_WEIGHT = {functional.mse_loss, functional.l1_loss, functional.huber_loss}
_MEANS = {torch.mean, torch.Tensor.mean}
_SUMS = {
    torch.add, torch.Tensor.add, torch.Tensor.__add__, torch.Tensor.__radd__,
    torch.sub, torch.Tensor.sub, torch.Tensor.__sub__, torch.Tensor.__rsub__,
}  # fmt: skip
_SCALES = {
    torch.mul, torch.Tensor.mul, torch.Tensor.__mul__, torch.Tensor.__rmul__,
    torch.div, torch.Tensor.div, torch.Tensor.__truediv__, torch.Tensor.__neg__, torch.neg,
}  # fmt: skip


class MisalignedError(InputError):
    """Rows of outputs were compared with other rows of targets."""


def misaligned(output: Any, target: Any) -> MisalignedError:
    """The error for an output and a target that would be broadcast."""
    return MisalignedError(
        "outputs and targets of one shape",
        f"{tuple(output.shape)} and {tuple(target.shape)}",
        "Squeeze the model's output, or give the targets a second dimension with a list inside "
        "the list: label_cols=[['y']].",
    )


def align(output: Any, target: Any) -> Any:
    """The target in the shape of the output, where they differ by dimensions of one at the end."""
    tensors = isinstance(output, torch.Tensor) and isinstance(target, torch.Tensor)
    if tensors and output.shape != target.shape and _core(output) == _core(target):
        return target.reshape(output.shape)
    return target


def class_weight(
    target: torch.Tensor, weight: torch.Tensor | None, ignore_index: int, rows: int
) -> float:
    """What the mean of a cross entropy is divided by.

    Args:
        target: Classes, or their probabilities.
        weight: Of each class.
        ignore_index: The class that does not count.
        rows: Of the batch.
    """
    if target.is_floating_point():
        return float(rows)
    kept = target[target != ignore_index]
    if weight is None:
        return float(kept.numel() * rows / max(1, target.numel()))
    return float(weight[kept].sum())


class LossWatch(TorchFunctionMode):
    """Sees what a function does with outputs and targets.

    Args:
        outputs: Of the model.
        targets: What they are compared with.
        rows: Rows of the batch.
    """

    def __init__(
        self, outputs: Iterable[torch.Tensor], targets: Iterable[torch.Tensor], rows: int
    ) -> None:
        super().__init__()
        self._rows = rows
        # By identity, each with the tensor, which must not make room for another of that identity.
        self._origins: dict[int, tuple[torch.Tensor, int]] = {}
        self._weights: dict[int, tuple[torch.Tensor, float]] = {}
        for values, origin in ((outputs, _OUTPUT), (targets, _TARGET)):
            for value in values:
                self._origins[id(value)] = (value, origin)

    def weight(self, loss: object) -> float | None:
        """What the mean was divided by that a function gave back; None when that is not known."""
        found = self._weights.get(id(loss))
        return None if found is None else found[1]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Let an operation happen, and look at what came of it."""
        named = kwargs or {}
        result = func(*args, **named)
        if not isinstance(result, torch.Tensor):
            return result
        used = list(_tensors([*args, *named.values()]))
        if getattr(func, "__name__", "") not in _LOOKUPS:
            for left, right in itertools.combinations(used, 2):
                self._require_aligned(left, right, result)
        origin = 0
        for value in used:
            origin |= self._origin(value)
        if origin:
            self._origins[id(result)] = (result, origin)
        if not result.ndim:
            weight = self._weight(func, args, named)
            if weight is not None:
                self._weights[id(result)] = (result, weight)
        return result

    def _origin(self, value: torch.Tensor) -> int:
        return self._origins.get(id(value), (value, 0))[1]

    def _require_aligned(
        self, left: torch.Tensor, right: torch.Tensor, result: torch.Tensor
    ) -> None:
        """Torch aligns last dimensions: with another number of them, rows meet something else."""
        if left.ndim == right.ndim or not left.ndim or not right.ndim:
            return
        if not left.shape[0] == right.shape[0] == self._rows > 1:
            return
        if self._origin(left) | self._origin(right) != _OUTPUT | _TARGET:
            return
        if result.shape == _broadcast(left.shape, right.shape):
            pair = (left, right) if self._origin(left) & _OUTPUT else (right, left)
            raise misaligned(*pair)

    def _weight(
        self, func: Callable[..., Any], args: Sequence[Any], named: Mapping[str, Any]
    ) -> float | None:
        if func in _SUMS or func in _SCALES:
            return self._of_parts(func, args)
        if func in _MEANS:
            whole = len(args) == 1 and "dim" not in named
            return float(self._rows) if whole and args[0].shape[:1] == (self._rows,) else None
        if func not in _BY_CLASS and func not in _BY_ROW:
            return None
        given = _signature(func).bind(*args, **named)
        given.apply_defaults()
        value = given.arguments
        usual = value.get("size_average") is None and value.get("reduce") is None
        if not usual or value["reduction"] not in ("mean", "batchmean"):
            return None
        first = next(iter(value.values()))
        if first.shape[:1] != (self._rows,):
            return None
        if func in _BY_CLASS:
            weight, ignored = value["weight"], value["ignore_index"]
            return class_weight(value["target"], weight, ignored, self._rows)
        if func in _DIVIDE_BY_WEIGHT and value.get("weight") is not None:
            return None
        return float(self._rows)

    def _of_parts(self, func: Callable[..., Any], args: Sequence[Any]) -> float | None:
        """Of a sum of means, and of a mean times a number."""
        parts = [arg for arg in args if isinstance(arg, torch.Tensor)]
        if func in _SCALES and len(parts) != 1:
            return None
        weights = {self.weight(part) for part in parts}
        return weights.pop() if len(weights) == 1 else None


def _core(value: torch.Tensor) -> list[int]:
    """The shape without dimensions of one at its end, the rows excepted."""
    shape = list(value.shape)
    while len(shape) > 1 and shape[-1] == 1:
        shape.pop()
    return shape


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)


def _broadcast(left: torch.Size, right: torch.Size) -> tuple[int, ...] | None:
    try:
        return tuple(torch.broadcast_shapes(left, right))
    except RuntimeError:
        return None
