"""Metrics of Keras models: the same numbers as Keras's own evaluate, however rows are split."""

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import cloudpickle
import keras
import numpy as np
import pytest
from keras import layers, ops
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from zoo.errors import InputError
from zoo.orca.learn.keras.metrics import given_metrics, running_metrics
from zoo.orca.learn.metrics import (
    AUC,
    MSE,
    Accuracy,
    AveragePrecision,
    ConfusionMatrix,
    F1Score,
    Metric,
    Top5Accuracy,
)

cloudpickle.register_pickle_by_value(sys.modules[__name__])

if keras.backend.backend() != "tensorflow":
    pytestmark = pytest.mark.slow  # in a process of its own; JAX compiles for long

Maker = Callable[[], Any]
ROWS = 120
M = keras.metrics


def compiled(outputs: int, activation: str | None, **settings: Any) -> keras.Model:
    """One layer on three features, with fixed weights."""
    inputs = layers.Input((3,))
    model = keras.Model(inputs, layers.Dense(outputs, activation, name="out")(inputs))
    weights = np.random.default_rng(5).normal(size=(3, outputs)).astype("float32") * 1.5
    model.set_weights([weights, np.zeros(outputs, "float32")])
    model.compile(optimizer="sgd", run_eagerly=True, **settings)
    return model


def features(rows: int = ROWS) -> np.ndarray:
    return np.random.default_rng(3).normal(size=(rows, 3)).astype("float32")


def in_parts(
    make: Callable[[], Any],
    x: Any,
    y: Any,
    weights: Any = None,
    given: Any = None,
    cuts: Any = None,
) -> dict[str, Any]:
    """Measured in parts, one of them empty, and put together by a model that has seen no row."""
    cuts = cuts or [0, 1, 1, 8, ROWS]
    model, parts = make(), []
    for low, high in zip(cuts[:-1], cuts[1:], strict=True):
        metrics = running_metrics(given, model)
        for start in range(low, high, 64):
            rows = slice(start, min(high, start + 64))
            batch = [_rows(part, rows) for part in (y, weights)]
            metrics.add(batch[0], model(_rows(x, rows), training=False), batch[1], _rows(x, rows))
        parts.append(json.loads(json.dumps(metrics.sums())))
    sent = cloudpickle.loads(cloudpickle.dumps(given_metrics(given)))
    return running_metrics(sent, make()).result(parts)


def _rows(values: Any, rows: slice) -> Any:
    if isinstance(values, list):
        return [value[rows] for value in values]
    return None if values is None else ops.convert_to_tensor(values[rows])


def plain(make: Maker, x: Any, y: Any, weights: Any = None) -> dict[str, Any]:
    found = make().evaluate(x, y, sample_weight=weights, return_dict=True, verbose=0, batch_size=80)
    return {name: np.asarray(v).tolist() for name, v in found.items() if name != "loss"}


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert sorted(one) == sorted(other)
    for name, value in one.items():
        np.testing.assert_allclose(value, other[name], rtol=1e-5, atol=1e-6, err_msg=name)


BINARY = (
    "accuracy", "AUC", "mse", "hinge", "Precision", "Recall", "TruePositives", "FalseNegatives",
    M.AUC(curve="PR", name="pr"), M.PrecisionAtRecall(0.7), M.SensitivityAtSpecificity(0.5),
    M.BinaryIoU(), M.F1Score(threshold=0.5), M.Precision(thresholds=[0.2, 0.8], name="cuts"),
    "binary_crossentropy", M.LogCoshError(),
)  # fmt: skip
"""What Keras has for answers to a yes-or-no question."""


@pytest.mark.parametrize("positives", ["many", "one", "none", "all"])
def test_binary_metrics_equal_those_of_keras(positives: str) -> None:
    y = np.random.default_rng(1).integers(0, 2, (ROWS, 1)).astype("float32")
    if positives != "many":
        y[:] = float(positives == "all")
        y[7] = float(positives != "none")
    weights = np.random.default_rng(2).gamma(1.0, size=ROWS).astype("float32")
    weights[:20] = 0.0

    def make() -> keras.Model:
        settings = [
            m if isinstance(m, str) else type(m).from_config(m.get_config()) for m in BINARY
        ]
        return compiled(
            1, "sigmoid", loss="binary_crossentropy", metrics=settings,
            weighted_metrics=["accuracy", M.AUC(name="auc_w"), M.Precision(name="p_w")],
        )  # fmt: skip

    found = in_parts(make, features(), y, weights)
    assert_same(found, plain(make, features(), y, weights))
    assert {"accuracy", "AUC", "pr", "weighted_accuracy"} <= set(found)


