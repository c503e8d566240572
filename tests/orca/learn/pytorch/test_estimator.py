"""What the estimator promises, compared with plain torch on the same rows."""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from pyspark import cloudpickle
from pyspark.ml.functions import array_to_vector
from pyspark.ml.linalg import DenseVector
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql import types as T
from sklearn.metrics import accuracy_score, mean_absolute_error, mean_squared_error
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from zoo.orca.learn.metrics import MAE, MSE, Accuracy
from zoo.orca.learn.pytorch import Estimator

# Ranks cannot import a test module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.spark

ROWS, BATCH = 64, 16
COLUMNS = [
    "float(sin(id)) a",
    "float(cos(3 * id)) b",
    "float(sin(id) - 2 * cos(3 * id) + 1) y",
    "float(sin(5 * id)) z",
    "id % 3 k",
    "id div 16 part",
]


@pytest.fixture(scope="module")
def frame(spark: SparkSession) -> Iterator[DataFrame]:
    """64 rows in one partition, so that an unshuffled batch is the next 16 of them."""
    made = spark.range(0, ROWS, 1, 1).selectExpr("id", *COLUMNS).persist()
    yield made
    made.unpersist()


@pytest.fixture(scope="module")
def rows(frame: DataFrame) -> pd.DataFrame:
    return frame.toPandas()


@pytest.fixture
def uneven(frame: DataFrame) -> DataFrame:
    """The same rows in five partitions: of 1, 3, 20, 40 and none."""
    pairs = frame.rdd.keyBy(lambda row: row["id"])
    parts = pairs.partitionBy(5, lambda i: 0 if i < 1 else 1 if i < 4 else 2 if i < 24 else 3)
    return frame.sparkSession.createDataFrame(parts.values(), frame.schema)


def linear(width: int = 2, outputs: int = 1) -> nn.Module:
    torch.manual_seed(7)
    layer = nn.Linear(width, outputs)
    return nn.Sequential(layer, nn.Flatten(0)) if outputs == 1 else layer


def sgd(model: nn.Module, config: dict[str, Any]) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def adam(model: nn.Module, config: dict[str, Any]) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.05)


def estimator(model: Any = None, loss: Any = None, **given: Any) -> Any:
    given = {"optimizer": sgd, "config": {"shuffle": False}} | given
    return Estimator.from_torch(
        model=linear() if model is None else model, loss=loss or nn.MSELoss(), **given
    )


def fit(est: Any, data: Any, epochs: int = 2, **given: Any) -> Any:
    named = {"feature_cols": ["a", "b"], "label_cols": ["y"], "batch_size": BATCH}
    return est.fit(data, epochs=epochs, **(named | given))


def plain(
    model: nn.Module,
    loss: Callable[..., torch.Tensor],
    inputs: Sequence[torch.Tensor],
    target: torch.Tensor,
    *,
    make: Callable[..., torch.optim.Optimizer] = sgd,
    epochs: int = 2,
) -> nn.Module:
    """The same training in a loop over the rows in memory."""
    optimizer = make(model, {})
    model.train()
    for _ in range(epochs):
        for at in range(0, len(target), BATCH):
            optimizer.zero_grad()
            loss(model(*(x[at : at + BATCH] for x in inputs)), target[at : at + BATCH]).backward()
            optimizer.step()
    return model


def tensors(rows: pd.DataFrame) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(rows[["a", "b"]].to_numpy()), torch.tensor(rows["y"].to_numpy())


def assert_same(left: nn.Module, right: nn.Module, tolerance: float = 1e-6) -> None:
    for (name, one), other in zip(
        left.state_dict().items(), right.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=1e-5, msg=name)


# Results of fit.


def test_fit_gives_a_dict_for_each_epoch(frame: DataFrame) -> None:
    first, second = fit(estimator(), frame)
    losses = {"train_loss", "last_train_loss"}
    assert set(first) == {"epoch", "batch_count", "num_samples", "lr"} | losses
    assert (first["epoch"], first["batch_count"], first["num_samples"]) == (1, 4, ROWS)
    assert second["epoch"] == 2
    assert second["train_loss"] < first["train_loss"]


