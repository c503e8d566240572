"""The losses of torch that can be taken row by row, so that rows can have weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from zoo.errors import InputError

__all__ = [
    "BY_CLASS",
    "ELEMENTWISE",
    "RowLossError",
    "RowLosses",
    "answered",
    "of_rows",
    "require_row_losses",
    "row_losses",
]

# Compare each number of the output with one of the target.
ELEMENTWISE = (
    nn.BCELoss,
    nn.BCEWithLogitsLoss,
    nn.HingeEmbeddingLoss,
    nn.HuberLoss,
    nn.KLDivLoss,
    nn.L1Loss,
    nn.MSELoss,
    nn.MultiLabelSoftMarginLoss,
    nn.PoissonNLLLoss,
    nn.SmoothL1Loss,
    nn.SoftMarginLoss,
)
BY_CLASS = (nn.CrossEntropyLoss, nn.NLLLoss)
_BY_ROW = (
    *ELEMENTWISE,
    *BY_CLASS,
    nn.CosineEmbeddingLoss,
    nn.GaussianNLLLoss,
    nn.MarginRankingLoss,
    nn.MultiLabelMarginLoss,
    nn.MultiMarginLoss,
    nn.TripletMarginLoss,
    nn.TripletMarginWithDistanceLoss,
)


class RowLossError(InputError):
    """Rows have weights, and the loss is not one of rows."""


@dataclass(frozen=True)
class RowLosses:
    """The losses of rows.

    Attributes:
        loss: Of each row, shape (rows,).
        weight: What each counts in the mean by itself, shape (rows,): 1, or the weight of its
            class.
    """

    loss: torch.Tensor
    weight: torch.Tensor


def of_rows(losses: torch.Tensor) -> RowLosses:
    """Losses with rows in front, whose other dimensions are a mean."""
    each = losses.reshape(len(losses), -1).mean(1)
    return RowLosses(each, torch.ones_like(each))


def _is_torch(loss: Any) -> bool:
    return type(loss).__module__.startswith("torch.nn.")


def require_row_losses(losses: Sequence[Callable[..., Any] | None]) -> None:
    """Refuse losses of torch that cannot be taken row by row; of others only a call can tell.

    Raises:
        RowLossError: One cannot.
    """
    for loss in losses:
        if _is_torch(loss) and type(loss) not in _BY_ROW:
            raise RowLossError(
                "a loss of single rows, to weigh rows with",
                type(loss).__name__,
                "Use another loss of torch, or a function (output, target) that gives a tensor "
                "with the loss of each row.",
            )


def row_losses(
    loss: Callable[..., Any], outputs: tuple[Any, ...], targets: tuple[Any, ...], rows: int
) -> RowLosses | None:
    """The losses of rows that a loss of torch takes the mean of; None for any other loss.

    Raises:
        RowLossError: The loss cannot be taken row by row.
    """
    if not _is_torch(loss):
        return None
    require_row_losses([loss])
    each: Any = copy.copy(loss)  # only what is set on it is its own
    each.reduction = "none"
    losses = each(*outputs, *targets)
    if losses.shape[:1] != (rows,):
        raise _no_rows(losses, rows)
    reduction = getattr(loss, "reduction", "mean")
    if type(loss) in BY_CLASS:
        weight = _class_weights(loss, targets[0], losses)
        return RowLosses(losses.reshape(rows, -1).sum(1), weight.reshape(rows, -1).sum(1))
    if reduction == "mean":
        return of_rows(losses)
    total = losses.reshape(rows, -1).sum(1)
    return RowLosses(total, torch.ones_like(total))


def _class_weights(loss: Any, target: torch.Tensor, losses: torch.Tensor) -> torch.Tensor:
    """What each target counts in the mean of a cross entropy; probabilities count 1."""
    if target.is_floating_point():
        return torch.ones_like(losses)
    kept: torch.Tensor = target != loss.ignore_index
    if loss.weight is None:
        return kept.to(losses)
    weights: torch.Tensor = loss.weight[target.where(kept, 0)].where(kept, 0.0)
    return weights


def _no_rows(answer: Any, rows: int) -> RowLossError:
    tensor = isinstance(answer, torch.Tensor)
    return RowLossError(
        f"a loss for each of {rows} rows, as a tensor, to weigh rows with",
        f"shape {tuple(answer.shape)}" if tensor else type(answer).__name__,
        "Let the loss return the losses of the rows instead of their mean; without weights it is "
        "their mean.",
    )


def answered(answer: Any, rows: int) -> RowLosses:
    """What a function of the user's gave, when rows have weights.

    Raises:
        RowLossError: It is not one number for each row.
    """
    if not isinstance(answer, torch.Tensor) or answer.shape != (rows,):
        raise _no_rows(answer, rows)
    return of_rows(answer)