def test_metrics_of_classes_equal_those_of_keras() -> None:
    y = np.random.default_rng(1).choice(6, ROWS, p=[0.6, 0.3, 0.07, 0.02, 0.01, 0.0])

    def sparse() -> keras.Model:
        found = [
            "accuracy",
            M.SparseTopKCategoricalAccuracy(2, name="top2"),
            "sparse_categorical_crossentropy",
        ]
        found.append(M.MeanIoU(6, name="iou", sparse_y_pred=False))
        return compiled(6, "softmax", loss="sparse_categorical_crossentropy", metrics=found)

    def one_hot() -> keras.Model:
        found = [
            "acc",
            "categorical_crossentropy",
            "kl_divergence",
            M.F1Score(),
            M.F1Score("macro", name="f1"),
            M.OneHotMeanIoU(6, name="iou"),
        ]
        return compiled(6, "softmax", loss="categorical_crossentropy", metrics=found)

    for make, target in ((sparse, y), (one_hot, np.eye(6, dtype="float32")[y])):
        found = in_parts(make, features(), target)
        assert_same(found, plain(make, features(), target))
    assert len(found["f1_score"]) == 6


def test_metrics_of_numbers_equal_those_of_keras() -> None:
    y = (features() @ np.array([[1.0, 0], [2, 1], [0, -1]]) + 3).astype("float32")

    def make() -> keras.Model:
        found = ["mae", "mape", "msle", "cosine_similarity", M.RootMeanSquaredError()]
        found += [M.R2Score(), M.MeanSquaredError(name="again"), M.PearsonCorrelation(), "poisson"]
        return compiled(2, "softplus", loss="mse", metrics=found)

    assert_same(in_parts(make, features(), y), plain(make, features(), y))


def two_outputs(**settings: Any) -> keras.Model:
    inputs = layers.Input((3,))
    yes = layers.Dense(1, "sigmoid", name="yes", kernel_initializer="ones")(inputs)
    number = layers.Dense(1, name="number", kernel_initializer="ones")(inputs)
    model = keras.Model(inputs, [yes, number])
    losses = ["binary_crossentropy", "mse"]
    model.compile(optimizer="sgd", loss=losses, run_eagerly=True, **settings)
    return model


@pytest.mark.parametrize(
    "metrics", [[["accuracy", "AUC"], ["mae"]], {"number": ["mae", "mse"], "yes": "accuracy"}]
)
def test_metrics_of_several_outputs_have_their_names(metrics: Any) -> None:
    y = [np.random.default_rng(1).integers(0, 2, (ROWS, 1)), features()[:, :1]]
    weights = np.random.default_rng(2).random(ROWS).astype("float32")

    def make() -> keras.Model:
        return two_outputs(metrics=metrics, weighted_metrics=[["mse"], ["mae"]])

    found = in_parts(make, features(), y, weights)
    # The losses of outputs are summed where the loss is computed, which nobody does here.
    losses = {name: found.pop(name) for name in ("yes_loss", "number_loss")}
    assert losses == {"yes_loss": 0.0, "number_loss": 0.0}
    expected = plain(make, features(), y, weights)
    assert_same(found, {n: v for n, v in expected.items() if n not in losses})
    assert {"yes_accuracy", "number_mae", "number_weighted_mae"} <= set(found)


def test_one_number_for_a_batch_counts_for_each_of_its_rows() -> None:
    def off_by(y: Any, y_pred: Any) -> Any:
        return ops.mean(ops.abs(y - y_pred))

    y = features()[:, :1] * 3

    def make() -> keras.Model:
        return compiled(1, None, loss="mse", metrics=[off_by, "mae"])

    found = in_parts(make, features(), y, cuts=[0, 100, 103, ROWS])
    assert found["off_by"] == pytest.approx(found["mae"], rel=1e-6)


