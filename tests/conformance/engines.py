"""What conformance is about: engines that start ranks, and frameworks that train in them.

Another launcher, another framework or another way to agree is one entry in a table.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from warm_launcher import WarmLauncher
from zoo.cluster.host import host_key
from zoo.cluster.ranks.launcher import Launcher, launcher_for
from zoo.orca.learn.linear.framework import Linear, LinearModel, LinearRecipe
from zoo.orca.learn.pytorch.recipe import Recipe, build
from zoo.orca.learn.pytorch.state import save_state
from zoo.orca.learn.steps import Position

__all__ = ["ENGINES", "FRAMEWORKS", "Engine", "Framework", "Torch", "Weights"]

Weights = Mapping[str, np.ndarray]
Rows = np.ndarray
"""Of some rows: three features, the target, the number of the row."""


class Framework(Protocol):
    """How a framework of `zoo.orca.learn` trains a model of its own in double precision."""

    name: str
    features: list[str | list[str]]
    tolerance: float

    def recipe(self, seed: int) -> Any:
        """What the order to the ranks carries; the seed is that of the first weights."""

    def state(self, recipe: Any) -> bytes:
        """Where training begins."""

    def weights(self, state: bytes) -> Weights:
        """The weights in a state; `uses` says how often each row was used, if they tell."""

    def plain(self, seed: int, batches: Iterable[Rows]) -> Weights:
        """The weights after these batches, in code without Zoo."""


class Net(nn.Module):
    """Small and not linear, beside one weight for each row."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        self.uses = nn.Embedding(512, 1)
        nn.init.zeros_(self.uses.weight)

    def forward(self, x: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.layers(x), self.uses(row)], dim=1)


def both_losses(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The mean of squared errors, and of the weights of the rows: these have a gradient above 0."""
    return ((output[:, 0] - target) ** 2 + output[:, 1]).mean()


def adam(model: nn.Module, config: dict[str, Any]) -> torch.optim.Optimizer:
    """Without memory for the weights of rows: each falls by one whenever its row is used."""
    counting = {"lr": 1.0, "betas": (0.0, 0.0), "eps": 1e-300}
    groups = [
        {"params": model.layers.parameters()},
        {"params": model.uses.parameters(), **counting},
    ]
    return torch.optim.Adam(groups, lr=0.01)


class Torch:
    """PyTorch."""

    name = "pytorch"
    features: list[str | list[str]] = [["x0", "x1", "x2"], "row"]  # noqa: RUF012
    tolerance = 1e-9

    def recipe(self, seed: int) -> Recipe:
        return Recipe(model=lambda config: Net(seed).double(), optimizer=adam, loss=both_losses)

    def state(self, recipe: Recipe) -> bytes:
        return save_state(build(recipe), Position())

    def weights(self, state: bytes) -> Weights:
        return self.named(torch.load(io.BytesIO(state), weights_only=True)["model"])

    def plain(self, seed: int, batches: Iterable[Rows]) -> Weights:
        model = Net(seed).double()
        optimizer = adam(model, {})
        for rows in batches:
            optimizer.zero_grad()
            x, y, row = (torch.from_numpy(rows[:, k].copy()) for k in (slice(3), 3, 4))
            both_losses(model(x, row.long()), y).backward()
            optimizer.step()
        return self.named(model.state_dict())

    def named(self, weights: Mapping[str, torch.Tensor]) -> Weights:
        """As arrays."""
        found = {name: value.numpy() for name, value in weights.items()}
        return found | {"uses": -found.pop("uses.weight").ravel()}


class OwnLinear:
    """The linear model in numpy."""

    name = "linear"
    features: list[str | list[str]] = [["x0", "x1", "x2"]]  # noqa: RUF012
    tolerance = 1e-12

    def recipe(self, seed: int) -> LinearRecipe:
        return LinearRecipe(inputs=3, rate=0.05)

    def state(self, recipe: LinearRecipe) -> bytes:
        file = io.BytesIO()
        Linear().write(file, LinearModel(recipe), Position(), {})
        return file.getvalue()

    def weights(self, state: bytes) -> Weights:
        return {"weights": Linear().read(state).tree["weights"]}

    def plain(self, seed: int, batches: Iterable[Rows]) -> Weights:
        weights, speed = np.zeros((2, 4))
        for rows in batches:
            x, y = np.column_stack([rows[:, :3], np.ones(len(rows))]), rows[:, 3]
            speed = 0.9 * speed + 2 * x.T @ (x @ weights - y) / len(y)
            weights = weights - 0.05 * speed
        return {"weights": weights}


FRAMEWORKS: dict[str, Framework] = {"pytorch": Torch(), "linear": OwnLinear()}


@dataclass(frozen=True)
class Engine:
    """What starts ranks.

    Attributes:
        launcher: Makes a launcher.
        hosts: Where its ranks are and the shards lie, in turn.
    """

    launcher: Callable[[], Launcher]
    hosts: tuple[str, ...] = (host_key(),)


ENGINES = {
    "processes": Engine(WarmLauncher),
    "two hosts": Engine(lambda: WarmLauncher("one", "other"), ("one", "other")),
    "spark": Engine(lambda: launcher_for("spark")),
}
"""The first is the reference and does everything; the others show that they do the same."""
