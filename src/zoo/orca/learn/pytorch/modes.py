"""Training mode and evaluation mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["evaluating", "start_training"]


def start_training(model: torch.nn.Module) -> None:
    """Training mode, except for parts that are frozen: in evaluation mode, and not trained.

    Their batch norms keep their statistics, and their dropout stays off. A part whose parameters
    are trained is in evaluation mode by accident, as models are that were loaded from elsewhere.
    """
    still = [part for part in model.modules() if not part.training and _frozen(part)]
    model.train()
    for part in still:
        part.eval()


def _frozen(part: torch.nn.Module) -> bool:
    own = list(part.parameters())
    return bool(own) and not any(p.requires_grad for p in own)


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Without dropout and gradients for a while; then every part is in the mode that it had."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in before:
            module.training = training
