"""Metrics of a Keras model as sums that add over ranks and partitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import metrics as km
from keras import ops, tree
from keras.src.trainers.compile_utils import CompileMetrics, get_metric

from zoo.errors import InputError, load_extra
from zoo.orca.learn import metrics as orca
from zoo.orca.learn.keras.process import Sent
from zoo.orca.learn.metrics import GatheredMetric, Metric, RunningMetric
from zoo.orca.learn.score.packing import packed, unpacked

__all__ = ["GivenMetric", "KerasMetrics", "given_metrics", "running_metrics"]

# Updates after which sums move into double precision: those of a metric are in single.
_MOVE = 16
_NEAR = 1e-3

_ADDITIVE = frozenset({
    km.AUC, km.Accuracy, km.BinaryAccuracy, km.BinaryCrossentropy, km.BinaryIoU,
    km.CategoricalAccuracy, km.CategoricalCrossentropy, km.CategoricalHinge, km.CosineSimilarity,
    km.F1Score, km.FBetaScore, km.FalseNegatives, km.FalsePositives, km.Hinge, km.IoU,
    km.KLDivergence, km.LogCoshError, km.Mean, km.MeanAbsoluteError, km.MeanAbsolutePercentageError,
    km.MeanIoU, km.MeanSquaredError, km.MeanSquaredLogarithmicError, km.OneHotIoU, km.OneHotMeanIoU,
    km.Poisson, km.Precision, km.PrecisionAtRecall, km.R2Score, km.Recall, km.RecallAtPrecision,
    km.RootMeanSquaredError, km.SensitivityAtSpecificity, km.SparseCategoricalAccuracy,
    km.SparseCategoricalCrossentropy, km.SparseTopKCategoricalAccuracy, km.SpecificityAtSensitivity,
    km.SquaredHinge, km.Sum, km.TopKCategoricalAccuracy, km.TrueNegatives, km.TruePositives,
})  # fmt: skip
"""Those of Keras whose variables are sums over rows. Others are tried on a batch."""


Maker = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class GivenMetric(Sent):
    """A metric that was given to the estimator, as it travels to the ranks.

    Attributes:
        make: Makes a metric of Keras for a target and an output, of which it sees a row; or a
            running metric of `zoo.orca.learn.metrics`, for None.
        gathers: It makes the latter.
        output: Number of the output that is measured.
    """

    make: Maker
    gathers: bool
    output: int = 0


def given_metrics(given: Any) -> dict[str, GivenMetric]:
    """Metrics given to an estimator, by the name that results have them under.

    Those of `zoo.orca.learn.metrics` keep the names of their classes. Accuracies, MAE and MSE are
    those of Keras; the others compute with torch, as for `Estimator.from_torch`, so
    `zoo.orca.learn.metrics.AUC` is exact, where `keras.metrics.AUC` sums over 200 thresholds.

    Args:
        given: None, one, or a list: names that Keras knows, metrics and functions of Keras, and
            metrics of `zoo.orca.learn.metrics`. A list of lists has metrics for each output in
            turn; a name that several outputs have gets the number of the output in front.

    Raises:
        InputError: Something is no metric, or two share a name.
        MissingExtraError: A metric needs torch.
    """
    if given is None:
        return {}
    entries = list(given) if isinstance(given, list | tuple) else [given]
    several = any(isinstance(entry, list | tuple) for entry in entries)
    outputs = [list(e) if isinstance(e, list | tuple) else [e] for e in entries]
    parts = [_named(part) for part in (outputs if several else [entries])]
    names = Counter(name for part in parts for name in part)
    return {
        name if names[name] == 1 else f"output_{k}_{name}": replace(metric, output=k)
        for k, part in enumerate(parts)
        for name, metric in part.items()
    }


def running_metrics(given: Any, model: Any) -> KerasMetrics:
    """All metrics of a training or an evaluation, which have seen nothing.

    Args:
        given: As `given_metrics` takes them, or what it returned.
        model: See `KerasMetrics`.

    Raises:
        InputError: See `given_metrics`.
        MissingExtraError: See `given_metrics`.
    """
    made = isinstance(given, Mapping) and all(isinstance(m, GivenMetric) for m in given.values())
    return KerasMetrics(model, given if made else given_metrics(given))


def _named(entries: Sequence[Any]) -> dict[str, GivenMetric]:
    found: dict[str, GivenMetric] = {}
    for entry in entries:
        name, metric = _given(entry)
        if name in found:
            raise InputError(
                "metrics with different names in the result",
                f"two under {name!r}",
                "Keep one of them, or give it another name.",
            )
        found[name] = metric
    return found


def _given(entry: Any) -> tuple[str, GivenMetric]:
    if isinstance(entry, Metric):
        form = _FORMS.get(type(entry))
        if form is not None:
            return entry.get_name(), GivenMetric(form(entry), gathers=False)
        load_extra("torch", "torch")
        entry.get_pytorch_metric()
        return entry.get_name(), GivenMetric(lambda _, __: entry.get_pytorch_metric(), gathers=True)
    if isinstance(entry, type) and issubclass(entry, km.Metric):
        entry = entry()
    if isinstance(entry, km.Metric):
        # Its variables do not travel, its settings do.
        kind, config = type(entry), entry.get_config()
        return str(entry.name), GivenMetric(lambda _, __: kind.from_config(config), gathers=False)
    if isinstance(entry, str):
        if entry.lower() not in ("accuracy", "acc"):
            _require_known(entry)
        return entry, GivenMetric(partial(get_metric, entry), gathers=False)
    if callable(entry) and not isinstance(entry, type):
        name = str(getattr(entry, "name", None) or getattr(entry, "__name__", "metric"))
        return name, GivenMetric(partial(get_metric, entry), gathers=False)
    raise InputError(
        "metrics: names, metrics or functions of Keras, or metrics of zoo.orca.learn.metrics",
        repr(entry),
        "Only orca metrics and those of Keras are supported; pass 'accuracy', for example.",
    )


def _require_known(name: str) -> None:
    try:
        km.get(name)
    except ValueError:
        raise InputError(
            "the name of a metric of Keras", repr(name), "Look it up in keras.metrics."
        ) from None


def _accuracy(metric: Any) -> Maker:
    if not metric.zero_based_label:
        raise InputError(
            "labels that start at 0", "zero_based_label=False", "Subtract 1 from the labels."
        )
    cut = _threshold(metric)

    def make(target: Any, output: Any) -> Any:
        made = get_metric("accuracy", target, output)
        return km.BinaryAccuracy(threshold=cut) if type(made) is km.BinaryAccuracy else made

    return make


def _threshold(metric: Any) -> float:
    """Where the answer to a yes-or-no question becomes a yes, in what the model says."""
    at = float(metric.options["threshold"])
    return float(np.log(at) - np.log1p(-at)) if metric.options["from_logits"] else at


def _made_by(make: Callable[..., Any], **settings: Any) -> Callable[[Any], Maker]:
    return lambda metric: lambda target, output: make(**settings)


_FORMS: Mapping[type[Metric], Callable[[Any], Maker]] = {
    orca.Accuracy: _accuracy,
    orca.BinaryAccuracy: lambda m: _made_by(km.BinaryAccuracy, threshold=_threshold(m))(m),
    orca.CategoricalAccuracy: _made_by(km.CategoricalAccuracy),
    orca.MAE: _made_by(km.MeanAbsoluteError),
    orca.MSE: _made_by(km.MeanSquaredError),
    orca.SparseCategoricalAccuracy: _made_by(km.SparseCategoricalAccuracy),
    orca.Top5Accuracy: _made_by(km.SparseTopKCategoricalAccuracy, k=5),
}
"""Metrics of ours that Keras computes to the same numbers."""


class KerasMetrics:
    """What a model was compiled with, its own metrics, and those given to the estimator.

    The variables of a metric are sums over rows, so those of parts of the data add up to those of
    all: one vector in double precision. A function that gives one number for a batch is averaged
    over rows; Keras averages such numbers over batches, however many rows these have. Weights of
    rows are for `weighted_metrics` alone, as in Keras.

    Args:
        model: Compiled, or nothing but `given` is measured.
        given: From `running_metrics`.
    """

    def __init__(self, model: Any, given: Mapping[str, GivenMetric] | None = None) -> None:
        self._model, self._given = model, dict(given or {})
        self._added: dict[str, tuple[km.Metric, int]] = {}
        self._gathered: dict[str, tuple[RunningMetric, int]] = {}
        for name, metric in self._given.items():
            if metric.gathers:
                self._gathered[name] = (metric.make(None, None), metric.output)
        self._own_update = (
            type(model).compute_metrics is not keras.Model.compute_metrics  # it is overridden
        )
        self._shapes: Any = None
        self._doubtful: list[km.Metric] = []
        self._sum = np.zeros(0)
        self._updates = 0

    @property
    def built(self) -> bool:
        """Whether the metrics have their variables."""
        return self._shapes is not None

    @property
    def variables(self) -> list[Any]:
        """The variables of Keras that `update` changes, in the order of the vector."""
        return [variable for metric in self._leaves() for variable in metric.variables]

    @property
    def size(self) -> int:
        """Numbers in the vector."""
        return sum(int(np.prod(v.shape)) for v in self.variables)

    @property
    def doubtful(self) -> bool:
        """Whether `require_sums` has something to try."""
        return bool(self._doubtful)

    @property
    def gathers(self) -> bool:
        """Whether there are metrics that torch computes, which `add` and `gather` show batches."""
        return bool(self._gathered)

    def build(self, y: Any, y_pred: Any, x: Any = None) -> None:
        """Make the metrics' variables, outside of any graph; a second call does nothing.

        Args:
            y: Targets: arrays or tensors of any backend, or symbolic ones; only shapes and types
                of rows count.
            y_pred: What the model gives for them, in its structure.
            x: Features, for models that compute metrics in a way of their own.

        Raises:
            InputError: A metric keeps nothing in variables.
        """
        if self.built:
            return
        shapes = [_shape(y), _shape(y_pred), _shape(x)]
        y, y_pred, x = map(_blank, shapes)
        compiled, loss = self._model._compile_metrics, self._model._compile_loss
        if compiled is not None and not compiled.built:
            compiled.build(y, y_pred)
        if loss is not None and not loss.built:
            loss(y, y_pred)
        for name, metric in self._given.items():
            if name not in self._gathered:
                target, output = _of_output(y, metric.output), _of_output(y_pred, metric.output)
                self._added[name] = (metric.make(target, output), metric.output)
        for leaf in self._leaves():
            if type(leaf) is km.MeanMetricWrapper:
                leaf._fn = _over_rows(leaf._fn)
        # Some metrics make their variables when they see their first rows.
        self.update(y, y_pred, None, x)
        self.reset()
        for leaf in self._leaves():
            if not leaf.variables:
                raise InputError(
                    f"a metric that keeps its sums in variables, as {leaf.name!r}",
                    f"{type(leaf).__name__} without any",
                    "Make them with self.add_variable in its __init__, so that they can be added "
                    "up over the parts of the data.",
                )
        self._doubtful = [leaf for leaf in self._leaves() if type(leaf) not in _ADDITIVE]
        self._shapes = shapes

    def update(self, y: Any, y_pred: Any, weights: Any, x: Any = None) -> None:
        """Take in a batch; may be part of a graph, after `build`.

        Args:
            y: Targets.
            y_pred: Outputs.
            weights: Of rows, for `weighted_metrics`; None when all count alike.
            x: Features, for models that compute metrics in a way of their own.
        """
        if self._own_update:
            self._model.compute_metrics(x, y, y_pred, sample_weight=weights)
        elif self._model._compile_metrics is not None:
            self._model._compile_metrics.update_state(y, y_pred, weights)
        for metric, output in self._added.values():
            metric.update_state(_of_output(y, output), _of_output(y_pred, output))

    def add(self, y: Any, y_pred: Any, weights: Any, x: Any = None) -> None:
        """Take in a batch of an evaluation, outside of any graph; see `update`.

        Raises:
            InputError: The states of a metric do not add up.
        """
        self.build(y, y_pred, x)
        self.require_sums(y, y_pred, weights, x)
        self.update(y, y_pred, weights, x)
        self.gather(y, y_pred)
        self.move()

    def move(self) -> None:
        """Now and then, take what `update` has summed in single precision into doubles."""
        self._updates += 1
        if self._updates % _MOVE == 0:
            self._move()

    def gather(self, y: Any, y_pred: Any) -> None:
        """Let metrics see a batch that torch computes; there may be none.

        Args:
            y: Targets.
            y_pred: Outputs.
        """
        if not self._gathered:
            return
        torch = load_extra("torch", "torch")
        for metric, output in self._gathered.values():
            parts = (_of_output(y_pred, output), _of_output(y, output))
            preds, targets = (torch.from_numpy(np.array(ops.convert_to_numpy(p))) for p in parts)
            metric(preds, targets)

    def require_sums(self, y: Any, y_pred: Any, weights: Any, x: Any = None) -> None:
        """Try metrics that are not Keras's own: the states of parts must add up to the whole.

        A metric that has passed is not tried again; one that has seen nothing but zeros is. What
        the metrics had seen is left as it was.

        Args:
            y: See `update`; a batch of two rows or more, or nothing is tried.
            y_pred: The same.
            weights: The same.
            x: The same.

        Raises:
            InputError: They do not.
        """
        rows = len(tree.flatten(y_pred)[0])
        if not self._doubtful or rows < 2:
            return
        # By what the model says, so that parts have little in common; and cut in two places, as
        # numbers of few rows add up by chance.
        first = ops.convert_to_numpy(tree.flatten(y_pred)[0])
        order = np.argsort(first.reshape(rows, -1)[:, 0], kind="stable")
        batch = [_ordered(part, order) for part in (y, y_pred, weights, x)]
        seen = self.take()
        whole = self._tried(batch, slice(0, rows))
        for cut in {rows // 2, max(1, rows // 3)}:
            parts = [self._tried(batch, part) for part in (slice(0, cut), slice(cut, rows))]
            for leaf, one, other, both in zip(self._doubtful, *parts, whole, strict=True):
                _require_sum(leaf, one, other, both)
        self._put(seen)
        told = zip(self._doubtful, whole, strict=True)
        self._doubtful = [leaf for leaf, state in told if not state.any()]

    def _tried(self, batch: Sequence[Any], part: slice) -> list[np.ndarray]:
        """The states of metrics that are tried, after some rows."""
        self.update(*(_rows(each, part) for each in batch))
        states = [_vector(leaf.variables) for leaf in self._doubtful]
        self.reset()
        return states

    def take(self) -> np.ndarray:
        """The sums since the last time as one vector; the metrics begin anew."""
        vector = _vector(self.variables)
        self.reset()
        return vector

    def reset(self) -> None:
        """Forget what was seen since the last `take`."""
        for metric in self._leaves():
            metric.reset_state()

    def values(self, vector: np.ndarray) -> dict[str, Any]:
        """The numbers of a vector, or of a sum of vectors, by the names that Keras has for them.

        Args:
            vector: From `take`.
        """
        seen = self.take()
        self._put(vector)
        found: dict[str, Any] = {}
        for name, value in self._model.get_metrics_result().items():
            found |= _told(name, value)
        found.pop("loss", None)
        for name, (metric, _) in self._added.items():
            found |= _told(name, metric.result())
        self._put(seen)
        return found

    def sums(self) -> list[Any]:
        """What was seen, as plain values for JSON; an empty list when it was nothing."""
        if not self.built:
            return []
        self._move()
        gathered = {n: packed(m.state().cpu().numpy()) for n, (m, _) in self._gathered.items()}
        return [self._shapes, packed(self._sum), gathered]

    def load(self, sums: Sequence[Any]) -> None:
        """Put what `sums` returned in the place of what was seen.

        Args:
            sums: From these metrics, perhaps in another process; empty to forget all.
        """
        if self.built:
            self.reset()
        self._sum = np.zeros(0)
        for metric, _ in self._gathered.values():
            metric.reset()
        if not sums:
            return
        shapes, vector, gathered = sums
        self.build(*map(_blank, shapes))
        self._sum = unpacked(vector)
        for name, (metric, _) in self._gathered.items():
            _load(metric, [unpacked(gathered[name])])

    def result(self, parts: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """The numbers of all parts of the data together.

        Args:
            parts: From `sums`, of any ranks and partitions.
        """
        parts = [part for part in parts if part]
        if not parts:
            return {}
        shapes, vectors, gathered = zip(*parts, strict=True)
        self.build(*map(_blank, shapes[0]))
        found = self.values(np.sum([unpacked(text) for text in vectors], axis=0))
        for name, (metric, _) in self._gathered.items():
            _load(metric, [unpacked(part[name]) for part in gathered])
            found |= _told(name, metric.compute())
        return found

    def _move(self) -> None:
        vector = self.take()
        self._sum = self._sum + vector if len(self._sum) else vector

    def _put(self, vector: np.ndarray) -> None:
        at = 0
        for variable in self.variables:
            size = int(np.prod(variable.shape))
            part = vector[at : at + size].reshape(tuple(variable.shape))
            variable.assign(part.astype(variable.dtype))
            at += size

    def _leaves(self) -> list[km.Metric]:
        """All metrics but the loss, which the training adds up itself."""
        leaves: list[km.Metric] = []
        for metric in self._model.metrics:
            if metric is not self._model._loss_tracker:
                leaves += metric.metrics if isinstance(metric, CompileMetrics) else [metric]
        return leaves + [metric for metric, _ in self._added.values()]


def _of_output(values: Any, output: int) -> Any:
    parts = tree.flatten(values)
    if output >= len(parts):
        raise InputError(
            f"{output + 1} outputs with their targets, one for each list of metrics",
            f"{len(parts)}",
            "Give as many label_cols as the model has outputs.",
        )
    return parts[output]


def _rows(values: Any, part: slice) -> Any:
    """Some rows, in the same structure."""
    if isinstance(values, Mapping):
        return {name: _rows(value, part) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_rows(value, part) for value in values]
    return None if values is None else values[part]


def _ordered(values: Any, order: np.ndarray) -> Any:
    """Rows in another order, in the same structure."""
    if isinstance(values, Mapping):
        return {name: _ordered(value, order) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_ordered(value, order) for value in values]
    return None if values is None else ops.convert_to_tensor(ops.convert_to_numpy(values)[order])


def _over_rows(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function; one number for a batch counts for each of its rows."""

    def measure(y: Any, y_pred: Any, **settings: Any) -> Any:
        values = function(y, y_pred, **settings)
        if len(values.shape) or getattr(y_pred, "_keras_mask", None) is not None:
            return values
        return ops.broadcast_to(values, (ops.shape(y_pred)[0],))

    return measure