def test_train_loss_is_the_mean_over_rows(frame: DataFrame, rows: pd.DataFrame) -> None:
    est = estimator(optimizer=lambda m, c: torch.optim.SGD(m.parameters(), lr=0.0))
    (epoch,) = fit(est, frame, epochs=1, batch_size=15)
    x, y = tensors(rows)
    with torch.no_grad():
        assert epoch["train_loss"] == pytest.approx(nn.MSELoss()(linear()(x), y).item(), rel=1e-5)


def test_epochs_count_on(frame: DataFrame) -> None:
    est = estimator()
    assert [e["epoch"] for _ in range(2) for e in fit(est, frame)] == [1, 2, 3, 4]


@pytest.mark.parametrize("make", [sgd, adam])
def test_two_fits_are_one_long_fit(frame: DataFrame, make: Any) -> None:
    once = estimator(optimizer=make, config={})
    twice = estimator(optimizer=make, config={})
    fit(once, frame, epochs=2)
    fit(twice, frame, epochs=1)
    fit(twice, frame, epochs=1)
    assert_same(once.get_model(), twice.get_model(), tolerance=0)


def test_results_of_each_rank(frame: DataFrame) -> None:
    epochs = fit(estimator(workers_per_node=2), frame, reduce_results=False)
    assert [[e["epoch"] for e in ranks] for ranks in epochs] == [[1, 1], [2, 2]]
    assert [sum(e["num_samples"] for e in ranks) for ranks in epochs] == [ROWS, ROWS]
    assert epochs[0][0]["train_loss"] != epochs[0][1]["train_loss"]


def test_profile_tells_seconds(frame: DataFrame) -> None:
    (epoch,) = fit(estimator(), frame, epochs=1, profile=True)
    parts = epoch["profile"]
    assert parts["mean_train_epoch_s"] > 0
    assert all(0 <= s <= parts["mean_train_epoch_s"] for s in parts.values())
    assert len(parts) == 4


def test_validation_is_what_evaluate_gives(frame: DataFrame) -> None:
    est = estimator(metrics=[MAE()])
    last = fit(est, frame, validation_data=frame)[-1]
    after = est.evaluate(frame, feature_cols=["a", "b"], label_cols=["y"])
    assert last["val_loss"] == pytest.approx(after["val_loss"], rel=1e-5)
    assert last["val_MAE"] == pytest.approx(after["MAE"], rel=1e-5)


def test_training_equals_plain_torch(frame: DataFrame, rows: pd.DataFrame) -> None:
    est = estimator()
    fit(est, frame)
    x, y = tensors(rows)
    assert_same(est.get_model(), plain(linear(), nn.MSELoss(), [x], y), tolerance=1e-7)


@pytest.mark.parametrize("ranks", [1, 2])
def test_summed_loss_equals_plain_torch(frame: DataFrame, rows: pd.DataFrame, ranks: int) -> None:
    def slow(model: nn.Module, config: dict[str, Any]) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.01)

    loss = nn.MSELoss(reduction="sum")
    est = estimator(loss=loss, optimizer=slow, workers_per_node=ranks)
    fit(est, frame)
    x, y = tensors(rows)
    assert_same(est.get_model(), plain(linear(), loss, [x], y, make=slow))


# What is trained.


def test_creators_get_the_config(frame: DataFrame) -> None:
    est = Estimator.from_torch(
        model=lambda config: linear(config["width"]),
        optimizer=lambda model, config: torch.optim.SGD(model.parameters(), lr=config["lr"]),
        loss=lambda config: nn.HuberLoss(delta=config["delta"]),
        scheduler_creator=lambda optimizer, config: StepLR(optimizer, config["every"]),
        config={"width": 2, "lr": 0.1, "delta": 2.0, "every": 3},
    )
    first, last = fit(est, frame)
    assert last["train_loss"] < first["train_loss"]


