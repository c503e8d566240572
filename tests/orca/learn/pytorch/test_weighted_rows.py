"""Fits and evaluations with weights of rows and of classes, beside plain torch and scikit-learn."""

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pyspark import cloudpickle
from pyspark.sql import DataFrame, SparkSession
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional

from zoo.errors import ColumnError, ContractError, InputError
from zoo.orca.data import XShards
from zoo.orca.learn.metrics import Accuracy
from zoo.orca.learn.pytorch import Estimator, TrainingOperator

# Ranks cannot import a test module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("spark")]
ROWS, BATCH, EPOCHS = 60, 16, 2
COLUMNS: dict[str, Any] = {"feature_cols": ["a", "b"], "label_cols": ["y"]}


@pytest.fixture(scope="module")
def frame(spark: SparkSession) -> Iterator[DataFrame]:
    """Rows in one partition; some weigh nothing, and class 1 is rare."""
    made = spark.range(0, ROWS, 1, 1).selectExpr(
        "sin(id) a", "cos(3 * id) b", "cast(id % 5 = 0 as int) y", "id % 4 w", "-1.0 negative",
        "0 nothing", "nullif(id % 4, 3) missing", "'x' word", "sin(id) target",
    ).persist()  # fmt: skip
    yield made
    made.unpersist()


def model(config: Any = None) -> nn.Module:
    torch.manual_seed(7)
    return nn.Linear(2, 2).double()


def estimator(loss: Any, ranks: int = 1, **given: Any) -> Any:
    return Estimator.from_torch(
        model=model,
        optimizer=lambda model, config: torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9),
        loss=loss,
        workers_per_node=ranks,
        config={"shuffle": False},
        **given,
    )


def flat(model: nn.Module) -> np.ndarray:
    return torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()


