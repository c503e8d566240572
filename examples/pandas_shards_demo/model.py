"""The model: eight numbers of a half hour become the load to expect."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["adam", "network"]


def network(config: dict[str, Any]) -> nn.Module:
    """A small network with one output for each row."""
    torch.manual_seed(config.get("seed", 0))
    return nn.Sequential(
        nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1), nn.Flatten(0)
    )


def adam(model: nn.Module, config: dict[str, Any]) -> torch.optim.Optimizer:
    """The optimizer."""
    return torch.optim.Adam(model.parameters(), lr=config.get("lr", 0.003))