def of_the_batch(y: Any, y_pred: Any) -> Any:
    """F1 as old notebooks have it: of the rows that happen to be together."""
    hits = ops.sum(ops.round(y * y_pred))
    precision = hits / (ops.sum(ops.round(y_pred)) + 1e-7)
    recall = hits / (ops.sum(y) + 1e-7)
    return 2 * precision * recall / (precision + recall + 1e-7)


class Largest(keras.metrics.Metric):
    """A state that is no sum."""

    def __init__(self, name: str = "largest") -> None:
        super().__init__(name=name)
        self.most = self.add_variable((), "zeros", name="most")

    def update_state(self, y: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.most.assign(ops.maximum(self.most, ops.max(ops.abs(y_pred))))

    def result(self) -> Any:
        return self.most


class Signs(Largest):
    """A state that is a sum."""

    def update_state(self, y: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.most.assign_add(ops.sum(ops.cast(y_pred > 0, "float32")))


class Notes(Largest):
    """A state in no variable."""

    def __init__(self, name: str = "notes") -> None:
        keras.metrics.Metric.__init__(self, name=name)
        self.seen: list[Any] = []

    def update_state(self, y: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.seen.append(y)

    def result(self) -> Any:
        return len(self.seen)


@pytest.mark.parametrize(
    ("metric", "match"),
    [
        (of_the_batch, "add up over the parts of the data, as 'of_the_batch'"),
        (Largest(), "as 'largest'.*derive a class from"),
        (Notes(), "keeps its sums in variables, as 'notes'.*add_variable"),
    ],
)
def test_metric_that_does_not_add_up_is_refused_at_the_first_batch(metric: Any, match: str) -> None:
    y = np.random.default_rng(1).integers(0, 2, (ROWS, 1)).astype("float32")
    model = compiled(1, "sigmoid", loss="binary_crossentropy", metrics=[metric])
    with pytest.raises(InputError, match=match):
        running_metrics(None, model).add(y[:40], model(features(40)), None)


def test_metric_of_the_user_that_adds_up_is_measured() -> None:
    y = features()[:, :1]

    def make() -> keras.Model:
        return compiled(1, None, loss="mse", metrics=[Signs()])

    positive = float((make().predict(features(), verbose=0) > 0).sum())
    assert in_parts(make, features(), y) == {"largest": positive}


def test_sums_are_kept_in_double_precision() -> None:
    model = compiled(1, None, loss="mse", metrics=[Counts()])
    metrics = running_metrics(None, model)
    for _ in range(2):
        for _ in range(16):
            metrics.add(np.zeros((2, 1), "float32"), ops.zeros((2, 1)), None)
    vector = metrics.take() + 0
    assert metrics.size == len(vector) == 1
    (shapes, _, _) = metrics.sums()
    assert shapes[1] == {"shape": [1], "dtype": "float32"}
    assert metrics.values(np.array([2.0**24])) == {"largest": 2.0**24}
    # A count that single precision cannot hold: two parts of 2 ** 24 and one row.
    assert metrics.result([metrics.sums()]) == {"largest": 32.0 * 2**19}


class Counts(Largest):
    """Adds 2 ** 19 for a batch."""

    def update_state(self, y: Any, y_pred: Any, sample_weight: Any = None) -> None:
        self.most.assign_add(ops.cast(ops.shape(y_pred)[0], "float32") * 2.0**18)


class OwnMetrics(keras.Model):
    """Adds up its loss itself, and another number in a way of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = layers.Dense(1, kernel_initializer="ones")
        self.layer.build((None, 3))
        self.tracker = keras.metrics.Mean(name="spread")

    def call(self, x: Any) -> Any:
        return self.layer(x)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        self.tracker.update_state(ops.max(y_pred - y, axis=-1))
        return super().compute_metrics(x, y, y_pred, sample_weight)


def test_metrics_of_a_model_of_the_user_are_measured() -> None:
    def make() -> keras.Model:
        model = OwnMetrics()
        model.compile(optimizer="sgd", loss="mse", metrics=["mae"], run_eagerly=True)
        return model

    y = features()[:, :1]
    assert_same(in_parts(make, features(), y), plain(make, features(), y))


def test_metrics_given_to_the_estimator_join_those_of_the_model() -> None:
    y = np.random.default_rng(1).integers(0, 2, (ROWS, 1)).astype("float32")
    given = [Accuracy(), AUC(), AveragePrecision(), F1Score(), ConfusionMatrix(), "mae", MSE()]

    def make() -> keras.Model:
        return compiled(1, "sigmoid", loss="binary_crossentropy", metrics=["accuracy"])

    found = in_parts(make, features(), y, given=[*given, keras.metrics.AUC(name="near")])
    scores = make().predict(features(), verbose=0).astype(float)
    truth, answers = y.ravel(), scores.ravel() > 0.5
    assert found["Accuracy"] == found["accuracy"] == pytest.approx(np.mean(truth == answers))
    assert found["AUC"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-9)
    assert found["near"] == pytest.approx(found["AUC"], abs=0.01)
    assert found["AveragePrecision"] == pytest.approx(average_precision_score(truth, scores))
    assert found["F1Score"] == pytest.approx(f1_score(truth, answers))
    assert np.sum(found["ConfusionMatrix"]) == ROWS
    assert found["mae"] == pytest.approx(np.abs(truth - scores.ravel()).mean(), rel=1e-5)
    assert found["MSE"] == pytest.approx(((truth - scores.ravel()) ** 2).mean(), rel=1e-5)


def test_metrics_given_for_each_output() -> None:
    y = [np.random.default_rng(1).integers(0, 2, (ROWS, 1)), features()[:, :1]]
    found = in_parts(two_outputs, features(), y, given=[[Accuracy(), "mae"], ["mae"]])
    expected = plain(lambda: two_outputs(metrics=[["accuracy", "mae"], ["mae"]]), features(), y)
    assert found["Accuracy"] == pytest.approx(expected["yes_accuracy"])
    assert found["output_0_mae"] == pytest.approx(expected["yes_mae"], rel=1e-6)
    assert found["output_1_mae"] == pytest.approx(expected["number_mae"], rel=1e-6)
    with pytest.raises(InputError, match="3 outputs with their targets"):
        in_parts(two_outputs, features(), y, given=[["mae"], [], ["mse"]])


def test_top5_and_threshold_of_logits_are_those_of_the_torch_metrics() -> None:
    y = np.random.default_rng(1).integers(0, 9, ROWS)

    def classes() -> keras.Model:
        return compiled(9, None, loss="mse")

    scores = classes().predict(features(), verbose=0)
    top = np.mean([label in np.argsort(-row)[:5] for label, row in zip(y, scores, strict=True)])
    assert in_parts(classes, features(), y, given=Top5Accuracy()) == {
        "Top5Accuracy": pytest.approx(top)
    }
    answers = (y[:, None] > 4).astype("float32")
    given = [Accuracy(from_logits=True)]
    logits = compiled(1, None, loss="mse").predict(features(), verbose=0)
    found = in_parts(lambda: compiled(1, None, loss="mse"), features(), answers, given=given)
    assert found["Accuracy"] == pytest.approx(np.mean((logits > 0) == answers))


def test_nothing_seen_gives_nothing() -> None:
    metrics = running_metrics([AUC()], compiled(1, None, loss="mse", metrics=["mae"]))
    assert metrics.sums() == []
    assert metrics.result([[], []]) == {}


def test_sums_go_on_in_another_process() -> None:
    y = np.random.default_rng(1).integers(0, 2, (ROWS, 1)).astype("float32")

    def make() -> keras.Model:
        return compiled(1, "sigmoid", loss="binary_crossentropy", metrics=["accuracy", "AUC"])

    first, model = running_metrics([AUC()], make()), make()
    first.add(y[:50], model(features()[:50]), None)
    later = running_metrics([AUC()], model)
    later.load(json.loads(json.dumps(first.sums())))
    later.add(y[50:], model(features()[50:]), None)
    expected = in_parts(make, features(), y, given=[AUC()])
    assert_same(later.result([later.sums()]), expected)


@pytest.mark.parametrize(
    ("given", "match"),
    [
        (["acuracy"], "the name of a metric of Keras; received 'acuracy'"),
        ([7], "Only orca metrics and those of Keras"),
        (["mae", "mae"], "two under 'mae'"),
        ([Accuracy(zero_based_label=False)], "labels that start at 0"),
        ([Metric()], "a metric with a torch computation"),
    ],
)
def test_what_is_no_metric_is_refused(given: Sequence[Any], match: str) -> None:
    with pytest.raises((InputError, NotImplementedError), match=match):
        running_metrics(given, compiled(1, None, loss="mse"))
