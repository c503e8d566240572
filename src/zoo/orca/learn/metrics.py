"""Metrics by name, for any framework.

A `Metric` says what to measure; the computation belongs to a framework and is made on demand, so
this module loads none::

    Estimator.from_torch(..., metrics=[Accuracy(), AUC()])

`Metric.convert_metrics_dict` is what estimators call: it turns such a list into fresh running
metrics under the keys of their results.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, runtime_checkable

from zoo.errors import InputError, NotYetError, load_extra

if TYPE_CHECKING:
    from types import ModuleType

__all__ = [
    "AUC",
    "MAE",
    "MSE",
    "Accuracy",
    "AveragePrecision",
    "BinaryAccuracy",
    "BinaryCrossEntropy",
    "CategoricalAccuracy",
    "CategoricalCrossEntropy",
    "ConfusionMatrix",
    "F1Score",
    "KLDivergence",
    "LogLoss",
    "Metric",
    "Poisson",
    "Precision",
    "PredictionPairs",
    "Recall",
    "SparseCategoricalAccuracy",
    "SparseCategoricalCrossEntropy",
    "Top5Accuracy",
]

_TORCH_METRICS = "zoo.orca.learn.pytorch.pytorch_metrics"
BACKENDS = ("bigdl", "mxnet", "pytorch", "tf")


@runtime_checkable
class AdditiveMetric(Protocol):
    """A metric that evaluation can split over ranks. Yours may have any class with these methods.

    The sum of the states of two parts of the data must be the state of both together. Values are
    tensors of the framework.
    """

    def __call__(self, preds: Any, targets: Any) -> None:
        """Take in one batch."""

    def compute(self) -> Any:
        """Return the value over everything seen; nan when nothing was."""

    def state(self) -> Any:
        """Return what was seen: a new float64 vector whose length never changes."""

    def load_state(self, vector: Any) -> None:
        """Put a state, or a sum of states, in the place of what was seen."""

    def reset(self) -> None:
        """Forget everything seen."""


@runtime_checkable
class GatheredMetric(Protocol):
    """A metric whose states are gathered from all parts of the data instead of added up.

    Yours may have any class with these methods.
    """

    def __call__(self, preds: Any, targets: Any) -> None:
        """Take in one batch."""

    def compute(self) -> Any:
        """Return the value over everything seen; nan when nothing was."""

    def state(self) -> Any:
        """Return what was seen: a vector of any length."""

    def load_states(self, states: Sequence[Any]) -> None:
        """Put the states of all parts in the place of what was seen."""

    def reset(self) -> None:
        """Forget everything seen."""


RunningMetric: TypeAlias = AdditiveMetric | GatheredMetric


class Metric:
    """Base of the metrics.

    A metric of your own overrides `get_pytorch_metric`, and sets `bigdl_name` where it should
    also work on the `bigdl` and `tf` backends.
    """

    bigdl_name: ClassVar[str | None] = None
    """The key in results of the `bigdl` and `tf` backends; None where they lack the metric."""

    torch_class: ClassVar[str | None] = None
    """The class of `zoo.orca.learn.pytorch.pytorch_metrics` that computes it."""

    options: Mapping[str, Any] = {}
    """What that class is made with."""

    def get_name(self) -> str:
        """Return the key in results of the `pytorch` backend: the name of the class."""
        return type(self).__name__

    def get_metric(self, backend: str = "bigdl") -> RunningMetric:
        """Make a fresh running metric.

        Args:
            backend: `"bigdl"`, `"tf"` or `"pytorch"`.

        Raises:
            InputError: The backend has no such name, or cannot take this metric's settings.
            NotYetError: The backend does not have this metric.
        """
        self._key(backend)
        return self.get_pytorch_metric() if backend == "pytorch" else self.get_bigdl_metric()

    def get_pytorch_metric(self) -> RunningMetric:
        """Make a fresh running metric on torch tensors."""
        return self._compute_with_torch(**self.options)

    def get_bigdl_metric(self) -> RunningMetric:
        """Make a fresh running metric for the `bigdl` and `tf` backends."""
        return self.get_pytorch_metric()

    def _compute_with_torch(self, **options: Any) -> RunningMetric:
        if self.torch_class is None:
            raise NotYetError(
                "a metric with a torch computation",
                self.get_name(),
                "Override get_pytorch_metric in it.",
            )
        made: RunningMetric = getattr(_torch_metrics(), self.torch_class)(**options)
        return made

    def _key(self, backend: str) -> str:
        if backend == "pytorch":
            return self.get_name()
        if backend not in BACKENDS:
            raise InputError(
                f"a backend out of {', '.join(BACKENDS)}",
                repr(backend),
                "Name the backend of the estimator.",
            )
        if backend == "mxnet" or self.bigdl_name is None:
            raise NotYetError(
                f"a metric of the {backend} backend",
                self.get_name(),
                "Leave it out, or use the pytorch backend.",
            )
        return self.bigdl_name

    @staticmethod
    def convert_metrics_list(
        metrics: object | Sequence[object] | None, backend: str = "bigdl"
    ) -> list[RunningMetric] | None:
        """Make fresh running metrics, in the order given.

        Args:
            metrics: None, a metric, or a list of them, as for `convert_metrics_dict`.
            backend: `"bigdl"`, `"tf"` or `"pytorch"`.

        Returns:
            The running metrics, or None for None.
        """
        if metrics is None:
            return None
        return list(Metric.convert_metrics_dict(metrics, backend).values())

    @staticmethod
    def convert_metrics_dict(
        metrics: object | Sequence[object] | None, backend: str = "bigdl"
    ) -> dict[str, RunningMetric]:
        """Make fresh running metrics by their key in results.

        Args:
            metrics: None, a metric, or a list of them. The `pytorch` backend also takes objects
                with the methods of `AdditiveMetric` or of `GatheredMetric`, and torchmetrics.
            backend: `"bigdl"`, `"tf"` or `"pytorch"`.

        Raises:
            InputError: An entry is no metric, two share a key, or the backend is unknown.
            NotYetError: The backend does not have one of them.
        """
        if metrics is None:
            return {}
        converted: dict[str, RunningMetric] = {}
        for entry in metrics if isinstance(metrics, list | tuple) else [metrics]:
            key, metric = _convert(entry, backend)
            if key in converted:
                raise InputError(
                    "metrics with different keys in the result",
                    f"two under {key!r}",
                    "Keep one of them, or measure the other in an evaluate of its own.",
                )
            converted[key] = metric
        return converted


def _torch_metrics() -> ModuleType:
    load_extra("torch", "torch")
    return importlib.import_module(_TORCH_METRICS)


def _convert(entry: object, backend: str) -> tuple[str, RunningMetric]:
    if isinstance(entry, Metric):
        return entry._key(backend), entry.get_metric(backend)
    if backend == "pytorch":
        adopted = _torch_metrics().adopt(entry)
        if adopted is not None:
            return type(entry).__name__, adopted
    raise InputError(
        "metrics of zoo.orca.learn.metrics, such as Accuracy()",
        repr(entry),
        f"Only orca metrics are supported, but get {type(entry).__name__}; pass instances of them.",
    )


class Accuracy(Metric):
    """Share of right predictions: classes, class scores, or answers to a yes-or-no question.

    Args:
        zero_based_label: Whether class labels start at 0. Labels that start at 1 are for the
            `bigdl` and `tf` backends only, and for class scores.
        threshold: The probability from which on the answer is a yes.
        from_logits: Whether answers are logits, any number with 0 for a probability of one half.
    """

    bigdl_name = "Top1Accuracy"
    torch_class = "Accuracy"

    def __init__(
        self,
        zero_based_label: bool = True,
        *,
        threshold: float = 0.5,
        from_logits: bool = False,
    ) -> None:
        self.zero_based_label = zero_based_label
        self.options = {"threshold": threshold, "from_logits": from_logits}

    def get_pytorch_metric(self) -> RunningMetric:
        """Make a fresh running metric on torch tensors.

        Raises:
            InputError: Labels start at 1.
        """
        if not self.zero_based_label:
            raise InputError(
                "labels that start at 0",
                "zero_based_label=False",
                "Subtract 1 from the labels; torch losses need that too.",
            )
        return super().get_pytorch_metric()

    def get_bigdl_metric(self) -> RunningMetric:
        """Make a fresh running metric for the `bigdl` and `tf` backends."""
        first_label = 0 if self.zero_based_label else 1
        return self._compute_with_torch(first_label=first_label, **self.options)


class SparseCategoricalAccuracy(Metric):
    """Share of rows whose highest class score is at the target class, given as a number."""

    bigdl_name = "Top1Accuracy"
    torch_class = "SparseCategoricalAccuracy"


class CategoricalAccuracy(Metric):
    """Share of rows whose highest class score is at the target class, given one-hot."""

    bigdl_name = "Top1Accuracy"
    torch_class = "CategoricalAccuracy"


class _Cut(Metric):
    """A metric of answers to a yes-or-no question.

    Args:
        threshold: The probability above which the answer is a yes.
        from_logits: Whether answers are logits, any number with 0 for a probability of one half.
    """

    def __init__(self, *, threshold: float = 0.5, from_logits: bool = False) -> None:
        self.options = {"threshold": threshold, "from_logits": from_logits}


class BinaryAccuracy(_Cut):
    """Share of answers on the right side of the threshold."""

    bigdl_name = "Top1Accuracy"
    torch_class = "BinaryAccuracy"


class ConfusionMatrix(_Cut):
    """How often each class was taken for each: a list of rows, one for each true class.

    Of class scores the highest wins.
    """

    torch_class = "ConfusionMatrix"


class _Averaged(Metric):
    """A number for each class, and their mean.

    Args:
        average: `"binary"`: that of class 1. `"macro"`: the mean over the classes. `"weighted"`:
            that mean, by how often each occurs. `"micro"`: of all decisions together. None:
            `"binary"` where there are two classes, `"macro"` where there are more.
        threshold: The probability above which the answer to a yes-or-no question is a yes.
        from_logits: Whether such answers are logits.
    """

    def __init__(
        self,
        average: str | None = None,
        *,
        threshold: float = 0.5,
        from_logits: bool = False,
    ) -> None:
        self.options = {"average": average, "threshold": threshold, "from_logits": from_logits}


class Precision(_Averaged):
    """Share of the predictions of a class that are right."""

    torch_class = "Precision"


class Recall(_Averaged):
    """Share of the rows of a class that were found."""

    torch_class = "Recall"


class F1Score(_Averaged):
    """Harmonic mean of precision and recall."""

    torch_class = "F1Score"


class Top5Accuracy(Metric):
    """Share of rows whose target class is among the five highest class scores."""

    bigdl_name = "Top5Accuracy"
    torch_class = "Top5Accuracy"


class AUC(Metric):
    """Area under the ROC curve: the chance that a positive is scored above a negative.

    Scores are any numbers. The area is that of all rows, by rank; in parts of more than 262,144
    different scores it is off by less than 3e-5, and by 1e-7 on most data.

    Args:
        threshold_num: For older programs, which took the area at so many thresholds. Without
            effect, but for the check that there are 2.

    Raises:
        InputError: Fewer than 2 thresholds.
    """

    bigdl_name = "AucScore"
    torch_class = "AUC"

    def __init__(self, threshold_num: int | None = None) -> None:
        if threshold_num is not None and threshold_num < 2:
            raise InputError("threshold_num of 2 or more", str(threshold_num), "Leave it out.")


class AveragePrecision(Metric):
    """Precision at each score, weighted with the recall that it adds; for rare positives."""

    torch_class = "AveragePrecision"


class MAE(Metric):
    """Mean absolute error over all elements."""

    bigdl_name = "MAE"
    torch_class = "MAE"


class MSE(Metric):
    """Mean squared error over all elements."""

    bigdl_name = "MSE"
    torch_class = "MSE"


class PredictionPairs(Metric):
    """Some targets with their predictions, to look at: a list of pairs `[target, prediction]`.

    They are a fair sample of all elements, and the same however the data was split.

    Args:
        count: How many at most.

    Raises:
        InputError: Fewer than 1.
    """

    torch_class = "PredictionPairs"

    def __init__(self, count: int = 500) -> None:
        if count < 1:
            raise InputError("a count of 1 or more", str(count), "Leave it out for 500.")
        self.options = {"count": count}


class BinaryCrossEntropy(Metric):
    """Cross entropy of probabilities against targets of 0 and 1, per element."""

    torch_class = "BinaryCrossEntropy"


class CategoricalCrossEntropy(Metric):
    """Cross entropy of class probabilities against one-hot targets, per sample."""

    torch_class = "CategoricalCrossEntropy"


class SparseCategoricalCrossEntropy(Metric):
    """Cross entropy of class probabilities against class numbers, per sample."""

    torch_class = "SparseCategoricalCrossEntropy"


class LogLoss(Metric):
    """Cross entropy against class numbers, per sample, as scikit-learn's `log_loss`.

    Args:
        from_logits: Whether predictions are logits instead of probabilities.
    """

    torch_class = "LogLoss"

    def __init__(self, *, from_logits: bool = False) -> None:
        self.options = {"from_logits": from_logits}


class KLDivergence(Metric):
    """Kullback-Leibler divergence of the target from the predicted distribution, per sample."""

    torch_class = "KLDivergence"


class Poisson(Metric):
    """Poisson loss `prediction - target * log(prediction)`, per element."""

    torch_class = "Poisson"
