"""Keras on PyTorch: one operation after the other, as Keras's own trainer has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from keras import ops, tree
from keras.src.backend.torch.core import get_device

from zoo.orca.learn.keras.backends import Found, StepMetrics
from zoo.orca.learn.keras.built import Built
from zoo.orca.learn.keras.gradients import clipped
from zoo.orca.learn.keras.outputs import outputs_of_model
from zoo.orca.learn.rank.array_batches import Arrays, Batch
from zoo.orca.learn.score.predict import Outputs
from zoo.orca.learn.steps import GradientLimits

__all__ = ["Steps", "start"]


def start(threads: int) -> None:
    """Choose the threads of this process."""
    torch.set_num_threads(threads)


class Steps:
    """See `Backend`."""

    def __init__(
        self,
        built: Built,
        metrics: StepMetrics | None = None,
        limits: GradientLimits | None = None,
    ) -> None:
        self._built, self._metrics, self._limits = built, metrics, limits
        self._model, self._seeds = built.model, built.seeds()

    def backward(self, batch: Batch, seeds: np.ndarray) -> Found:
        """See `Backend`."""
        for variable, seed in zip(self._seeds, seeds, strict=True):
            variable.assign(seed)
        # Modules of torch inside the model draw from here.
        torch.default_generator.manual_seed(int(seeds[-1, 0]))
        model, optimizer = self._model, self._built.optimizer
        model.train()
        model.zero_grad()
        with torch.enable_grad():
            loss, weights = self._loss(batch, training=True)
            scaled = loss if optimizer is None else optimizer.scale_loss(loss)
            if scaled.requires_grad:
                scaled.backward()
        gradients = [variable.value.grad for variable in model.trainable_weights]
        return Found(loss.item(), _numbers(weights), gradients)

    def update(self, gradients: Sequence[Any]) -> None:
        """See `Backend`."""
        optimizer = self._built.optimizer
        with torch.no_grad():
            found = [_tensor(g) if isinstance(g, np.ndarray) else g for g in gradients]
            if self._limits is not None:
                found = clipped(found, self._limits, optimizer.scale_loss(1.0))
            optimizer.apply(found, self._model.trainable_weights)

    def score(self, batch: Batch) -> Found:
        """See `Backend`."""
        self._model.eval()
        with torch.no_grad():
            loss, weights = self._loss(batch, training=False)
        return Found(loss.item(), _numbers(weights))

    def forward(self, features: Arrays) -> Outputs:
        """See `Backend`."""
        self._model.eval()
        with torch.no_grad():
            arguments = self._built.arguments(tree.map_structure(_tensor, features))
            return outputs_of_model(self._built.predicted(arguments))

    def numbers(self, gradient: Any) -> np.ndarray:
        """See `Backend`."""
        return np.asarray(ops.convert_to_numpy(gradient))

    def _loss(self, batch: Batch, *, training: bool) -> tuple[torch.Tensor, list[Any]]:
        built = self._built
        features, targets = tree.map_structure(_tensor, (batch.features, batch.targets))
        x = built.arguments(features)
        y_pred = built.called(x, training=training)
        y = built.wanted(targets, y_pred)
        weights = None if batch.weights is None else _tensor(batch.weights)
        loss, found = built.compute(x, y, y_pred, weights, training=training)
        if self._metrics is not None:
            with torch.no_grad():
                self._metrics.update(y, y_pred, weights)
        return loss, found


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).to(get_device())


def _numbers(weights: Sequence[Any]) -> list[float | None]:
    return [None if weight is None else float(weight) for weight in weights]
