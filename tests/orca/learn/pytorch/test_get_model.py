"""The user's module, the estimator's, and copies of it."""

import copy
import itertools
from typing import Any

import pytest
import torch
from pyspark.sql import SparkSession
from torch import nn

from zoo.orca.learn.pytorch import Estimator


def linear() -> nn.Module:
    torch.manual_seed(7)
    return nn.Linear(1, 1)


@pytest.mark.spark
def test_the_module_of_the_user_is_left_alone(spark: SparkSession) -> None:
    frame = spark.range(0, 40, 1, 1).selectExpr("float(id / 40) a", "float(id) y")
    named: dict[str, Any] = {"feature_cols": [["a"]], "label_cols": [["y"]]}
    model = linear()
    before = copy.deepcopy(model.state_dict())
    made = [
        Estimator.from_torch(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=rate),
            loss=nn.MSELoss(),
        )
        for rate in (0.1, 0.05)
    ]
    made[0].fit(frame, **named)
    assert torch.equal(model.weight, before["weight"])
    first = made[0].get_model()
    made[1].fit(frame, **named)
    made[0].fit(frame, **named)
    weights = [m.weight for m in (model, first, *(est.get_model() for est in made))]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(weights, 2))


def test_a_live_model_is_what_the_estimator_goes_on_with() -> None:
    est = Estimator.from_torch(model=linear(), loss=nn.MSELoss())
    live = est.get_model(live=True)
    with torch.no_grad():
        live.weight.fill_(3.0)
    assert est.get_model(live=True) is live
    assert est.get_model() is not live
    assert est.get_model().weight == 3.0


def test_a_model_with_computed_tensors_is_copied() -> None:
    model = linear()
    model.scaled = model.weight * 2
    copied = Estimator.from_torch(model=model, loss=nn.MSELoss()).get_model()
    assert torch.equal(copied.scaled, model.scaled)
