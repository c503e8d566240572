"""Metrics of torchmetrics over parts of the data, and what the caller has of them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from zoo.orca.learn.pytorch.pytorch_metrics import adopt

torchmetrics = pytest.importorskip("torchmetrics")
classes = torchmetrics.classification
regression = torchmetrics.regression
wrappers = torchmetrics.wrappers

BINARY: dict[str, Callable[[], Any]] = {
    "sums": lambda: classes.BinaryF1Score(),
    "lists": lambda: classes.BinaryAUROC(),
    "lists of curves": lambda: classes.BinaryAveragePrecision(),
    "bins": lambda: classes.BinaryAUROC(thresholds=50),
    "calibration": lambda: classes.BinaryCalibrationError(),
}
NUMBERS: dict[str, Callable[[], Any]] = {
    "stacked": lambda: regression.PearsonCorrCoef(),
    "lists of numbers": lambda: regression.SpearmanCorrCoef(),
    "four sums": lambda: regression.R2Score(),
    "wrapped": lambda: wrappers.MinMaxMetric(regression.MeanAbsoluteError()),
    "composed": lambda: regression.MeanSquaredError() + 2 * regression.MeanAbsoluteError(),
    "powers": lambda: regression.MinkowskiDistance(p=3),
}
SEVERAL: dict[str, Callable[[], Any]] = {
    "by class": lambda: wrappers.ClasswiseWrapper(
        classes.MulticlassRecall(num_classes=3, average=None)
    ),
    "matrix": lambda: classes.MulticlassConfusionMatrix(num_classes=3),
}


def _over_parts(make: Callable[[], Any], preds: torch.Tensor, targets: torch.Tensor) -> Any:
    """Seen in four parts of uneven batches, one of them empty."""
    parts = [adopt(make()) for _ in range(4)]
    for number, part in enumerate(parts[:3]):
        for batch in torch.split(torch.arange(number, len(preds), 3), 20 + number):
            part(preds[batch], targets[batch])
    whole = adopt(make())
    whole.load_states([part.state() for part in parts])
    return whole.compute()


def _at_once(make: Callable[[], Any], preds: torch.Tensor, targets: torch.Tensor) -> Any:
    metric = make()
    metric.update(preds, targets)
    return metric.compute()


def _same(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for name in expected:
            _same(found[name], expected[name])
    else:
        torch.testing.assert_close(torch.as_tensor(found), torch.as_tensor(expected))


@pytest.mark.parametrize("name", BINARY)
def test_answers(name: str) -> None:
    torch.manual_seed(1)
    truth = torch.randint(2, (211,))
    chances = (torch.randn(211) + truth).sigmoid()
    _same(_over_parts(BINARY[name], chances, truth), _at_once(BINARY[name], chances, truth))


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.filterwarnings("ignore:.*will save all targets.*:UserWarning")
def test_numbers(name: str) -> None:
    torch.manual_seed(2)
    truth = torch.randn(211)
    guess = truth + torch.randn(211)
    found, expected = (how(NUMBERS[name], guess, truth) for how in (_over_parts, _at_once))
    if name == "wrapped":
        found, expected = found["raw"], expected["raw"]
    _same(found, expected)


@pytest.mark.parametrize("name", SEVERAL)
def test_several_numbers(name: str) -> None:
    torch.manual_seed(3)
    truth, scores = torch.randint(3, (211,)), torch.randn(211, 3)
    _same(_over_parts(SEVERAL[name], scores, truth), _at_once(SEVERAL[name], scores, truth))


def test_the_metric_of_the_caller_is_left_alone() -> None:
    metric = classes.BinaryAUROC()
    adopt(metric)(torch.tensor([0.3, 0.4]), torch.tensor([0, 1]))
    assert metric.update_count == 0


def test_nothing_seen_is_nan() -> None:
    adopted = adopt(classes.BinaryAUROC())
    adopted.load_states([adopted.state(), adopted.state()])
    assert adopted.compute().isnan()


@pytest.mark.parametrize("merged", [False, True])
def test_reset_forgets(merged: bool) -> None:
    adopted = adopt(classes.BinaryAUROC())
    adopted(torch.tensor([0.3, 0.4]), torch.tensor([0, 1]))
    if merged:
        adopted.load_states([adopted.state()])
    adopted.reset()
    assert adopted.compute().isnan()
    adopted(torch.tensor([0.5, 0.4]), torch.tensor([0, 1]))
    assert adopted.compute() == 0


def test_states_are_not_merged_twice() -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("gathered from other ranks")

    metric = classes.BinaryF1Score(distributed_available_fn=lambda: True, dist_sync_fn=refuse)
    adopted = adopt(metric)
    adopted(torch.tensor([0.3, 0.7]), torch.tensor([0, 1]))
    assert adopted.compute() == 1
