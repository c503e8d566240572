"""The loss of a batch as one number, and what the batch weighs in the mean over all ranks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from zoo.errors import InputError
from zoo.orca.learn.pytorch.batches import Batch

__all__ = ["HasLoss", "LossPerOutput", "compute_loss", "loss_weight", "side_by_side"]


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
        outputs = output if isinstance(output, tuple | list) else (output,)
        if not len(outputs) == len(targets) == len(self.losses):
            raise InputError(
                f"{len(self.losses)} outputs and targets, one for each loss",
                f"{len(outputs)} outputs and {len(targets)} targets",
                "Give as many losses as the model has outputs, and as many label columns.",
            )
        parts = [
            _without_broadcast(loss, out, target)
            for loss, out, target in zip(self.losses, outputs, targets, strict=True)
        ]
        return torch.stack(parts).sum()


def compute_loss(built: HasLoss, output: object, targets: Sequence[torch.Tensor]) -> torch.Tensor:
    """The loss of a batch, one number.

    A tuple of outputs goes into the loss with its targets, `loss(*output, *targets)`; one output
    with several columns of targets compares with them side by side. A list of losses has one for
    each output, and they are added up.
    """
    if built.loss is None:
        loss = output.mean() if isinstance(output, torch.Tensor) else output
    elif isinstance(built.loss, LossPerOutput):
        loss = built.loss(output, targets)
    elif isinstance(output, tuple | list):
        loss = built.loss(*output, *targets)
    else:
        target = targets[0] if len(targets) == 1 else side_by_side(targets)
        loss = _without_broadcast(built.loss, output, target)
    if isinstance(loss, torch.Tensor) and not loss.ndim:
        return loss
    raise InputError(
        "a loss that is one number for a batch, as a tensor",
        f"shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__,
        "Take its mean.",
    )


def _without_broadcast(loss: Callable[..., Any], output: Any, target: Any) -> Any:
    """Call a loss. Where torch only warns that it compares each output with all targets, raise."""
    # Losses that broadcast compare floats; classes have another shape by their nature.
    tensors = isinstance(output, torch.Tensor) and isinstance(target, torch.Tensor)
    if not tensors or output.shape == target.shape or not target.is_floating_point():
        return loss(output, target)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Using a target size", UserWarning)
        try:
            return loss(output, target)
        except UserWarning as exc:
            raise _other_shape(output, target) from exc


def _other_shape(output: Any, target: Any) -> InputError:
    return InputError(
        "outputs and targets of one shape",
        f"{tuple(output.shape)} and {tuple(target.shape)}",
        "Squeeze the model's output, or give the targets a second dimension with a list inside "
        "the list: label_cols=[['y']].",
    )


def side_by_side(targets: Sequence[torch.Tensor]) -> torch.Tensor:
    """Several targets as the columns of one."""
    return torch.stack(list(targets), dim=1)


def loss_weight(loss: object, batch: Batch) -> float:
    """What a batch weighs in the mean over all ranks.

    A mean loss weighs its rows. Cross entropy with class weights or ignored targets divides by
    the weight of the targets instead, so that is what its batches weigh. A sum needs no division:
    weight 0 says so.
    """
    if getattr(loss, "reduction", "mean") == "sum":
        return 0.0
    target = batch.targets[0] if len(batch.targets) == 1 else None
    if not isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss) or target is None:
        return float(batch.rows)
    if target.is_floating_point():
        return float(batch.rows)
    kept = target[target != loss.ignore_index]
    if loss.weight is None:
        return float(kept.numel() * batch.rows / max(1, target.numel()))
    return float(loss.weight[kept].sum())
