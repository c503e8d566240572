"""The estimator of all frameworks, with the smallest one, on Spark."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession

from zoo.orca.learn.estimator import SparkEstimator
from zoo.orca.learn.linear.framework import LinearRecipe

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def frame(spark: SparkSession) -> DataFrame:
    chance = np.random.default_rng(3)
    x = chance.normal(size=(400, 2))
    rows = [(float(a), float(b), float(2 * a - b + 0.5)) for a, b in x]
    return spark.createDataFrame(rows, "a double, b double, y double").repartition(3).persist()


def test_a_framework_trains_scores_and_predicts_on_a_frame(frame: DataFrame) -> None:
    estimator = SparkEstimator("linear", LinearRecipe(2, rate=0.1, momentum=0.0))
    given = {"feature_cols": ["a", "b"], "label_cols": ["y"]}
    history = estimator.fit(frame, epochs=5, batch_size=32, validation_data=frame, **given)
    model = estimator.get_model()
    np.testing.assert_allclose(model.weights, [2.0, -1.0, 0.5], atol=1e-2)
    scores = estimator.evaluate(frame, **given)
    assert scores["val_loss"] == pytest.approx(history[-1]["val_loss"], rel=1e-9)
    assert scores["num_samples"] == 400
    rows = estimator.predict(frame, feature_cols=["a", "b"]).collect()
    expected = [
        row.a * model.weights[0] + row.b * model.weights[1] + model.weights[2] for row in rows
    ]
    np.testing.assert_allclose([row.prediction for row in rows], expected, rtol=1e-12)
