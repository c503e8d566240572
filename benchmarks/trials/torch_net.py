"""The model of the trials in torch: a small network, and one weight for each row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from trials.work import BATCH, SEED, Weights, Work
from zoo.orca.learn.pytorch import Estimator

__all__ = ["estimator", "weights"]


def estimator(work: Work, **options: Any) -> Any:
    """What trains it."""
    rows, steps = work.rows, work.steps
    if work.optimizer == "momentum":
        options["scheduler_creator"] = lambda optimizer, config: (
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        )
    return Estimator.from_torch(
        model=lambda config: _made(rows), optimizer=_OPTIMIZERS[work.optimizer],
        loss=BothLosses(), config={"seed": SEED}, **options,
    )  # fmt: skip


def weights(estimator: Any) -> Weights:
    """Of the model, by name."""
    state = estimator.get_model().state_dict()
    return {name.removesuffix(".weight"): value.numpy() for name, value in state.items()}


class Net(nn.Module):
    """A small network, and one weight for each row.

    The loss has the sum of the weights of its rows in it, so each falls by one whenever its row is
    used: afterwards they tell how often that was.
    """

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))
        self.uses = nn.Embedding(rows, 1)
        nn.init.zeros_(self.uses.weight)

    def forward(self, x: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        """Predictions beside the weights of the rows."""
        return torch.cat([self.layers(x), self.uses(row)], dim=1)


class BothLosses(nn.Module):
    """The squared errors, and the weights of the rows."""

    reduction = "sum"

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Their sum."""
        return ((output[:, 0] - target) ** 2).sum() / BATCH + output[:, 1].sum()


class Counting:
    """An optimizer that takes whole steps for the weights of the rows, whatever it does else."""

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Take a step."""
        uses = self.param_groups[1]["params"][0]  # type: ignore[attr-defined]
        gradient, uses.grad = uses.grad, None
        with torch.no_grad():
            uses -= gradient
        done = super().step(closure)  # type: ignore[misc]
        uses.grad = gradient
        return done


class CountingAdam(Counting, torch.optim.Adam):
    """Adam."""


class CountingSGD(Counting, torch.optim.SGD):
    """SGD."""


def _adam(model: Net, config: dict[str, Any]) -> torch.optim.Optimizer:
    return CountingAdam(_groups(model), lr=0.003)


def _momentum(model: Net, config: dict[str, Any]) -> torch.optim.Optimizer:
    return CountingSGD(_groups(model), lr=0.02, momentum=0.9)


_OPTIMIZERS = {"adam": _adam, "momentum": _momentum}


def _groups(model: Net) -> list[dict[str, Any]]:
    return [{"params": model.layers.parameters()}, {"params": model.uses.parameters()}]


def _made(rows: int) -> Net:
    torch.manual_seed(11)
    return Net(rows).double()
