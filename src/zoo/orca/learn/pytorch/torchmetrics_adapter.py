"""Let a torchmetrics metric run where the parts of the data are."""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from typing import Any

import torch

from zoo.errors import load_extra
from zoo.orca.learn.pytorch.loss_watch import align

__all__ = ["TorchMetric"]


class TorchMetric:
    """A copy of a torchmetrics metric whose states are gathered from all parts of the data.

    They are merged as torchmetrics merges those of its own ranks, by the rule that each state has.
    Means are weighted with the batches of each part.

    Args:
        metric: A `torchmetrics.Metric`; it stays as it is.
    """

    def __init__(self, metric: Any) -> None:
        self._metric = copy.deepcopy(metric)
        base = load_extra("torchmetrics", "torchmetrics").Metric
        # A wrapper keeps its states in the metrics inside it.
        self._parts = [part for part in self._metric.modules() if isinstance(part, base)]
        for part in self._parts:
            # The states are merged by whoever holds them; a second time would count twice.
            part.sync_on_compute = part._to_sync = False
        self.reset()

    def __call__(self, preds: torch.Tensor, targets: torch.Tensor) -> None:
        """Take in one batch."""
        # Many torchmetrics cannot shape an empty batch, and there is nothing to see in one.
        if not preds.numel():
            return
        if self._metric.device != preds.device:
            self._metric.to(preds.device)
        targets = align(preds, targets)
        self._metric.update(preds.detach(), targets.detach().to(preds.device))
        self._batches += 1

    def compute(self) -> Any:
        """Return the value over everything seen; nan when nothing was."""
        return self._metric.compute() if self._batches else torch.tensor(torch.nan)

    def state(self) -> torch.Tensor:
        """Return the number of batches and all states, as the bytes of a file of torch."""
        states = [
            {name: _on_cpu(getattr(part, name)) for name in part._defaults} for part in self._parts
        ]
        file = io.BytesIO()
        torch.save((self._batches, [part._update_count for part in self._parts], states), file)
        return torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)

    def load_states(self, states: Sequence[torch.Tensor]) -> None:
        """Put the states of all parts in the place of what was seen."""
        files = [io.BytesIO(state.numpy().tobytes()) for state in states]
        told = [torch.load(file, weights_only=True) for file in files]
        told = [each for each in told if each[0]]
        self.reset()
        self._batches = sum(batches for batches, _, _ in told)
        if not told:
            return
        for number, part in enumerate(self._parts):
            weights = [float(batches) for batches, _, _ in told]
            for name in part._defaults:
                merged = _merged(
                    part._reductions[name], [s[number][name] for _, _, s in told], weights
                )
                setattr(part, name, merged)
            # torchmetrics warns of a compute before any update.
            part._update_count = sum(counts[number] for _, counts, _ in told)
            part._computed = None

    def reset(self) -> None:
        """Forget everything seen."""
        for part in self._parts:
            for name, first in part._defaults.items():
                if isinstance(first, list):  # merged, it has become one tensor
                    setattr(part, name, [])
        self._metric.reset()
        self._batches = 0


def _on_cpu(state: Any) -> Any:
    if isinstance(state, list):
        return [_on_cpu(each) for each in state]
    return state.detach().cpu().clone()


def _merged(rule: Any, states: Sequence[Any], weights: Sequence[float]) -> Any:
    """One state of all parts, by its rule."""
    if isinstance(states[0], list):
        states = [tensor for state in states for tensor in state]
        return rule(states) if rule is not None and states else states
    if len(states) == 1:
        return states[0]
    stacked = torch.stack(list(states))
    if rule is load_extra("torchmetrics.utilities.data", "torchmetrics").dim_zero_mean:
        shares = stacked.new_tensor(weights) / sum(weights)
        return torch.tensordot(shares, stacked, 1)
    return stacked if rule is None else rule(stacked)
