"""A torch model on numpy arrays: what prediction and evaluation ask of the framework."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from zoo.cluster.ranks.carried import pickled
from zoo.errors import InputError
from zoo.orca.data.tensors.plan import TensorPlan
from zoo.orca.learn.pytorch.batches import Batch
from zoo.orca.learn.pytorch.modes import evaluating
from zoo.orca.learn.pytorch.operator.scorer import make_scorer, score_batches
from zoo.orca.learn.pytorch.recipe import Built
from zoo.orca.learn.pytorch.scorer import AnyMetric
from zoo.orca.learn.score.predict import Outputs, Predictor

__all__ = ["TorchEvaluator", "evaluated", "evaluator", "local_predictor", "predictor"]


def predictor(blob: bytes) -> Predictor:
    """A model that was sent, in a process of its own.

    Args:
        blob: The pickled model.
    """
    model = pickle.loads(blob).eval()
    torch.set_num_threads(1)
    return lambda arrays: _outputs(model, arrays)


def local_predictor(model: torch.nn.Module) -> Predictor:
    """The user's own model, which is left in the mode that it is in.

    Args:
        model: It may be in training.
    """

    def predict(arrays: Sequence[np.ndarray]) -> Outputs:
        with evaluating(model):
            return _outputs(model, arrays)

    return predict


def _outputs(model: torch.nn.Module, arrays: Sequence[np.ndarray]) -> Outputs:
    with torch.no_grad():
        output = model(*tensors(arrays))
        if isinstance(output, Mapping):
            return {str(name): _array(value) for name, value in output.items()}
        if isinstance(output, tuple | list):
            return [_array(value) for value in output]
        return _array(output)


def _array(output: Any) -> np.ndarray:
    if not isinstance(output, torch.Tensor):
        raise InputError(
            "a model that returns a tensor with one entry for each row, or several such tensors "
            "as a tuple or a dict",
            f"{type(output).__name__}",
            "predict needs one output for each row.",
        )
    if output.dtype == torch.bfloat16:
        output = output.float()  # numpy has no such numbers
    array: np.ndarray = output.detach().cpu().resolve_conj().resolve_neg().numpy()
    return array


def tensors(arrays: Sequence[np.ndarray]) -> list[torch.Tensor]:
    """Arrays as tensors, without a copy where they may be written to."""
    # Arrow's buffers are read-only, and torch warns when it could write to such memory.
    return [torch.from_numpy(a if a.flags.writeable else a.copy()) for a in arrays]


def evaluated(built: Built, metrics: Mapping[str, AnyMetric]) -> bytes:
    """What `evaluator` opens.

    Args:
        built: Model and loss.
        metrics: By name.

    Raises:
        InputError: It cannot be pickled.
    """
    return pickled((built, dict(metrics)), "a model, loss and metrics")


def evaluator(blob: bytes, plan: TensorPlan) -> TorchEvaluator:
    """Model, loss and metrics that were sent, in a process of their own.

    Args:
        blob: From `evaluated`.
        plan: What the arrays of a batch are.
    """
    torch.set_num_threads(1)
    built, metrics = pickle.loads(blob)
    return TorchEvaluator(built, metrics, plan)


class TorchEvaluator:
    """Scores batches of arrays.

    Args:
        built: Model and loss, or an operator.
        metrics: By name.
        plan: What the arrays of a batch are.
    """

    def __init__(self, built: Built, metrics: Mapping[str, AnyMetric], plan: TensorPlan) -> None:
        self._built, self._plan = built, plan
        self._scorer = make_scorer(built, metrics)

    def run(self, batches: Iterable[Sequence[np.ndarray]]) -> None:
        """Score batches: an array for each tensor of the plan."""
        if self._built.operator is not None:
            self._built.operator.start(self._built, train=False)
        self._built.model.eval()
        with torch.no_grad():
            score_batches(self._scorer, (self._batch(arrays) for arrays in batches))

    def _batch(self, arrays: Sequence[np.ndarray]) -> Batch:
        return Batch.of(self._plan, tensors(arrays), len(arrays[0]))

    def sums(self) -> Any:
        """What to add up with other parts of the data."""
        return self._scorer.sums()
