"""Let a torchmetrics metric run as an additive one."""

from __future__ import annotations

import copy
from importlib import import_module
from typing import Any

import torch

from zoo.errors import InputError

__all__ = ["SummedTorchMetric"]


class SummedTorchMetric:
    """A copy of a torchmetrics metric that shows its states as one vector.

    The vector begins with the number of batches seen, so that a metric which saw nothing can be
    told from one whose sums are 0.

    Args:
        metric: A `torchmetrics.Metric`; it stays as it is.

    Raises:
        InputError: One of its states is not a tensor that ranks may sum.
    """

    def __init__(self, metric: Any) -> None:
        # Whoever has such a metric has installed the package; we never ask for it.
        summed = import_module("torchmetrics.utilities.data").dim_zero_sum
        others = [name for name, reduce in metric._reductions.items() if reduce is not summed]
        # A wrapper keeps its states in the metrics inside it, out of our sight.
        if others or not metric._reductions or len(_nested(metric)) > 1:
            raise InputError(
                "a metric whose states add up over ranks (dist_reduce_fx='sum')",
                f"{type(metric).__name__} with {', '.join(others) or 'states inside it'}",
                "Use its binned form, such as thresholds=200, or a metric with sums as states.",
            )
        self._metric = copy.deepcopy(metric)
        # The states are summed by whoever holds the vectors; a second time would count twice.
        self._metric.sync_on_compute = self._metric._to_sync = False
        self._names = sorted(metric._reductions)
        self.reset()

    def __call__(self, preds: torch.Tensor, targets: torch.Tensor) -> None:
        """Take in one batch."""
        # Many torchmetrics cannot shape an empty batch, and there is nothing to see in one.
        if not preds.numel():
            return
        if self._metric.device != preds.device:
            self._metric.to(preds.device)
        self._metric.update(preds.detach(), targets.detach().to(preds.device))
        self._batches += 1

    def compute(self) -> torch.Tensor:
        """Return the value over everything seen; nan when nothing was."""
        if not self._batches:
            return torch.tensor(torch.nan)
        value: torch.Tensor = self._metric.compute()
        return value

    def state(self) -> torch.Tensor:
        """Return the number of batches and all states, in the order of their names."""
        parts = [getattr(self._metric, name).detach().double().reshape(-1) for name in self._names]
        return torch.cat([torch.tensor([self._batches], device=self._metric.device), *parts])

    def load_state(self, vector: torch.Tensor) -> None:
        """Put a state, or a sum of states, in the place of what was seen."""
        current = [getattr(self._metric, name) for name in self._names]
        sizes = [1, *(part.numel() for part in current)]
        if vector.shape != (sum(sizes),):
            raise InputError(
                f"a state of {sum(sizes)} numbers",
                f"shape {tuple(vector.shape)}",
                "Add up and load states of equally configured metrics only.",
            )
        batches, *parts = torch.split(vector.detach().double(), sizes)
        self._metric.reset()
        for name, old, new in zip(self._names, current, parts, strict=True):
            setattr(self._metric, name, new.reshape(old.shape).to(old, copy=True))
        self._batches = float(batches)
        # torchmetrics warns of a compute before any update.
        self._metric._update_count = int(self._batches)

    def reset(self) -> None:
        """Forget everything seen."""
        self._metric.reset()
        self._batches = 0.0


def _nested(metric: Any) -> list[Any]:
    base = import_module("torchmetrics").Metric
    return [module for module in metric.modules() if isinstance(module, base)]