class OwnLoss(nn.Module):
    """Its output is the loss of each row."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = linear()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = (self.inner(x) - y) ** 2
        return out


def test_without_loss_the_output_is_the_loss(frame: DataFrame, rows: pd.DataFrame) -> None:
    est = Estimator.from_torch(model=OwnLoss(), optimizer=sgd, config={"shuffle": False})
    est.fit(frame, epochs=2, batch_size=BATCH, feature_cols=[["a", "b"], "y"])
    x, y = tensors(rows)
    assert_same(est.get_model().inner, plain(linear(), nn.MSELoss(), [x], y))


@pytest.mark.parametrize(("when", "expected"), [("batch", 0.5**8), ("epoch", 0.5**2), (None, 1.0)])
def test_schedule_advances(frame: DataFrame, when: str | None, expected: float) -> None:
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    est = estimator(
        model,
        optimizer=optimizer,
        scheduler_creator=lambda o, c: StepLR(o, 1, gamma=0.5),
        scheduler_step_freq=when,
    )
    fit(est, frame)
    assert est._built.learning_rate == pytest.approx(1e-3 * expected)


def test_schedule_on_a_plateau(frame: DataFrame) -> None:
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    est = estimator(
        model,
        optimizer=optimizer,
        scheduler_creator=lambda o, c: ReduceLROnPlateau(o, mode="max", patience=0, factor=0.1),
        scheduler_step_freq="epoch",
    )
    fit(est, frame)
    assert est._built.learning_rate == pytest.approx(1e-4)


def test_model_in_double_precision(frame: DataFrame) -> None:
    exact = frame.selectExpr("double(sin(id)) a", "double(cos(3 * id)) b", "double(sin(id)) y")
    est = estimator(linear().double())
    fit(est, exact)
    table = exact.toPandas()
    x, y = tensors(table)
    assert x.dtype == torch.float64
    assert_same(est.get_model(), plain(linear().double(), nn.MSELoss(), [x], y), tolerance=1e-14)


@pytest.mark.parametrize("ranks", [1, 2])
def test_weighted_classes_equal_plain_torch(
    frame: DataFrame, rows: pd.DataFrame, ranks: int
) -> None:
    loss = nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0]), ignore_index=2)
    est = estimator(linear(2, 3), loss, workers_per_node=ranks)
    fit(est, frame, label_cols=["k"])
    x, _ = tensors(rows)
    k = torch.tensor(rows["k"].to_numpy())
    assert_same(est.get_model(), plain(linear(2, 3), loss, [x], k))


class Branches(nn.Module):
    """One layer never takes part, one only while `part` is even."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.always, self.at_times, self.never = (nn.Linear(2, 1) for _ in range(3))

    def forward(self, x: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
        out = self.always(x)
        if int(part[0]) % 2 == 0:
            out = out + self.at_times(x)
        return out.squeeze(-1)


@pytest.mark.parametrize("ranks", [1, 2])
def test_unused_parameters_stay_as_in_plain_torch(
    frame: DataFrame, rows: pd.DataFrame, ranks: int
) -> None:
    def decay(model: nn.Module, config: dict[str, Any]) -> torch.optim.Optimizer:
        return torch.optim.Adam(model.parameters(), lr=0.1, weight_decay=0.1)

    est = estimator(Branches(), optimizer=decay, workers_per_node=ranks)
    fit(est, frame, feature_cols=[["a", "b"], "part"])
    x, y = tensors(rows)
    part = torch.tensor(rows["part"].to_numpy())
    assert_same(
        est.get_model(), plain(Branches(), nn.MSELoss(), [x, part], y, make=decay), tolerance=1e-5
    )


class Lookup(nn.Module):
    def __init__(self, *, sparse: bool) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.table = nn.Embedding(3, 1, sparse=sparse)

    def forward(self, k: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.table(k).squeeze(-1)
        return out


@pytest.mark.parametrize("ranks", [1, 2])
def test_sparse_gradients_equal_dense_ones(
    frame: DataFrame, rows: pd.DataFrame, ranks: int
) -> None:
    est = estimator(Lookup(sparse=True), workers_per_node=ranks)
    fit(est, frame, feature_cols=["k"])
    _, y = tensors(rows)
    k = torch.tensor(rows["k"].to_numpy())
    assert_same(est.get_model(), plain(Lookup(sparse=False), nn.MSELoss(), [k], y))


def test_running_statistics_are_those_of_all_ranks(frame: DataFrame, rows: pd.DataFrame) -> None:
    def still(model: nn.Module, config: dict[str, Any]) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.0)

    def normalised() -> nn.Module:
        return nn.Sequential(nn.BatchNorm1d(2), *linear())  # type: ignore[misc]

    est = estimator(normalised(), optimizer=still, workers_per_node=2)
    fit(est, frame)
    x, y = tensors(rows)
    alone = plain(normalised(), nn.MSELoss(), [x], y, make=still)
    trained, expected = est.get_model()[0], alone[0]  # type: ignore[index]
    torch.testing.assert_close(trained.running_mean, expected.running_mean)
    torch.testing.assert_close(trained.running_var, expected.running_var, rtol=0.1, atol=0.1)
    assert trained.num_batches_tracked == expected.num_batches_tracked


def test_dropout_differs_between_epochs_and_repeats_between_runs(frame: DataFrame) -> None:
    def run() -> list[float]:
        model = nn.Sequential(nn.Dropout(0.5), *linear())  # type: ignore[misc]
        still = torch.optim.SGD(model.parameters(), lr=0.0)
        return [e["train_loss"] for e in fit(estimator(model, optimizer=still), frame)]

    first, second = run()
    assert first != second
    assert run() == [first, second]


def test_whole_labels_are_numbers_to_a_mean_squared_error(frame: DataFrame) -> None:
    whole, real = estimator(), estimator()
    fit(whole, frame, label_cols=["k"])
    fit(real, frame.withColumn("k", F.col("k").cast("float")), label_cols=["k"])
    assert_same(whole.get_model(), real.get_model())


# Columns.


class Difference(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.scale * (left - 2 * right)


def test_several_inputs_come_in_order(frame: DataFrame, rows: pd.DataFrame) -> None:
    scored = estimator(Difference()).predict(frame, feature_cols=["b", "a"]).toPandas()
    np.testing.assert_allclose(scored["prediction"], rows["b"] - 2 * rows["a"], rtol=1e-5)


def test_one_input_receives_columns_side_by_side(frame: DataFrame, rows: pd.DataFrame) -> None:
    scored = estimator().predict(frame, feature_cols=["a", "b"]).toPandas()
    with torch.no_grad():
        expected = linear()(tensors(rows)[0]).numpy()
    np.testing.assert_allclose(scored["prediction"], expected, rtol=1e-5)


def test_labels_of_several_columns(frame: DataFrame, rows: pd.DataFrame) -> None:
    est = estimator(linear(2, 2))
    fit(est, frame, label_cols=["y", "z"])
    x, _ = tensors(rows)
    both = torch.tensor(rows[["y", "z"]].to_numpy())
    assert_same(est.get_model(), plain(linear(2, 2), nn.MSELoss(), [x], both))


def test_labels_with_a_second_dimension(frame: DataFrame, rows: pd.DataFrame) -> None:
    model = nn.Sequential(*list(linear())[:1])  # type: ignore[call-overload]
    est = estimator(model)
    fit(est, frame, label_cols=[["y"]])
    x, y = tensors(rows)
    assert_same(est.get_model()[0], plain(linear(), nn.MSELoss(), [x], y)[0])  # type: ignore[index]


# Evaluation.


def test_evaluate_is_exact_on_uneven_partitions(uneven: DataFrame, rows: pd.DataFrame) -> None:
    est = estimator(metrics=[MSE(), MAE()])
    found = est.evaluate(uneven, batch_size=7, feature_cols=["a", "b"], label_cols=["y"])
    with torch.no_grad():
        guess = linear()(tensors(rows)[0]).numpy()
    assert found == {
        "MSE": pytest.approx(mean_squared_error(rows["y"], guess), rel=1e-5),
        "MAE": pytest.approx(mean_absolute_error(rows["y"], guess), rel=1e-5),
        "val_loss": pytest.approx(mean_squared_error(rows["y"], guess), rel=1e-5),
        "num_samples": ROWS,
    }


def test_accuracy_of_classes(uneven: DataFrame, rows: pd.DataFrame) -> None:
    est = estimator(linear(2, 3), nn.CrossEntropyLoss(), metrics=Accuracy())
    found = est.evaluate(uneven, feature_cols=["a", "b"], label_cols=["k"])
    with torch.no_grad():
        guess = linear(2, 3)(tensors(rows)[0]).argmax(1).numpy()
    assert found["Accuracy"] == pytest.approx(accuracy_score(rows["k"], guess))


def test_evaluate_takes_so_many_batches(frame: DataFrame) -> None:
    found = estimator().evaluate(
        frame, batch_size=10, num_steps=3, feature_cols=["a", "b"], label_cols=["y"]
    )
    assert found["num_samples"] == 30


# Prediction.


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> Any:
        return self.inner(x), x


FORMS = {
    "number": (lambda: linear(), T.FloatType, float),
    "column of one": (lambda: nn.Linear(2, 1), T.FloatType, float),
    "vector": (lambda: nn.Linear(2, 3), None, DenseVector),
    "matrix": (
        lambda: nn.Sequential(nn.Linear(2, 6), nn.Unflatten(1, (2, 3))),
        T.ArrayType,
        list,
    ),
    "several outputs": (Pair, T.ArrayType, list),
}


@pytest.mark.parametrize("form", FORMS)
def test_form_of_a_prediction(frame: DataFrame, form: str) -> None:
    make, kind, cell = FORMS[form]
    model = make()
    scored = estimator(model).predict(frame, feature_cols=["a", "b"])
    declared = scored.schema["prediction"].dataType
    assert isinstance(declared, kind) if kind else declared.typeName() == "vectorudt"
    row = scored.first()
    assert row is not None
    assert isinstance(row["prediction"], cell)
    with torch.no_grad():
        expected = model(torch.tensor([[row["a"], row["b"]]]))
    if form == "several outputs":
        found = np.concatenate([v.toArray() for v in row["prediction"]])
        wanted = np.concatenate([e.numpy().reshape(-1) for e in expected])
    else:
        found, wanted = np.asarray(row["prediction"]).reshape(-1), expected.numpy().reshape(-1)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_predict_keeps_columns_rows_and_order(uneven: DataFrame) -> None:
    scored = estimator().predict(uneven, feature_cols=["a", "b"])
    assert scored.columns == [*uneven.columns, "prediction"]
    assert scored.drop("prediction").toPandas().equals(uneven.toPandas())


def test_predict_is_lazy(spark: SparkSession, frame: DataFrame) -> None:
    context = spark.sparkContext
    context.setJobGroup("lazy", "nothing is computed")
    try:
        scored = estimator().predict(frame, feature_cols=["a", "b"])
        assert list(context.statusTracker().getJobIdsForGroup("lazy")) == []
    finally:
        context.setLocalProperty("spark.jobGroup.id", None)
    assert scored.filter("id < 5 and prediction is not null").count() == 5


def test_prediction_is_written(frame: DataFrame, tmp_path: Path) -> None:
    scored = estimator(nn.Linear(2, 3)).predict(frame, feature_cols=["a", "b"])
    scored.write.parquet(str(tmp_path / "scored"))
    again = frame.sparkSession.read.parquet(str(tmp_path / "scored")).orderBy("id")
    assert again.toPandas().equals(scored.toPandas())


@pytest.mark.parametrize("source", ["persisted", "parquet"])
def test_vector_columns_from_columnar_sources(
    frame: DataFrame, rows: pd.DataFrame, tmp_path: Path, source: str
) -> None:
    frame = frame.withColumn("v", array_to_vector(F.array("a", "b")))
    if source == "parquet":
        frame.write.parquet(str(tmp_path / "rows"))
        frame = frame.sparkSession.read.parquet(str(tmp_path / "rows"))
    else:
        frame = frame.persist()
    est = estimator(nn.Linear(2, 3), lambda output, y: (output.sum(1) - y).square().mean())
    fit(est, frame, feature_cols=["v"])
    assert est.evaluate(frame, feature_cols=["v"], label_cols=["y"])["num_samples"] == ROWS
    scored = est.predict(frame, feature_cols=["v"]).toPandas().sort_values("id")
    with torch.no_grad():
        expected = est.get_model()(tensors(rows)[0]).numpy()
    np.testing.assert_allclose(np.stack(scored["prediction"]), expected, rtol=1e-4, atol=1e-6)
    frame.unpersist()


def test_predict_on_no_rows(frame: DataFrame) -> None:
    scored = estimator().predict(frame.filter("id < 0"), feature_cols=["a", "b"])
    assert scored.columns[-1] == "prediction"
    assert scored.collect() == []


def test_prediction_belongs_to_its_row_when_rows_are_random(spark: SparkSession) -> None:
    drawn = spark.range(0, 500, 1, 4).select(F.rand().alias("a"), F.rand().alias("b"))
    scored = estimator(Difference()).predict(drawn.repartition(3), feature_cols=["a", "b"])
    table = scored.toPandas()
    np.testing.assert_allclose(table["prediction"], table["a"] - 2 * table["b"], atol=1e-5)


def test_predict_leaves_the_model_in_its_mode(frame: DataFrame) -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 1))
    model[0].eval()
    estimator(model).predict(frame, feature_cols=["a", "b"])
    assert [m.training for m in model.modules()] == [True, False, True]


