"""The loss of a batch as one number, and what the batch weighs in the mean over all ranks.

Losses of torch are known. A function of the user's is watched while it works; it may also say what
it weighs and return `(sum, weight)`, or give the loss of each row. Where rows have weights, the
loss is sum(weight * loss) / sum(weight) over the rows.
"""

from __future__ import annotations

import functools
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn

from zoo.errors import InputError
from zoo.orca.learn.pytorch.batches import Batch
from zoo.orca.learn.pytorch.loss_watch import (
    LossWatch,
    MisalignedError,
    align,
    class_weight,
    misaligned,
)
from zoo.orca.learn.pytorch.row_losses import (
    BY_CLASS,
    ELEMENTWISE,
    RowLosses,
    answered,
    of_rows,
    row_losses,
)

__all__ = [
    "HasLoss",
    "LossPerOutput",
    "Weighed",
    "compute_loss",
    "loss_weight",
    "require_rows_aligned",
    "say_unknown_weight",
    "side_by_side",
    "weigh_loss",
]

_log = logging.getLogger(__name__)

_COMPILED = ("_torchdynamo_orig_callable", "_orig_mod")


@dataclass(frozen=True)
class Weighed:
    """The loss of a batch.

    Attributes:
        loss: Its mean, one number; the sum where the loss adds up its rows.
        weight: What the batch weighs in the mean over several; 0 where losses add up.
        known: False where that is a guess: the number of rows.
    """

    loss: torch.Tensor
    weight: float
    known: bool = True


class HasLoss(Protocol):
    """What was built from a recipe, as far as losses go."""

    @property
    def loss(self) -> Callable[..., Any] | None:
        """Compares outputs with targets; None when the model's output is the loss."""


class LossPerOutput(nn.Module):
    """One loss for each output and its target, added up.

    Args:
        losses: In the order of the outputs.
    """

    def __init__(self, losses: Sequence[Callable[..., Any]]) -> None:
        super().__init__()
        self.losses = list(losses)
        kinds = {getattr(loss, "reduction", "mean") for loss in losses}
        if len(kinds) > 1:
            raise InputError(
                "losses of one reduction", " and ".join(sorted(kinds)), "Use 'mean' for all."
            )
        self.reduction = kinds.pop()

    def forward(self, output: Any, targets: Sequence[torch.Tensor]) -> torch.Tensor:
        """Add up the losses."""
        return self.weigh(output, targets, _rows(output, targets, 1)).loss

    def weigh(
        self,
        output: Any,
        targets: Sequence[torch.Tensor],
        rows: int,
        weights: torch.Tensor | None = None,
    ) -> Weighed:
        """Add up the losses of so many rows, and say what the sum weighs."""
        outputs = output if isinstance(output, tuple | list) else (output,)
        if not len(outputs) == len(targets) == len(self.losses):
            raise InputError(
                f"{len(self.losses)} outputs and targets, one for each loss",
                f"{len(outputs)} outputs and {len(targets)} targets",
                "Give as many losses as the model has outputs, and as many label columns.",
            )
        parts = [
            _compare(loss, out, target, rows, weights)
            for loss, out, target in zip(self.losses, outputs, targets, strict=True)
        ]
        shares = {part.weight for part in parts}
        known = all(part.known for part in parts) and len(shares) == 1
        otherwise = float(rows if weights is None else weights.sum())
        weight = shares.pop() if known else otherwise
        return Weighed(torch.stack([part.loss for part in parts]).sum(), weight, known)


def compute_loss(built: HasLoss, output: object, targets: Sequence[torch.Tensor]) -> torch.Tensor:
    """The loss of a batch, one number.

    A tuple of outputs goes into the loss with its targets, `loss(*output, *targets)`; one output
    with several columns of targets compares with them side by side. A list of losses has one for
    each output, and they are added up.
    """
    return weigh_loss(built, output, targets).loss


