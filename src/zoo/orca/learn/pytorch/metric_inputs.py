"""What metrics are given, brought into one form: devices, dimensions, classes, the cut at 0.5."""

from __future__ import annotations

import logging
import math

import torch

from zoo.errors import InputError

__all__ = [
    "ROUNDING",
    "Cut",
    "ShapeError",
    "aligned",
    "plain",
    "require_same_shape",
    "scores_and_labels",
    "state_vector",
]

_log = logging.getLogger(__name__)

ROUNDING = 1e-5
"""A softmax in float32 may end a rounding step above 1."""


class ShapeError(InputError, RuntimeError):
    """Predictions and targets do not fit together."""


def plain(preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Leave the graph, and meet on the device of the predictions."""
    for value in (preds, targets):
        if not isinstance(value, torch.Tensor):
            raise InputError(
                "one tensor of predictions and one of targets",
                type(value).__name__,
                "Metrics measure one output; choose it with a metric of your own.",
            )
    return preds.detach(), targets.detach().to(preds.device)


def scores_and_labels(
    preds: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return class scores, the classes last, and whole-numbered labels with one dimension less."""
    if preds.ndim == targets.ndim and targets.shape[-1:] == (1,):
        targets = targets.squeeze(-1)
    if preds.ndim == targets.ndim + 1:
        if preds.shape[:-1] == targets.shape:
            return preds, targets.long()
        if preds.shape[:1] + preds.shape[2:] == targets.shape:
            return preds.movedim(1, -1), targets.long()
    raise _mismatch("one dimension of class scores more than the targets have", preds, targets)


def aligned(preds: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Bring (N, 1) and (N,) together, which broadcasting would blow up to (N, N)."""
    if preds.shape == (*targets.shape, 1):
        return preds.squeeze(-1), targets
    if targets.shape == (*preds.shape, 1):
        return preds, targets.squeeze(-1)
    require_same_shape(preds, targets)
    return preds, targets


def require_same_shape(preds: torch.Tensor, targets: torch.Tensor) -> None:
    """Refuse what would be broadcast."""
    if preds.shape != targets.shape:
        raise _mismatch("the shape of the targets", preds, targets)


def _mismatch(expected: str, preds: torch.Tensor, targets: torch.Tensor) -> ShapeError:
    return ShapeError(
        f"predictions with {expected}",
        f"predictions {tuple(preds.shape)} and targets {tuple(targets.shape)}",
        "Reshape the labels, or choose the metric that fits them.",
    )


def state_vector(vector: torch.Tensor, length: int) -> torch.Tensor:
    """A copy of a state, in double precision, of the length that it has to have."""
    if vector.shape != (length,):
        raise ShapeError(
            f"a state of {length} numbers",
            f"shape {tuple(vector.shape)}",
            "Add up and load states of equally configured metrics only.",
        )
    return vector.detach().to(torch.float64, copy=True)


class Cut:
    """Where the score of a yes-or-no question becomes a yes.

    It counts the scores that are no probabilities: a model that ends in logits has many.

    Args:
        threshold: A probability.
        from_logits: Whether scores are logits, which can be any number.

    Attributes:
        outside: How many scores were no probabilities; a number of torch's, which the device has.

    Raises:
        InputError: The threshold is no probability.
    """

    def __init__(self, threshold: float = 0.5, from_logits: bool = False) -> None:
        if not 0 < threshold < 1:
            raise InputError(
                "a threshold between 0 and 1",
                repr(threshold),
                "It is a probability, also where the scores are logits.",
            )
        self._threshold, self._from_logits = threshold, from_logits
        self.outside = torch.zeros((), dtype=torch.float64)

    def at(self, scores: torch.Tensor, threshold: float | None = None) -> float:
        """The score from which on it is a yes.

        Args:
            scores: Of a batch.
            threshold: Another one for this batch.
        """
        chosen = self._threshold if threshold is None else threshold
        if self._from_logits:
            return math.log(chosen / (1 - chosen))
        if scores.is_floating_point():
            strays = ~((scores >= -ROUNDING) & (scores <= 1 + ROUNDING))
            self.outside = self.outside + strays.sum()
        return chosen

    def reset(self) -> None:
        """Forget the scores."""
        self.outside = torch.zeros((), dtype=torch.float64)

    def say(self, metric: str) -> None:
        """Warn when there were scores that are no probabilities."""
        if float(self.outside):
            _log.warning(
                "%s was taken of %d scores outside 0 to 1 as if they were probabilities, with a "
                "cut at %g. For a model that ends in logits: %s(from_logits=True).",
                metric, int(self.outside), self._threshold, metric,
            )  # fmt: skip
