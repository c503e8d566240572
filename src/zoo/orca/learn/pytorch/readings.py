"""What a model's output says, by the loss that it was trained with: probabilities, classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from zoo.errors import InputError

__all__ = ["read_as"]

Reading = Callable[[torch.Tensor], torch.Tensor]

_PROBABILITIES: dict[type[nn.Module], Reading] = {
    nn.BCELoss: lambda output: output,
    nn.BCEWithLogitsLoss: torch.sigmoid,
    nn.CrossEntropyLoss: lambda output: torch.softmax(output, 1),
    nn.NLLLoss: torch.exp,
}
_QUESTIONS = (nn.BCELoss, nn.BCEWithLogitsLoss)


class _Read(nn.Module):
    """A model whose output is read in another way."""

    def __init__(self, model: nn.Module, reading: Reading) -> None:
        super().__init__()
        self.model, self.reading = model, reading

    def forward(self, *features: Any) -> Any:
        output = self.model(*features)
        if not isinstance(output, torch.Tensor):
            raise InputError(
                "a model with one output, to read it as classes or probabilities",
                type(output).__name__,
                "Take the outputs as they are: output='raw'.",
            )
        return self.reading(output)


def read_as(model: nn.Module, loss: Any, output: str) -> nn.Module:
    """The model, with its output read as asked.

    Args:
        model: As it was trained.
        loss: That it was trained with; it knows what outputs mean.
        output: `raw`, `probability` or `class`.

    Raises:
        InputError: `output` is another word, or the loss does not tell.
    """
    if output == "raw":
        return model
    if output not in ("probability", "class"):
        raise InputError("output as 'raw', 'probability' or 'class'", repr(output), "Choose one.")
    probabilities = _PROBABILITIES.get(type(loss))
    if output == "probability":
        if probabilities is None:
            raise _unknown(loss)
        return _Read(model, probabilities)
    if type(loss) not in _QUESTIONS:
        return _Read(model, _highest)
    return _Read(model, lambda scores: (probabilities(scores) > 0.5).long())  # type: ignore[misc]


def _highest(output: torch.Tensor) -> torch.Tensor:
    if output.ndim < 2 or output.shape[1] == 1:
        raise _unknown(None)
    return output.argmax(1)


def _unknown(loss: Any) -> InputError:
    known = ", ".join(kind.__name__ for kind in _PROBABILITIES)
    return InputError(
        f"an estimator whose loss tells what one output means: {known}",
        type(loss).__name__ if loss is not None else "one output for each row, and no such loss",
        "Give the estimator that loss, or take the outputs as they are: output='raw'.",
    )