def _vector(variables: Sequence[Any]) -> np.ndarray:
    parts = [np.asarray(variable.numpy(), np.float64).ravel() for variable in variables]
    return np.concatenate([np.zeros(0), *parts])


def _require_sum(metric: km.Metric, one: np.ndarray, other: np.ndarray, both: np.ndarray) -> None:
    """States that are not finite say nothing."""
    scale = np.abs(one) + np.abs(other) + np.abs(both)
    if (np.abs(one + other - both) > _NEAR * scale).any():
        raise InputError(
            f"metrics whose states add up over the parts of the data, as {metric.name!r}",
            f"{type(metric).__name__}, which gives other numbers for the parts of a batch than "
            "for the whole",
            "Return one value for each row from a function, or derive a class from "
            "keras.metrics.Metric whose variables are sums over rows; keras.metrics has "
            "Precision, Recall, F1Score and R2Score.",
        )


def _told(name: str, value: Any) -> dict[str, Any]:
    """A value as results have it: numbers, and lists of them for vectors and matrices."""
    if isinstance(value, Mapping):
        told = [_told(f"{name}_{key}", each) for key, each in value.items()]
        return {key: each for part in told for key, each in part.items()}
    array = np.asarray(value.numpy() if hasattr(value, "numpy") else value, np.float64)
    return {name: array.tolist() if array.ndim else float(array)}


def _load(metric: RunningMetric, states: Sequence[np.ndarray]) -> None:
    torch = load_extra("torch", "torch")
    if isinstance(metric, GatheredMetric):
        metric.load_states([torch.from_numpy(state) for state in states])
    else:
        metric.load_state(torch.from_numpy(np.sum(states, axis=0)))


def _shape(values: Any) -> Any:
    """Structure, shapes of rows and types, for JSON."""
    if isinstance(values, Mapping):
        return {"parts": {name: _shape(value) for name, value in values.items()}}
    if isinstance(values, list | tuple):
        return [_shape(value) for value in values]
    if values is None:
        return None
    dtype = keras.backend.standardize_dtype(values.dtype)
    return {"shape": [int(n or 1) for n in values.shape[1:]], "dtype": dtype}


def _blank(shape: Any) -> Any:
    """One row of zeros."""
    if shape is None:
        return None
    if isinstance(shape, list):
        return [_blank(each) for each in shape]
    if "parts" in shape:
        return {name: _blank(each) for name, each in shape["parts"].items()}
    kind = shape["dtype"]
    # Whole numbers as arrays: JAX warns of those with 64 bits.
    return (np if "int" in kind else ops).zeros((1, *shape["shape"]), dtype=kind)
