"""Outputs read as probabilities, class numbers and names."""

from typing import Any

import numpy as np
import pytest
import torch
from pyspark.sql import SparkSession
from torch import nn

from zoo.errors import InputError
from zoo.orca.data import XShards
from zoo.orca.learn.pytorch import Estimator
from zoo.orca.learn.pytorch.readings import read_as

SCORES = torch.tensor([[2.0, -1.0], [-0.5, 0.25]])
CASES = {
    "logits of classes": (nn.CrossEntropyLoss(), SCORES, SCORES.softmax(1), [0, 1]),
    "logs": (nn.NLLLoss(), SCORES.log_softmax(1), SCORES.softmax(1), [0, 1]),
    "logits": (nn.BCEWithLogitsLoss(), SCORES[:, 0], SCORES[:, 0].sigmoid(), [1, 0]),
    "probabilities": (nn.BCELoss(), SCORES[:, 0].sigmoid(), SCORES[:, 0].sigmoid(), [1, 0]),
    "answers side by side": (
        nn.BCEWithLogitsLoss(), SCORES, SCORES.sigmoid(), [[1, 0], [0, 1]],
    ),
    "pixels": (
        nn.CrossEntropyLoss(), SCORES[:, :, None], SCORES.softmax(1)[:, :, None], [[0], [1]],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_the_loss_tells_what_outputs_mean(name: str) -> None:
    loss, output, chances, numbers = CASES[name]
    torch.testing.assert_close(read_as(nn.Identity(), loss, "probability")(output), chances)
    assert read_as(nn.Identity(), loss, "class")(output).tolist() == numbers
    assert read_as(nn.Identity(), loss, "raw")(output) is output


def test_the_highest_of_several_needs_no_loss() -> None:
    assert read_as(nn.Identity(), None, "class")(SCORES).tolist() == [0, 1]


@pytest.mark.parametrize("loss", [None, nn.MSELoss()])
def test_one_number_is_no_class(loss: Any) -> None:
    with pytest.raises(InputError, match="loss tells what one output means"):
        read_as(nn.Identity(), loss, "class")(SCORES[:, 0])
    with pytest.raises(InputError, match="loss tells what one output means"):
        read_as(nn.Identity(), loss, "probability")


def test_other_readings_are_refused() -> None:
    with pytest.raises(InputError, match="'raw', 'probability' or 'class'; received 'logit'"):
        read_as(nn.Identity(), None, "logit")
    with pytest.raises(InputError, match="one output"):
        read_as(nn.Sequential(nn.LSTM(2, 2)), None, "class")(SCORES)


@pytest.mark.spark
def test_frames_and_shards_have_names_of_classes(spark: SparkSession) -> None:
    layer = nn.Linear(1, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-1.0], [0.1], [1.0]]))
        layer.bias.zero_()
    est = Estimator.from_torch(model=layer, loss=nn.CrossEntropyLoss())
    frame = spark.createDataFrame([(-5.0,), (3.0,)], "a double").coalesce(1)
    named = {"feature_cols": [["a"]]}
    found = est.predict(frame, **named, output="class").select("prediction")
    assert found.schema["prediction"].dataType.simpleString() == "bigint"
    assert [row[0] for row in found.collect()] == [0, 2]
    names = ["down", "still", "up"]
    scored = est.predict(frame, **named, classes=names).select("prediction").collect()
    assert [row[0] for row in scored] == ["down", "up"]
    chances = est.predict(frame, **named, output="probability").first()
    assert chances["prediction"].toArray().sum() == pytest.approx(1)
    shards = XShards.partition({"x": np.array([[-5.0], [3.0]], np.float32)}, num_shards=1)
    (shard,) = est.predict(shards, classes=names).collect()
    assert shard["prediction"].tolist() == ["down", "up"]
    with pytest.raises(Exception, match="each of 2 names in classes; found 2"):
        est.predict(frame, **named, classes=names[:2]).collect()
    with pytest.raises(InputError, match="2 names, and class 2"):
        est.predict(shards, classes=names[:2]).collect()
