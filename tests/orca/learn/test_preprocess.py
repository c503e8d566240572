"""Categories and numbers as `encode` makes them, against pandas and scikit-learn."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.ml import PipelineModel
from pyspark.sql import DataFrame, SparkSession
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from zoo.errors import InputError
from zoo.orca.learn.preprocess import encode, vocabularies

VALUES = np.array(["a", "b", "", "long name", "ä\n", "rare", None], object)
CHANCES = [0.4, 0.2, 0.1, 0.1, 0.1, 0.01, 0.09]


def table(seed: int, rows: int = 300) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    columns = {name: draw.choice(VALUES, rows, p=CHANCES) for name in ("country", "plan")}
    numbers = {"age": draw.normal(40, 10, rows), "bill": draw.exponential(5, rows), "same": 2.5}
    answers = draw.choice(["yes", "no", "maybe"], rows)
    return pd.DataFrame({**columns, **numbers, "left": answers})


def sent(spark: SparkSession, data: pd.DataFrame) -> DataFrame:
    kinds = "country string, plan string, age double, bill double, same double, left string"
    return spark.createDataFrame(data.astype(object), kinds).coalesce(1)


def by_frequency(values: pd.Series) -> list[str]:
    counts = values.value_counts()
    return sorted(counts.index, key=lambda value: (-counts[value], value))


@pytest.mark.spark
@pytest.mark.parametrize("seed", [0, 1])
def test_columns_are_those_of_pandas_and_scikit_learn(spark: SparkSession, seed: int) -> None:
    train, new = table(seed), table(seed + 10)
    train.loc[train["plan"].isin(["rare", ""]), "plan"] = None
    new.loc[:3, "plan"] = ["rare", "never", None, ""]
    pipeline = encode(
        index=["country"], one_hot=["plan"], scale=["age", "bill", "same"], label="left"
    )
    fitted = pipeline.fit(sent(spark, train))
    found = fitted.transform(sent(spark, new)).toPandas()

    order = by_frequency(train["country"])
    numbers = [order.index(v) if v in order else len(order) for v in new["country"]]
    assert found["country_index"].tolist() == numbers
    order = by_frequency(train["plan"])
    encoder = OneHotEncoder(categories=[order], handle_unknown="ignore", sparse_output=False)
    encoder.fit([[value] for value in order])
    wanted = encoder.transform([[value] for value in new["plan"]])
    assert np.array_equal(np.stack([v.toArray() for v in found["plan_onehot"]]), wanted)
    names = ["age", "bill", "same"]
    scaler = StandardScaler().fit(train[names])
    wanted = scaler.transform(new[names]) * np.sqrt((len(train) - 1) / len(train))
    assert np.allclose(np.stack([v.toArray() for v in found["scaled"]]), wanted, atol=1e-12)
    classes = ["maybe", "no", "yes"]
    assert found["left_index"].tolist() == [classes.index(value) for value in new["left"]]
    assert vocabularies(fitted) == {
        "country_index": [*by_frequency(train["country"]), "__unknown"],
        "plan_index": [*order, "__unknown"],
        "left_index": classes,
    }


@pytest.mark.spark
def test_columns_that_hold_nothing_are_unknown_throughout(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(None,), (None,)], "country string")
    fitted = encode(index=["country"]).fit(frame)
    assert [row["country_index"] for row in fitted.transform(frame).collect()] == [0.0, 0.0]
    assert vocabularies(PipelineModel([fitted])) == {"country_index": ["__unknown"]}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "columns to encode"),
        ({"index": "country"}, r"index as a list of names; received 'country'"),
        ({"scale": [1]}, "scale as a list of names"),
        ({"label": ["left"]}, "label as a name"),
    ],
)
def test_names_are_needed(given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        encode(**given)