def weigh_loss(
    built: HasLoss,
    output: Any,
    targets: Sequence[torch.Tensor],
    rows: int = 1,
    weights: torch.Tensor | None = None,
) -> Weighed:
    """The loss of a batch, see `compute_loss`, and what it weighs in the mean over several batches.

    A mean weighs its rows. Cross entropy with class weights or ignored targets divides by the
    weight of the targets instead, so that is what its batches weigh, also inside a function. A
    function that returns `(sum, weight)` says it itself.

    Args:
        built: Has the loss.
        output: Of the model.
        targets: Of the batch.
        rows: Of the batch, where no tensor tells.
        weights: What each row weighs, shape (rows,); None for 1.

    Raises:
        RowLossError: Rows have weights, and the loss is not one of rows.
        InputError: Rows would be compared with other rows, or the loss is not one number.
    """
    rows = _rows(output, targets, rows)
    if built.loss is None:
        found = _is_loss(output, rows, weights)
    elif isinstance(built.loss, LossPerOutput):
        found = built.loss.weigh(output, targets, rows, weights)
    elif isinstance(output, tuple | list):
        found = _called(built.loss, tuple(output), tuple(targets), rows, weights)
    else:
        target = targets[0] if len(targets) == 1 else side_by_side(targets)
        found = _compare(built.loss, output, target, rows, weights)
    loss = found.loss
    if not isinstance(loss, torch.Tensor) or loss.ndim:
        raise InputError(
            "a loss that is one number for a batch, its sum and its weight, or one number for each "
            "row, as a tensor",
            f"shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__,
            "Take its mean.",
        )
    adds_up = getattr(built.loss, "reduction", "mean") == "sum"
    return Weighed(loss, 0.0) if adds_up else found


def _is_loss(output: Any, rows: int, weights: torch.Tensor | None) -> Weighed:
    """Of a model whose output is the loss."""
    if not isinstance(output, torch.Tensor):
        return Weighed(output, float(rows), known=False)
    if weights is None:
        return Weighed(output.mean(), float(rows), output.ndim > 0)
    each = output.reshape(len(output), -1).mean(1) if output.ndim else output
    return _weighted(answered(each, rows), weights)


def _weighted(each: RowLosses, weights: torch.Tensor, *, adds_up: bool = False) -> Weighed:
    """The mean of rows that have weights, or their sum."""
    total = (weights.to(each.loss) * each.loss).sum()
    weight = float((weights.double() * each.weight.double()).sum())
    if adds_up:
        return Weighed(total, weight)
    return Weighed(total / weight if weight else total * 0.0, weight)


def require_rows_aligned(call: Callable[..., Any], output: Any, target: Any) -> Any:
    """Call a function of the user's with an output and a target.

    Raises:
        InputError: It compares rows of the one with other rows of the other.
    """
    tensors = isinstance(output, torch.Tensor) and isinstance(target, torch.Tensor)
    if not tensors or output.shape == target.shape:
        return call(output, target)
    with LossWatch((output,), (target,), len(output) if output.ndim else 1):
        return call(output, target)


@functools.cache
def say_unknown_weight() -> None:
    """Say, once in a process, that weights of a loss are guessed where that makes a difference."""
    _log.warning(
        "Parts of a batch, of other ranks or of gradient_accumulation, count by their rows in the "
        "mean of this loss. Where it divides by other weights, let it return (sum, weight): the "
        "sum of the rows' losses, and what to divide it by."
    )


def _compare(
    loss: Callable[..., Any], output: Any, target: Any, rows: int, weights: torch.Tensor | None
) -> Weighed:
    if type(loss) not in ELEMENTWISE:
        return _called(loss, (output,), (target,), rows, weights)
    target = align(output, target)
    if target.shape != output.shape:
        raise misaligned(output, target)
    if weights is not None:
        return _called(loss, (output,), (target,), rows, weights)
    return Weighed(loss(output, target), float(rows))