# Saving.


def test_loaded_training_goes_on_as_if_never_saved(frame: DataFrame, tmp_path: Path) -> None:
    est, other = estimator(optimizer=adam, config={}), estimator(optimizer=adam, config={})
    fit(est, frame)
    other.load(est.save(str(tmp_path / "model")))
    assert fit(est, frame, epochs=1) == fit(other, frame, epochs=1)
    assert_same(est.get_model(), other.get_model(), tolerance=0)


def test_model_dir_holds_the_epochs_of_each_fit(frame: DataFrame, tmp_path: Path) -> None:
    est = estimator(model_dir=str(tmp_path))
    fit(est, frame)
    fit(est, frame, epochs=1)
    runs = [sorted(p.name for p in run.iterdir()) for run in sorted(tmp_path.iterdir())]
    assert runs == [["model.4", "model.8"], ["model.12"]]


# Other kinds of frames.


@pytest.mark.parametrize("kind", ["pandas", "arrow"])
def test_frame_in_memory(frame: DataFrame, rows: pd.DataFrame, kind: str) -> None:
    data: Any = rows if kind == "pandas" else pa.Table.from_pandas(rows)
    est, same = estimator(metrics=[MSE()]), estimator(metrics=[MSE()])
    columns: dict[str, Any] = {"feature_cols": ["a", "b"], "label_cols": ["y"]}
    fit(est, data, validation_data=data)
    fit(same, frame)
    assert_same(est.get_model(), same.get_model(), tolerance=1e-5)
    found, wanted = est.evaluate(data, **columns), est.evaluate(frame, **columns)
    assert found["MSE"] == pytest.approx(wanted["MSE"], rel=1e-5)
    scored = est.predict(data, feature_cols=["a", "b"])
    assert type(scored) is type(data)
    ours = np.asarray(scored["prediction"])
    theirs = est.predict(frame, feature_cols=["a", "b"]).toPandas()["prediction"]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert not math.isnan(ours.sum())
