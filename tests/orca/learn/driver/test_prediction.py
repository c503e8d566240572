"""Predictions as columns of Spark."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from pyspark.ml.functions import array_to_vector
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from torch import nn

from zoo.orca.learn.pytorch import Estimator

pytestmark = pytest.mark.spark
COLUMNAR = "spark.sql.execution.arrow.pythonUDF.columnarInput.enabled"


@pytest.fixture
def frame(spark: SparkSession) -> DataFrame:
    whole = F.col("id").cast("double")
    return spark.range(0, 20, 1, 2).select("id", whole.alias("a"), (whole + 1).alias("b"))


class Named(nn.Module):
    """Returns outputs with names, in types of their own."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        large = (1 << 60) + x[:, 0].long()
        return {"large": large, "high": x[:, 0] > 5, "pair": x, "exact": x.double()[:, :1] / 3}


def predicted(model: nn.Module, frame: DataFrame, columns: Any = ("a", "b")) -> DataFrame:
    est = Estimator.from_torch(model=model, loss=nn.MSELoss())
    scored: DataFrame = est.predict(frame, feature_cols=list(columns))
    return scored


def test_double_models_predict_doubles(frame: DataFrame) -> None:
    scored = predicted(nn.Sequential(nn.Linear(2, 1), nn.Flatten(0)).double(), frame)
    assert scored.schema["prediction"].dataType.simpleString() == "double"


def test_outputs_with_names_are_a_struct(frame: DataFrame) -> None:
    model = nn.Sequential(nn.Linear(2, 2), Named())
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))
        model[0].bias.zero_()
    scored = predicted(model, frame)
    expected = "struct<large:bigint,high:boolean,pair:array<float>,exact:double>"
    assert scored.schema["prediction"].dataType.simpleString() == expected
    row = scored.filter("id = 7").select("prediction.*").collect()[0].asDict()
    assert row == {"large": (1 << 60) + 7, "high": True, "pair": [7.0, 8.0], "exact": 7 / 3}


@pytest.fixture
def columnar(spark: SparkSession) -> Iterator[None]:
    before = spark.conf.get(COLUMNAR)
    spark.conf.set(COLUMNAR, "true")
    yield
    spark.conf.set(COLUMNAR, str(before))


@pytest.mark.usefixtures("columnar")
@pytest.mark.parametrize("source", ["persisted", "parquet"])
def test_settings_of_the_session_stay_where_rows_hold_vectors(
    spark: SparkSession, frame: DataFrame, tmp_path: Path, source: str
) -> None:
    frame = frame.withColumn("v", array_to_vector(F.array("a", "b")))
    if source == "parquet":
        frame.write.parquet(str(tmp_path / "rows"))
        frame = spark.read.parquet(str(tmp_path / "rows"))
    else:
        frame = frame.persist()
    model = nn.Linear(2, 1)
    scored = predicted(model, frame, ["v"])
    assert scored.columns == ["id", "a", "b", "v", "prediction"]
    rows = scored.filter("id < 5").collect()
    assert spark.conf.get(COLUMNAR) == "true"
    for row in rows:
        expected = model(torch.tensor([[row["a"], row["b"]]])).item()
        assert row["prediction"] == pytest.approx(expected, rel=1e-5)
        assert row["v"].toArray().tolist() == [row["a"], row["b"]]
    frame.unpersist()