def _called(
    loss: Callable[..., Any],
    outputs: tuple[Any, ...],
    targets: tuple[Any, ...],
    rows: int,
    weights: torch.Tensor | None,
) -> Weighed:
    """Call a loss that may do with outputs and targets what it likes."""
    each = None if weights is None else row_losses(loss, outputs, targets, rows)
    if weights is not None and each is not None:
        adds_up = getattr(loss, "reduction", "mean") == "sum"
        return _weighted(each, weights, adds_up=adds_up)
    if type(loss) in BY_CLASS and len(targets) == 1:
        return Weighed(loss(*outputs, *targets), _class_weight(loss, targets[0], rows))
    if type(loss).__module__.startswith("torch.nn."):
        return Weighed(loss(*outputs, *targets), float(rows))
    try:
        return _watched(loss, outputs, targets, rows, weights)
    except MisalignedError:
        if len(outputs) != 1 or len(targets) != 1:
            raise
        # Of (n, 1) and (n,) one reading makes sense. Functions that bring the two together
        # themselves have been called with what they expect.
        target = align(outputs[0], targets[0])
        if target is targets[0]:
            raise
        return _watched(loss, outputs, (target,), rows, weights)


def _watched(
    loss: Callable[..., Any],
    outputs: tuple[Any, ...],
    targets: tuple[Any, ...],
    rows: int,
    weights: torch.Tensor | None,
) -> Weighed:
    compared, wanted = list(_tensors(outputs)), list(_tensors(targets))
    if any(hasattr(loss, name) for name in _COMPILED):  # nothing inside can be watched
        return _answer(loss(*outputs, *targets), None, rows, weights)
    with warnings.catch_warnings(), LossWatch(compared, wanted, rows) as watch:
        warnings.filterwarnings("error", "Using a target size", UserWarning)
        try:
            answer = loss(*outputs, *targets)
        except UserWarning as exc:
            if not compared or not wanted or "Using a target size" not in str(exc):
                raise
            raise misaligned(compared[0], wanted[0]) from exc
    return _answer(answer, watch.weight(answer), rows, weights)


def _answer(answer: Any, weight: float | None, rows: int, weights: torch.Tensor | None) -> Weighed:
    if weights is not None:
        return _weighted(answered(answer, rows), weights)
    if isinstance(answer, torch.Tensor) and answer.shape == (rows,):
        return Weighed(of_rows(answer).loss.mean(), float(rows))
    if isinstance(answer, tuple) and len(answer) == 2:
        return _own_answer(*answer)
    return Weighed(answer, float(rows) if weight is None else weight, weight is not None)


def _own_answer(total: Any, weight: Any) -> Weighed:
    own = float(weight)
    if not math.isfinite(own) or own < 0 or not isinstance(total, torch.Tensor):
        raise InputError(
            "a sum as a tensor and a weight of 0 or more from a loss that returns both",
            f"{type(total).__name__} and {own}",
            "Return the sum of the rows' losses and the sum of their weights.",
        )
    return Weighed(total / own if own else total * 0.0, own)


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, tuple | list | Mapping):
        for value in values.values() if isinstance(values, Mapping) else values:
            yield from _tensors(value)


def _rows(output: Any, targets: Sequence[Any], otherwise: int) -> int:
    return next((len(t) for t in _tensors([*targets, output]) if t.ndim), otherwise)


def side_by_side(targets: Sequence[torch.Tensor]) -> torch.Tensor:
    """Several targets as the columns of one."""
    return torch.stack(list(targets), dim=1)


def loss_weight(loss: object, batch: Batch) -> float:
    """What a batch weighs in the mean over all ranks, as far as that is known without its loss.

    A sum needs no division: weight 0 says so. See `weigh_loss`.
    """
    if getattr(loss, "reduction", "mean") == "sum":
        return 0.0
    if type(loss) not in BY_CLASS or len(batch.targets) != 1:
        return float(batch.rows)
    return _class_weight(loss, batch.targets[0], batch.rows)


def _class_weight(loss: Any, target: torch.Tensor, rows: int) -> float:
    return class_weight(target, loss.weight, loss.ignore_index, rows)