def plain(rows: pd.DataFrame, weights: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights of the model, and the loss of the last epoch, with weights of rows by hand."""
    made = model()
    optimizer = torch.optim.SGD(made.parameters(), lr=0.5, momentum=0.9)
    x, y = torch.tensor(rows[["a", "b"]].to_numpy()), torch.tensor(rows["y"].to_numpy()).long()
    own = torch.tensor(weights, dtype=torch.float64)
    parts = np.array_split(np.arange(len(rows)), -(-len(rows) // BATCH))
    total = 0.0
    for epoch in range(EPOCHS):
        for part in parts:
            optimizer.zero_grad()
            each = own[part] * functional.cross_entropy(made(x[part]), y[part], reduction="none")
            (each.sum() / own[part].sum()).backward()
            total += float(each.detach().sum()) * (epoch == EPOCHS - 1)
            optimizer.step()
    return flat(made), total / float(own.sum())


def fitted(data: Any, weights: np.ndarray, rows: pd.DataFrame, est: Any, **given: Any) -> None:
    history = est.fit(data, epochs=EPOCHS, batch_size=BATCH, **given)
    expected, loss = plain(rows, weights)
    np.testing.assert_allclose(flat(est.get_model()), expected, atol=1e-12, rtol=0)
    assert history[-1]["train_loss"] == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize(("ranks", "parts"), [(1, 1), (2, 1), (3, 2)])
def test_rows_weigh_what_their_column_says(frame: DataFrame, ranks: int, parts: int) -> None:
    rows = frame.toPandas()
    est = estimator(nn.CrossEntropyLoss(), ranks, gradient_accumulation=parts)
    fitted(frame, rows["w"].to_numpy(), rows, est, sample_weight_col="w", **COLUMNS)


def test_classes_weigh_what_they_are_given(frame: DataFrame) -> None:
    rows = frame.toPandas()
    weights = np.where(rows["y"] == 1, 4.0, 1.0) * rows["w"]
    est = estimator(nn.CrossEntropyLoss(), 2)
    given = {"class_weight": {1: 4}, "sample_weight_col": "w", **COLUMNS}
    fitted(frame, weights.to_numpy(), rows, est, **given)


@pytest.mark.parametrize("column", [None, "w"])
def test_balanced_classes_are_those_of_scikit_learn(frame: DataFrame, column: str | None) -> None:
    rows = frame.toPandas()
    y, own = rows["y"].to_numpy(), rows["w"].to_numpy() if column else np.ones(ROWS)
    each = compute_class_weight("balanced", classes=np.array([0, 1]), y=y, sample_weight=own)
    est = estimator(lambda o, t: functional.cross_entropy(o, t, reduction="none"), 2)
    given = {"class_weight": "balanced", "sample_weight_col": column, **COLUMNS}
    fitted(frame.repartition(1), each[y] * own, rows, est, **given)


def test_class_weights_are_those_of_the_loss(frame: DataFrame) -> None:
    own = estimator(nn.CrossEntropyLoss(torch.tensor([1.0, 4.0]).double()))
    ours = estimator(nn.CrossEntropyLoss())
    own.fit(frame, batch_size=BATCH, **COLUMNS)
    ours.fit(frame, batch_size=BATCH, class_weight={0: 1.0, 1: 4.0}, **COLUMNS)
    np.testing.assert_allclose(flat(own.get_model()), flat(ours.get_model()), atol=1e-12, rtol=0)


def test_dicts_have_weights_under_a_key(frame: DataFrame) -> None:
    rows = frame.toPandas()
    arrays = {
        "x": rows[["a", "b"]].to_numpy(),
        "y": rows["y"].to_numpy(),
        "w": rows["w"].to_numpy(),
    }
    shards = XShards.partition(arrays, num_shards=1)
    each = compute_class_weight(
        "balanced", classes=np.array([0, 1]), y=arrays["y"], sample_weight=arrays["w"]
    )
    given = {"class_weight": "balanced", "sample_weight_col": "w"}
    est = estimator(nn.CrossEntropyLoss())
    fitted(shards, each[arrays["y"]] * arrays["w"], rows, est, **given)
    first = est.evaluate(shards, batch_size=8, num_steps=3, sample_weight_col="w")
    assert first["num_samples"] == 24
    with pytest.raises(ContractError, match="weights of their rows under 'v'.*other keys.*'w'"):
        est.evaluate(shards, sample_weight_col="v")


def test_evaluation_weighs_the_loss_and_no_metric(frame: DataFrame) -> None:
    rows, weights = frame.toPandas(), frame.toPandas()["w"].to_numpy(np.float64)
    est = estimator(nn.CrossEntropyLoss(), metrics=[Accuracy()])
    found = est.evaluate(frame.repartition(3), batch_size=7, sample_weight_col="w", **COLUMNS)
    with torch.no_grad():
        output = model()(torch.tensor(rows[["a", "b"]].to_numpy()))
    y = torch.tensor(rows["y"].to_numpy()).long()
    each = functional.cross_entropy(output, y, reduction="none").numpy()
    assert found["val_loss"] == pytest.approx(np.average(each, weights=weights), rel=1e-12)
    assert found["Accuracy"] == pytest.approx(float((output.argmax(1) == y).double().mean()))


def test_validation_has_the_weights_of_rows_and_not_those_of_classes(frame: DataFrame) -> None:
    est = estimator(nn.CrossEntropyLoss(), 2)
    (epoch,) = est.fit(
        frame, batch_size=BATCH, validation_data=frame, sample_weight_col="w",
        class_weight={1: 9.0}, **COLUMNS,
    )  # fmt: skip
    found = est.evaluate(frame, sample_weight_col="w", **COLUMNS)
    assert epoch["val_loss"] == pytest.approx(found["val_loss"], rel=1e-12)
    with pytest.raises(ColumnError, match="received 'w'. Correct sample_weight_col"):
        est.fit(frame, validation_data=frame.drop("w"), sample_weight_col="w", **COLUMNS)


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ("negative", "weights of 0 or more in column 'negative'.*others in 60 rows .-1.0"),
        ("missing", "no nulls in column 'missing'"),
        ("nothing", "weights of which some are more than 0.*0 in all 60 rows"),
        ("word", "numbers in the column 'word', to weigh rows with; received string"),
        ("other", "received 'other'. Correct sample_weight_col"),
    ],
)
def test_what_is_no_weight_is_refused(frame: DataFrame, column: str, says: str) -> None:
    est = estimator(nn.CrossEntropyLoss())
    for verb in (est.fit, est.evaluate):
        with pytest.raises(ColumnError, match=says):
            verb(frame, sample_weight_col=column, **COLUMNS)


class Own(TrainingOperator):
    """Takes steps of its own."""

    def forward_batch(self, batch: Any, batch_info: Any) -> Any:
        return super().forward_batch(batch, batch_info)


@pytest.mark.parametrize(
    ("loss", "given", "says"),
    [
        (lambda o, t: functional.cross_entropy(o, t), {}, "a loss for each of 3 rows"),
        (nn.CTCLoss(), {}, "a loss of single rows.*CTCLoss"),
        (nn.CrossEntropyLoss(), {"training_operator_cls": Own}, "steps of the library.*Own"),
    ],
)
def test_losses_that_are_not_of_rows_are_refused_before_any_job(
    spark: SparkSession, loss: Any, given: Any, says: str
) -> None:
    # A job over these rows would fail.
    never = spark.range(4).selectExpr(
        "id + 0.5 a", "id + 0.5 b", "id % 2 y", "cast(raise_error('a job') as double) w"
    )
    est = estimator(loss, **given)
    with pytest.raises(InputError, match=says):
        est.fit(never, sample_weight_col="w", **COLUMNS)


def test_class_weights_need_classes(frame: DataFrame) -> None:
    est = estimator(nn.MSELoss())
    with pytest.raises(InputError, match="whole numbers.*in 'target' for class_weight='balanced'"):
        est.fit(frame, feature_cols=["a", "b"], label_cols=[["target"]], class_weight="balanced")
