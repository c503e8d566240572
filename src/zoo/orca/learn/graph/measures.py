"""Metrics of a graph: its own tensors, and those of `zoo.orca.learn.metrics`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from zoo.errors import InputError, load_extra
from zoo.orca.learn.metrics import GatheredMetric, Metric, RunningMetric
from zoo.orca.learn.score.packing import packed, unpacked

__all__ = ["Measure", "OutputMeasure", "TensorMeasure", "fresh_measures", "tensor_metrics"]


class TensorMeasure:
    """A tensor of the graph: a number for each row, or the mean of a batch.

    Args:
        tensor: Its name.
    """

    def __init__(self, tensor: str) -> None:
        self.tensor = tensor
        self.reset()

    def reset(self) -> None:
        """Forget everything seen."""
        self._sums = np.zeros(2)

    def take(self, value: np.ndarray, rows: int) -> None:
        """Take in what the tensor is for a batch.

        Raises:
            InputError: It is neither of the two.
        """
        if value.ndim and len(value) != rows:
            raise InputError(
                f"a metric that is one number, or one for each of {rows} rows",
                f"{self.tensor!r} of shape {value.shape}",
                "Reduce it with tf.reduce_mean.",
            )
        self._sums += (rows, float(np.mean(value, dtype=np.float64)) * rows)

    def state(self) -> Any:
        """What was seen, for JSON."""
        return self._sums.tolist()

    def told(self, name: str, states: Sequence[Any]) -> dict[str, Any]:
        """The mean over the rows of all parts."""
        rows, total = np.sum(states, axis=0)
        return {name: float(total / rows) if rows else float("nan")}


class OutputMeasure:
    """A metric of `zoo.orca.learn.metrics` on the first output and the first target.

    Args:
        metric: It computes on tensors of torch.
    """

    def __init__(self, metric: RunningMetric) -> None:
        self._metric = metric

    def reset(self) -> None:
        """Forget everything seen."""
        self._metric.reset()

    def take(self, output: np.ndarray, target: np.ndarray) -> None:
        """Take in a batch."""
        torch = load_extra("torch", "torch")
        self._metric(torch.from_numpy(np.array(output)), torch.from_numpy(np.array(target)))

    def state(self) -> Any:
        """What was seen, for JSON."""
        return packed(self._metric.state().cpu().numpy())

    def told(self, name: str, states: Sequence[Any]) -> dict[str, Any]:
        """The value over all parts; a number, or a list for matrices."""
        torch = load_extra("torch", "torch")
        arrays = [unpacked(state) for state in states]
        if isinstance(self._metric, GatheredMetric):
            self._metric.load_states([torch.from_numpy(array) for array in arrays])
        else:
            self._metric.load_state(torch.from_numpy(np.sum(arrays, axis=0)))
        return _told(name, self._metric.compute())


Measure: TypeAlias = TensorMeasure | OutputMeasure


def _told(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        told = [_told(f"{name}_{key}", each) for key, each in value.items()]
        return {key: each for part in told for key, each in part.items()}
    plain = value.tolist() if hasattr(value, "tolist") else value
    return {name: plain if isinstance(plain, list) else float(plain)}


def tensor_metrics(given: Any) -> tuple[dict[str, Any], dict[str, Metric]]:
    """Metrics by name: those that may be tensors, and those of the library.

    Args:
        given: None, a dict of either by name, one of the library, or a list of these, which have
            the names that programs of Analytics Zoo know: `Top1Accuracy`, `MAE`.

    Raises:
        InputError: Two have one name, or something is no metric.
    """
    if given is None:
        return {}, {}
    if isinstance(given, Mapping):
        own = {str(n): m for n, m in given.items() if isinstance(m, Metric)}
        return {str(n): m for n, m in given.items() if str(n) not in own}, own
    named: dict[str, Metric] = {}
    for metric in given if isinstance(given, list | tuple) else [given]:
        if not isinstance(metric, Metric):
            raise InputError(
                "metrics as a dict of tensors by name, or of zoo.orca.learn.metrics",
                repr(metric),
                "Pass metrics={'accuracy': tensor} or metrics=[Accuracy()].",
            )
        name = metric.bigdl_name or metric.get_name()
        if name in named:
            raise InputError(
                "metrics with different names", f"two called {name!r}",
                "Pass a dict, with a name for each.",
            )  # fmt: skip
        named[name] = metric
    return {}, named


def fresh_measures(given: Mapping[str, str | Metric] | None) -> dict[str, Measure]:
    """What measures, having seen nothing.

    Args:
        given: By name, a tensor's name or a metric of the library.
    """
    return {
        name: TensorMeasure(metric) if isinstance(metric, str) else OutputMeasure(_running(metric))
        for name, metric in (given or {}).items()
    }


def _running(metric: Metric) -> RunningMetric:
    return metric.get_metric("pytorch" if metric.bigdl_name is None else "tf")
