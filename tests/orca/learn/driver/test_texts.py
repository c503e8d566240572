"""Columns of strings as features: of every kind of data, in training, evaluation and prediction."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark import cloudpickle
from pyspark.sql import SparkSession

from zoo.errors import ColumnError
from zoo.orca.data import SparkXShards
from zoo.orca.data.tensors.frame_rows import FrameRows
from zoo.orca.data.tensors.ingest import ingest
from zoo.orca.learn.driver.evaluation import evaluate_rows
from zoo.orca.learn.driver.inputs import Inputs
from zoo.orca.learn.driver.prediction import predict_frame, predict_shards
from zoo.orca.learn.rank.feed import TensorFeed
from zoo.orca.learn.score.evaluate import SentEvaluator
from zoo.orca.learn.score.predict import Faults, SentModel

# Tasks cannot import a test module by its name.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.spark

WORDS = ["a", "", "ünf", "four", "fifth"] * 4
FRAME = pd.DataFrame({"word": WORDS, "number": np.arange(20), "y": np.arange(20.0)})
COLUMNS = (["word", "number"], ["y"])
INPUTS = Inputs("float32", True, {}, {}, True, None, text=True)
FOUND = [len(word.encode()) + number for number, word in enumerate(WORDS)]


def lengths(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """A model that reads texts: bytes of the word, and the number."""
    words, numbers = arrays
    assert all(type(word) is bytes for word in words)
    return np.array([len(word) for word in words.tolist()]) + numbers


class Sums:
    """Rows and the outputs of the model."""

    def __init__(self) -> None:
        self.rows = self.total = 0.0

    def run(self, batches: Any) -> None:
        for *features, y in batches:
            self.rows += len(y)
            self.total += float(lengths(features).sum())

    def sums(self) -> list[list[float]]:
        return [[self.rows, self.total]]


MODEL = SentModel(b"", lambda blob: lengths)
EVALUATOR = SentEvaluator(b"", lambda blob, info: Sums())


def test_texts_of_a_frame_are_trained_on(spark: SparkSession) -> None:
    frame = spark.createDataFrame(FRAME).repartition(3)
    result = ingest(FrameRows(frame), INPUTS.layout(frame.schema, COLUMNS, use="train"))
    try:
        made = partial(TensorFeed, result.plan, result.shards, host=result.shards[0].host)
        pairs = []
        for rank in range(2):
            for _, (words, numbers, _) in made(place=(rank, 2), batch_size=6, seed=1).epoch(0):
                pairs += zip(numbers.tolist(), words.tolist(), strict=True)
        assert sorted(pairs) == [(n, word.encode()) for n, word in enumerate(WORDS)]
    finally:
        result.release()


def test_texts_of_a_frame_are_predicted_and_scored(spark: SparkSession) -> None:
    frame = spark.createDataFrame(FRAME).repartition(3)
    plan = INPUTS.layout(frame.schema, (COLUMNS[0], None), need_labels=False)
    rows = predict_frame(frame, MODEL, plan, lengths, 4).collect()
    assert {row.number: row.prediction for row in rows} == dict(enumerate(FOUND))
    whole = INPUTS.layout(frame.schema, COLUMNS)
    parts = evaluate_rows(FrameRows(frame), whole, EVALUATOR, 3)
    assert np.sum(parts, axis=0).tolist() == [[20, sum(FOUND)]]


@pytest.mark.parametrize("dicts", [True, False])
def test_texts_of_shards_are_predicted_and_scored(spark: SparkSession, dicts: bool) -> None:
    parts: list[Any] = [FRAME[:7], FRAME[7:7], FRAME[7:]]
    if dicts:
        parts = [
            {"x": [p["word"].to_numpy(), p["number"].to_numpy()], "y": p["y"].to_numpy()}
            for p in parts
        ]
    shards = SparkXShards(spark.sparkContext.parallelize(parts, 3))
    columns = (None, None) if dicts else COLUMNS
    rows, plan = INPUTS.shards(shards, (columns[0], None), need_labels=False)
    found = predict_shards(rows, MODEL, plan, 4).collect()
    assert np.concatenate([shard["prediction"] for shard in found]).tolist() == FOUND
    rows, plan = INPUTS.shards(shards, columns)
    parts = evaluate_rows(rows, plan, EVALUATOR, 3)
    assert np.sum(parts, axis=0).tolist() == [[20, sum(FOUND)]]


def test_texts_that_are_null_are_an_error_or_have_no_prediction(spark: SparkSession) -> None:
    frame = spark.createDataFrame([("a", 1), (None, 2)], "word string, number long").coalesce(1)
    plan = INPUTS.layout(frame.schema, (COLUMNS[0], None), need_labels=False)
    with pytest.raises(ColumnError, match="no nulls in column 'word'.*1 row"):
        ingest(FrameRows(frame), plan)
    scored = predict_frame(frame, MODEL, plan, lengths, 4, Faults(nulls=True))
    assert [row.prediction for row in scored.collect()] == [2, None]


def test_texts_of_a_stream_are_predicted(spark: SparkSession, tmp_path: Any) -> None:
    spark.createDataFrame(FRAME).coalesce(1).write.parquet(str(tmp_path / "in"))
    stream = spark.readStream.schema("word string, number long, y double")
    frame = stream.parquet(str(tmp_path / "in"))
    plan = INPUTS.layout(frame.schema, (COLUMNS[0], None), need_labels=False)
    scored = predict_frame(frame, MODEL, plan, lengths, 4)
    query = scored.writeStream.format("memory").queryName("texts").trigger(availableNow=True)
    query.start().awaitTermination(60)
    rows = spark.table("texts").collect()
    assert {row.number: row.prediction for row in rows} == dict(enumerate(FOUND))
