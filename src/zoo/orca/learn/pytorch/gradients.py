"""What ranks add up in every step: gradients, and running statistics, as flat arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from zoo.orca.learn.steps import GradientLimits

__all__ = ["FlatGradients", "RunningStatistics", "clip", "sparse_parameters"]


def sparse_parameters(model: nn.Module) -> list[torch.Tensor]:
    """Tables of embeddings whose gradients have entries for the rows that were looked up only."""
    kinds = (nn.Embedding, nn.EmbeddingBag)
    return [m.weight for m in model.modules() if isinstance(m, kinds) and m.sparse]


def clip(parameters: Sequence[nn.Parameter], limits: GradientLimits) -> None:
    """Clip gradients in place, the same on every rank."""
    if limits.norm is not None:
        nn.utils.clip_grad_norm_(parameters, limits.norm)
    if limits.low is not None or limits.high is not None:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.clamp_(limits.low, limits.high)


class RunningStatistics:
    """Means and variances that batch norms keep, averaged over the ranks in every step.

    Every rank then holds the same ones at any moment: what a survivor has, or a snapshot, does
    not depend on which rank it came from.

    Args:
        model: Its batch norms are looked up once.
    """

    def __init__(self, model: nn.Module) -> None:
        norms = [m for m in model.modules() if isinstance(m, _NormBase)]
        found = [b for m in norms for b in (m.running_mean, m.running_var)]
        self._buffers = [b for b in found if b is not None]
        counts = [m.num_batches_tracked for m in norms]
        self._counts = [c for c in counts if c is not None]
        sizes = [b.numel() for b in self._buffers]
        flat = torch.zeros(sum(sizes), dtype=torch.float64)
        parts = flat.split(sizes) if sizes else ()
        self._views = [p.view(b.shape) for p, b in zip(parts, self._buffers, strict=True)]
        self.arrays = [flat.numpy()] if sizes else []
        self._whole: list[torch.Tensor] = []
        self._keep()

    def holds(self, buffer: torch.Tensor) -> bool:
        """Whether this is one of them."""
        return any(b is buffer for b in self._buffers)

    def gather(self, rows: int) -> None:
        """Put in this rank's, weighted by the rows of its batch."""
        if not self._buffers:
            return
        for view, buffer in zip(self._views, self._buffers, strict=True):
            torch.mul(buffer.detach().to(view.dtype), float(rows), out=view)

    def scatter(self, rows: int) -> None:
        """Take the mean over all rows of the step."""
        if not self._buffers:
            return
        for view, buffer in zip(self._views, self._buffers, strict=True):
            buffer.copy_(view / float(rows))
        self._keep()

    def restore(self) -> None:
        """Back to the end of the last step: a forward pass that was cut off has moved them on."""
        for buffer, value in zip([*self._buffers, *self._counts], self._whole, strict=True):
            buffer.copy_(value)

    def _keep(self) -> None:
        self._whole = [b.detach().clone() for b in [*self._buffers, *self._counts]]


class FlatGradients:
    """Gradients of all parameters as one array for each floating-point type.

    Args:
        parameters: What is trained.
        sparse: Those among them with sparse gradients. They travel whole, and become sparse again:
            the optimizers for them leave rows alone that were not looked up.

    Attributes:
        arrays: Which parameters have a gradient, then the gradients; sums of them over ranks.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], sparse: Sequence[torch.Tensor] = ()
    ) -> None:
        self._parameters = list(parameters)
        tables = {id(p) for p in sparse}
        self._sparse = [k for k, p in enumerate(self._parameters) if id(p) in tables]
        # Half precision adds up in single precision: sums over many ranks keep their digits.
        wide = [p.dtype == torch.float64 for p in self._parameters]
        self._views: list[torch.Tensor] = []
        # Whose gradient can be the very view; the others get a copy in their type, on their device.
        self._fits = [
            p.device.type == "cpu" and p.dtype in (torch.float32, torch.float64)
            for p in self._parameters
        ]
        flats = []
        for dtype, chosen in ((torch.float32, False), (torch.float64, True)):
            size = sum(
                p.numel() for p, w in zip(self._parameters, wide, strict=True) if w == chosen
            )
            flats.append(torch.zeros(size, dtype=dtype))
        at = [0, 0]
        for p, w in zip(self._parameters, wide, strict=True):
            self._views.append(flats[w][at[w] : at[w] + p.numel()].view(p.shape))
            at[w] += p.numel()
        self._flats = [f for f in flats if f.numel()]
        self._present = np.zeros(len(self._parameters))
        self._looked_up = {k: torch.zeros(len(self._parameters[k])) for k in self._sparse}
        flags = [rows.numpy() for rows in self._looked_up.values()]
        self.arrays = [self._present, *(f.numpy() for f in self._flats), *flags]

    def clear(self) -> None:
        """No rows on this rank in this step."""
        for array in self.arrays:
            array[:] = 0.0

    def gather(self) -> None:
        """Copy the gradients in. A parameter that took no part has none, here and in the sum."""
        grads = [p.grad for p in self._parameters]
        for k, rows in self._looked_up.items():
            rows.zero_()
            grad = grads[k]
            if grad is not None and grad.is_sparse:
                rows[grad.coalesce().indices()[0].cpu()] = 1.0
        if all(g is not None for g in grads):
            self._present[:] = 1.0
            torch._foreach_copy_(self._views, [_dense(g) for g in grads if g is not None])
            return
        for k, grad in enumerate(grads):
            self._present[k] = grad is not None
            if grad is None:
                self._views[k].zero_()
            else:
                self._views[k].copy_(_dense(grad))

    def multiply(self, factor: float) -> None:
        """Let the gradients of this rank weigh so much in the sum."""
        for flat in self._flats:
            flat.mul_(factor)

    def scatter(self, divisor: float) -> None:
        """Give every parameter its share of the sums, as the mean."""
        if divisor != 1.0:
            for flat in self._flats:
                flat.mul_(1.0 / divisor)
        every = bool(self._present.all())
        for k, (parameter, view) in enumerate(zip(self._parameters, self._views, strict=True)):
            if every or self._present[k]:
                fits = self._fits[k]
                parameter.grad = view if fits else view.to(parameter.device, parameter.dtype)
            else:
                parameter.grad = None
        for k, rows in self._looked_up.items():
            grad = self._parameters[k].grad
            if grad is not None:
                seen = rows.nonzero().reshape(1, -1).to(grad.device)
                self._parameters[k].grad = torch.sparse_coo_tensor(
                    seen, grad[seen[0]], grad.shape, is_coalesced=True, check_invariants=False
                )


def _dense(grad: torch.Tensor) -> torch.Tensor:
    return grad.to_dense() if grad.is_sparse else grad
