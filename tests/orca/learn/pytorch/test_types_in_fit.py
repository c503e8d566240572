"""Columns in the types that people have them, through a fit, evaluate and predict."""

from typing import Any

import pytest
import torch
from pyspark.sql import SparkSession
from torch import nn

from zoo.errors import ColumnError
from zoo.orca.learn.metrics import Accuracy
from zoo.orca.learn.pytorch import Estimator

pytestmark = pytest.mark.spark
COLUMNS = ["int(id % 50) age", "id % 3 rooms", "double(id % 2) kind"]


def classifier(**given: Any) -> Any:
    torch.manual_seed(0)
    return Estimator.from_torch(
        model=nn.Linear(2, 2), loss=nn.CrossEntropyLoss(), metrics=[Accuracy()], **given
    )


def test_whole_features_and_classes_as_doubles(spark: SparkSession) -> None:
    frame = spark.range(0, 200, 1, 2).selectExpr(*COLUMNS)
    named = {"feature_cols": ["age", "rooms"], "label_cols": ["kind"]}
    est = classifier()
    before = est.evaluate(frame, **named)
    assert len(est.fit(frame, **named)) == 1
    after = est.evaluate(frame, **named)
    assert after["val_loss"] < before["val_loss"]
    found = est.predict(frame, feature_cols=["age", "rooms"]).select("age", "rooms", "prediction")
    age, rooms, scores = found.first()
    expected = est.get_model()(torch.tensor([float(age), float(rooms)])).tolist()
    assert scores.toArray() == pytest.approx(expected, rel=1e-6)


def test_half_a_class_is_refused(spark: SparkSession) -> None:
    frame = spark.range(0, 20, 1, 1).selectExpr("double(id) a", "double(id) b", "id / 2 kind")
    with pytest.raises(ColumnError, match=r"'kind'.*0\.5"):
        classifier().fit(frame, feature_cols=["a", "b"], label_cols=["kind"])


def test_embeddings_with_sparse_gradients_over_ranks(spark: SparkSession) -> None:
    frame = spark.range(0, 64, 1, 2).selectExpr("id % 7 item", "double(id % 5) y")

    def table(config: Any) -> nn.Module:
        torch.manual_seed(1)
        return nn.Sequential(nn.Embedding(9, 1, sparse=True), nn.Flatten(0)).double()

    weights = []
    for ranks in (1, 2):
        est = Estimator.from_torch(
            model=table,
            optimizer=lambda model, config: torch.optim.SparseAdam(
                list(model.parameters()), lr=0.1
            ),
            loss=nn.MSELoss(),
            workers_per_node=ranks,
        )
        est.fit(frame, epochs=2, batch_size=16, feature_cols=["item"], label_cols=["y"])
        weights.append(est.get_model()[0].weight.detach())
    torch.testing.assert_close(weights[0], weights[1])
    torch.testing.assert_close(weights[0][7:], table(None)[0].weight.detach()[7:])  # type: ignore[index]


def test_columns_are_those_of_the_fit(spark: SparkSession) -> None:
    frame = spark.range(0, 60, 1, 2).selectExpr(*COLUMNS)
    est = classifier()
    est.fit(frame, feature_cols=["age", "rooms"], label_cols=["kind"])
    named = est.evaluate(frame, feature_cols=["age", "rooms"], label_cols=["kind"])
    assert est.evaluate(frame) == named
    assert est.predict(frame.drop("kind")).columns == ["age", "rooms", "prediction"]
    assert len(est.fit(frame)) == 1


def test_what_may_have_been_forgotten_is_said(
    spark: SparkSession, caplog: pytest.LogCaptureFixture
) -> None:
    frame = spark.range(0, 60, 1, 2).selectExpr("double(id) a", "double(id) y")
    est = Estimator.from_torch(model=lambda config: nn.Flatten(0), backend="horovod")
    assert "backend='horovod' is trained as backend='spark'" in caplog.text
    with pytest.raises(Exception, match="parameters to train"):
        est.fit(frame, feature_cols=["a"], label_cols=["y"])
    assert "no loss to compare them with" in caplog.text
    assert "no optimizer is given: plain SGD" in caplog.text
    caplog.clear()
    est = Estimator.from_torch(
        model=lambda config: nn.Sequential(nn.Linear(1, 1), nn.Flatten(0)),
        optimizer=lambda model, config: torch.optim.SGD(model.parameters(), lr=1e30),
        loss=nn.MSELoss(),
    )
    est.predict(frame, feature_cols=["a"])
    assert "predict before fit or load" in caplog.text
    est.fit(frame, epochs=3, feature_cols=["a"], label_cols=["y"], checkpoint_trigger="EveryEpoch")
    assert "checkpoint_trigger has no effect without a model_dir" in caplog.text
    assert caplog.text.count("from there on the weights mean nothing") == 1
    caplog.clear()
    est.predict(frame)
    assert not caplog.text


def test_a_part_of_the_rows_validates(spark: SparkSession) -> None:
    frame = spark.range(0, 400, 1, 2).selectExpr(*COLUMNS)
    named = {"feature_cols": ["age", "rooms"], "label_cols": ["kind"]}
    histories = [classifier().fit(frame, validation_split=0.25, **named) for _ in range(2)]
    assert histories[0] == histories[1]
    assert 250 < histories[0][0]["num_samples"] < 350
    assert "val_Accuracy" in histories[0][0]
    for wrong, said in (
        ({"validation_split": 1.5}, "between 0 and 1"),
        ({"validation_split": 0.1, "validation_data": frame}, "both"),
    ):
        with pytest.raises(Exception, match=said):
            classifier().fit(frame, **named, **wrong)
