"""The sample of predictions: the same from frames and ranks, and on the page of a fit."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pyspark.sql import SparkSession
from torch import nn

from zoo.errors import InputError
from zoo.orca.learn.metrics import MAE, PredictionPairs
from zoo.orca.learn.pytorch import Estimator


def test_states_of_parts_are_the_sample_of_all() -> None:
    targets, preds = torch.randn(2, 300, generator=torch.Generator().manual_seed(0))
    whole, parts = PredictionPairs(40).get_pytorch_metric(), []
    whole(preds[:, None], targets)
    for part in (slice(0, 1), slice(1, 1), slice(1, 290), slice(290, 300)):
        metric = PredictionPairs(40).get_pytorch_metric()
        metric(preds[part], targets[part])
        parts.append(metric.state())
    merged = PredictionPairs(40).get_pytorch_metric()
    merged.load_states(parts)
    assert torch.equal(merged.compute(), whole.compute())
    assert whole.compute().shape == (40, 2)
    known = {(t, p) for t, p in zip(targets.tolist(), preds.tolist(), strict=True)}
    assert {tuple(pair) for pair in whole.compute().tolist()} <= known


def test_a_sample_of_none_is_refused() -> None:
    with pytest.raises(InputError, match="count of 1 or more"):
        PredictionPairs(0)


@pytest.mark.spark
def test_a_fit_and_an_evaluation_are_on_the_page(spark: SparkSession, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=400).astype(np.float32)
    data = pd.DataFrame({"<x>": x, "y": 2 * x})
    est = Estimator.from_torch(
        model=lambda config: nn.Sequential(nn.Linear(1, 1), nn.Flatten(0)),
        optimizer=lambda model, config: torch.optim.SGD(model.parameters(), lr=0.1),
        loss=nn.MSELoss(), metrics=[MAE(), PredictionPairs()], config={"seed": 7},
        workers_per_node=2,
    )  # fmt: skip
    columns = {"feature_cols": ["<x>"], "label_cols": ["y"]}
    est.fit(data, epochs=2, batch_size=40, validation_data=data[:100], **columns)
    found = est.evaluate(data, **columns)
    assert len(found["PredictionPairs"]) == 400
    page = Path(est.report_page(tmp_path / "new" / "report.html", title="Lines")).read_text()
    assert "an evaluation of 400 rows" in page
    for text in ("Lines", "&lt;x&gt;", "predicted minus true", "rank 1", "seed", "rows of valid"):
        assert text in page
    assert est.report is not None
    assert (est.report.shards > 0, est.report.validation_rows) == (True, 100)
    assert all(rank.host for rank in est.report.ranks)
    est.fit(data, batch_size=40, **columns)
    again = Path(est.report_page(tmp_path / "new" / "report.html")).read_text()
    assert "an evaluation of" not in again
