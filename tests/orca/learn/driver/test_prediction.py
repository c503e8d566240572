"""Predictions as columns of Spark."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pyspark.ml.functions import array_to_vector
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from torch import nn

from zoo.errors import InputError
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


class Root(nn.Module):
    """Fails where a number is below zero, and counts its calls."""

    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        type(self).calls += 1
        if bool((x < 0).any()):
            raise ValueError("a root of less than zero")
        return x.sqrt()


def test_the_model_is_tried_once_on_made_up_rows(frame: DataFrame) -> None:
    est = Estimator.from_torch(model=Numbers(), loss=nn.MSELoss())
    before = Root.calls
    for column in ("a", "id"):  # whole numbers are what the model was not made for, and takes
        est.predict(frame, feature_cols=[column])
    assert Root.calls - before == 2


def holes(frame: DataFrame) -> DataFrame:
    """Nulls in rows 3 and 4, the latter inside an array; below zero in row 6."""
    pair = F.array("a", F.when(F.col("id") != 4, F.col("b")))
    made = frame.withColumn("a", F.when(F.col("id") != 6, F.col("a")).otherwise(-1.0))
    made = made.withColumn("pair", F.when(F.col("id") != 3, pair))
    return made.withColumn("a", F.when(F.col("id") != 3, F.col("a")))


def roots(frame: DataFrame, column: str, **given: Any) -> dict[int, Any]:
    est = Estimator.from_torch(model=Numbers(), optimizer=None, loss=nn.MSELoss())
    rows = est.predict(frame, feature_cols=[column], **given).orderBy("id").collect()
    return {row["id"]: row["prediction"] for row in rows}


class Numbers(nn.Module):
    """As `Root`, with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.root = nn.Parameter(torch.ones(1)), Root()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.root(x) * self.scale


@pytest.mark.parametrize("column", ["a", "pair"])
def test_rows_with_nulls_may_have_no_prediction(frame: DataFrame, column: str) -> None:
    frame = holes(frame).filter("id != 6")
    found = roots(frame, column, on_null="null", batch_size=3)
    missing = {number for number, value in found.items() if value is None}
    assert missing == ({3} if column == "a" else {3, 4})
    first = found[9] if column == "a" else found[9][0]
    assert (first, len(found)) == (3.0, 19)
    with pytest.raises(Exception, match=f"no nulls in column '{column}'"):
        roots(frame, column)


@pytest.mark.parametrize("column", ["a", "pair"])
def test_rows_that_fail_may_have_no_prediction(frame: DataFrame, column: str) -> None:
    found = roots(holes(frame), column, on_error="null", batch_size=3)
    missing = {number for number, value in found.items() if value is None}
    assert missing == ({3, 6} if column == "a" else {3, 4, 6})
    with pytest.raises(Exception, match="a root of less than zero"):
        roots(holes(frame), column, on_null="null")


def test_names_of_classes_leave_nulls_alone(frame: DataFrame) -> None:
    est = Estimator.from_torch(model=nn.Linear(1, 2), loss=nn.CrossEntropyLoss())
    given = {"feature_cols": [["a"]], "on_null": "null"}
    scored = est.predict(holes(frame), classes=["no", "yes"], **given).collect()
    assert {row["id"] for row in scored if row["prediction"] is None} == {3}
    assert {row["prediction"] for row in scored} <= {None, "no", "yes"}
    kept = est.predict(holes(frame).toPandas()[["a"]], **given)["prediction"]
    assert [i for i, value in enumerate(kept) if value is None] == [3]


def test_words_for_rows_without_a_prediction_are_checked(frame: DataFrame) -> None:
    est = Estimator.from_torch(model=nn.Linear(1, 1), loss=nn.MSELoss())
    for given in ({"on_null": "raise"}, {"on_error": "ignore"}):
        with pytest.raises(InputError, match=f"{next(iter(given))} as .*or 'null'"):
            est.predict(frame, feature_cols=[["a"]], **given)


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


class Several(nn.Module):
    """Returns one output of two numbers and one of one, or what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> Any:
        x = x * self.one
        return x if x.ndim > 1 else [torch.stack([x, -x], dim=1), x]


@pytest.mark.usefixtures("columnar")
@pytest.mark.parametrize("source", ["persisted", "parquet", "rows"])
@pytest.mark.parametrize("column", ["a", "text", "pair"])
def test_vectors_come_out_of_rows_in_columns(
    spark: SparkSession, frame: DataFrame, tmp_path: Path, source: str, column: str
) -> None:
    pair, text = F.array("a", "b").alias("pair"), F.encode(F.col("id").cast("string"), "utf-8")
    frame = frame.select("id", (F.col("id") % 3).alias("day"), "a", pair, text.alias("text"))
    if source == "parquet":
        frame.write.partitionBy("day").parquet(str(tmp_path / "rows"))
        frame = spark.read.parquet(str(tmp_path / "rows"))
    elif source == "persisted":
        frame = frame.persist()
    decoders = {"text": np.float32} if column == "text" else None
    est = Estimator.from_torch(model=Several(), loss=nn.MSELoss(), decoders=decoders)
    scored = est.predict(frame, feature_cols=[column], batch_size=7)
    assert scored.columns == [*frame.columns, "prediction"]
    scored.write.parquet(str(tmp_path / "out"))
    rows = spark.read.parquet(str(tmp_path / "out")).collect()
    assert sorted(row["id"] for row in rows) == list(range(20))
    for row in rows:
        number, found = row["id"], row["prediction"]
        vectors = [found] if column == "pair" else found
        expected = [[number, number + 1]] if column == "pair" else [[number, -number], [number]]
        assert [vector.toArray().tolist() for vector in vectors] == expected
    some = scored.filter("day = 1")
    assert some.count() == 7
    assert scored.filter("prediction is null").count() == 0
    if source == "parquet":  # only the files of that day are read
        plan = some._jdf.queryExecution().executedPlan().toString()
        assert "PartitionFilters: [isnotnull(day" in plan
    frame.unpersist()
