"""Metrics by name, for any framework.

A `Metric` says what to measure; the computation belongs to a framework and is made on demand, so
this module loads none::

    Estimator.from_torch(..., metrics=[Accuracy(), AUC()])

`Metric.convert_metrics_dict` is what estimators call: it turns such a list into fresh running
metrics under the keys of their results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from zoo.errors import InputError, NotYetError, load_extra

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo.orca.learn.pytorch.pytorch_metrics import AdditiveMetric

__all__ = [
    "AUC",
    "MAE",
    "MSE",
    "Accuracy",
    "BinaryAccuracy",
    "BinaryCrossEntropy",
    "CategoricalAccuracy",
    "CategoricalCrossEntropy",
    "KLDivergence",
    "Metric",
    "Poisson",
    "SparseCategoricalAccuracy",
    "SparseCategoricalCrossEntropy",
    "Top5Accuracy",
]

BACKENDS = ("bigdl", "mxnet", "pytorch", "tf")


class Metric:
    """Base of the metrics.

    A metric of your own overrides `get_pytorch_metric`, and sets `bigdl_name` where it should
    also work on the `bigdl` and `tf` backends.
    """

    bigdl_name: ClassVar[str | None] = None
    """The key in results of the `bigdl` and `tf` backends; None where they lack the metric."""

    torch_class: ClassVar[str | None] = None
    """The class of `zoo.orca.learn.pytorch.pytorch_metrics` that computes it."""

    def get_name(self) -> str:
        """Return the key in results of the `pytorch` backend: the name of the class."""
        return type(self).__name__

    def get_metric(self, backend: str = "bigdl") -> AdditiveMetric:
        """Make a fresh running metric.

        Args:
            backend: `"bigdl"`, `"tf"` or `"pytorch"`.

        Raises:
            InputError: The backend has no such name, or cannot take this metric's settings.
            NotYetError: The backend does not have this metric.
        """
        self._key(backend)
        return self.get_pytorch_metric() if backend == "pytorch" else self.get_bigdl_metric()

    def get_pytorch_metric(self) -> AdditiveMetric:
        """Make a fresh running metric on torch tensors."""
        return self._compute_with_torch()

    def get_bigdl_metric(self) -> AdditiveMetric:
        """Make a fresh running metric for the `bigdl` and `tf` backends."""
        return self.get_pytorch_metric()

    def _compute_with_torch(self, **options: int) -> AdditiveMetric:
        if self.torch_class is None:
            raise NotYetError(
                "a metric with a torch computation",
                self.get_name(),
                "Override get_pytorch_metric in it.",
            )
        load_extra("torch", "torch")
        from zoo.orca.learn.pytorch import pytorch_metrics

        made: AdditiveMetric = getattr(pytorch_metrics, self.torch_class)(**options)
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
    ) -> list[AdditiveMetric] | None:
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
    ) -> dict[str, AdditiveMetric]:
        """Make fresh running metrics by their key in results.

        Args:
            metrics: None, a metric, or a list of them. The `pytorch` backend also takes objects
                with the methods of `AdditiveMetric`, and torchmetrics whose states are summed.
            backend: `"bigdl"`, `"tf"` or `"pytorch"`.

        Raises:
            InputError: An entry is no metric, two share a key, or the backend is unknown.
            NotYetError: The backend does not have one of them.
        """
        if metrics is None:
            return {}
        converted: dict[str, AdditiveMetric] = {}
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


def _convert(entry: object, backend: str) -> tuple[str, AdditiveMetric]:
    if isinstance(entry, Metric):
        return entry._key(backend), entry.get_metric(backend)
    if backend == "pytorch":
        load_extra("torch", "torch")
        from zoo.orca.learn.pytorch.pytorch_metrics import adopt

        adopted = adopt(entry)
        if adopted is not None:
            return type(entry).__name__, adopted
    raise InputError(
        "metrics of zoo.orca.learn.metrics, such as Accuracy()",
        repr(entry),
        f"Only orca metrics are supported, but get {type(entry).__name__}; pass instances of them.",
    )


class Accuracy(Metric):
    """Share of right predictions: classes, class scores, or probabilities cut at 0.5.

    Args:
        zero_based_label: Whether class labels start at 0. Labels that start at 1 are for the
            `bigdl` and `tf` backends only, and for class scores.
    """

    bigdl_name = "Top1Accuracy"
    torch_class = "Accuracy"

    def __init__(self, zero_based_label: bool = True) -> None:
        self.zero_based_label = zero_based_label

    def get_pytorch_metric(self) -> AdditiveMetric:
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

    def get_bigdl_metric(self) -> AdditiveMetric:
        """Make a fresh running metric for the `bigdl` and `tf` backends."""
        return self._compute_with_torch(first_label=0 if self.zero_based_label else 1)


class SparseCategoricalAccuracy(Metric):
    """Share of rows whose highest class score is at the target class, given as a number."""

    bigdl_name = "Top1Accuracy"
    torch_class = "SparseCategoricalAccuracy"


class CategoricalAccuracy(Metric):
    """Share of rows whose highest class score is at the target class, given one-hot."""

    bigdl_name = "Top1Accuracy"
    torch_class = "CategoricalAccuracy"


class BinaryAccuracy(Metric):
    """Share of probabilities on the right side of 0.5."""

    bigdl_name = "Top1Accuracy"
    torch_class = "BinaryAccuracy"


class Top5Accuracy(Metric):
    """Share of rows whose target class is among the five highest class scores."""

    bigdl_name = "Top5Accuracy"
    torch_class = "Top5Accuracy"


class AUC(Metric):
    """Area under the ROC curve of probabilities, taken at evenly spaced thresholds.

    Args:
        threshold_num: How many thresholds; at least 2.

    Raises:
        InputError: Fewer than 2 thresholds.
    """

    bigdl_name = "AucScore"
    torch_class = "AUC"

    def __init__(self, threshold_num: int = 200) -> None:
        if threshold_num < 2:
            raise InputError("threshold_num of 2 or more", str(threshold_num), "200 is usual.")
        self.threshold_num = threshold_num

    def get_pytorch_metric(self) -> AdditiveMetric:
        """Make a fresh running metric on torch tensors."""
        return self._compute_with_torch(threshold_num=self.threshold_num)


class MAE(Metric):
    """Mean absolute error over all elements."""

    bigdl_name = "MAE"
    torch_class = "MAE"


class MSE(Metric):
    """Mean squared error over all elements."""

    bigdl_name = "MSE"
    torch_class = "MSE"


class BinaryCrossEntropy(Metric):
    """Cross entropy of probabilities against targets of 0 and 1, per element."""

    torch_class = "BinaryCrossEntropy"


class CategoricalCrossEntropy(Metric):
    """Cross entropy of class probabilities against one-hot targets, per sample."""

    torch_class = "CategoricalCrossEntropy"


class SparseCategoricalCrossEntropy(Metric):
    """Cross entropy of class probabilities against class numbers, per sample."""

    torch_class = "SparseCategoricalCrossEntropy"


class KLDivergence(Metric):
    """Kullback-Leibler divergence of the target from the predicted distribution, per sample."""

    torch_class = "KLDivergence"


class Poisson(Metric):
    """Poisson loss `prediction - target * log(prediction)`, per element."""

    torch_class = "Poisson"
