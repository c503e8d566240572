"""Metrics whose states are gathered: any split of the rows, shapes, errors."""

import numpy as np
import pytest
import torch
from sklearn import metrics as peer

from zoo.errors import InputError
from zoo.orca.learn.pytorch.classification_metrics import (
    AUC,
    AveragePrecision,
    ConfusionMatrix,
    F1Score,
    Precision,
    Recall,
)

AVERAGED = {Precision: peer.precision_score, Recall: peer.recall_score, F1Score: peer.f1_score}


def value(metric, preds, targets):
    metric(torch.as_tensor(preds), torch.as_tensor(targets))
    return metric.compute()


def split(make, preds, targets, parts):
    """The value of parts, some of them empty, that were seen apart."""
    metrics = [make() for _ in range(parts)]
    place = np.random.default_rng(parts).integers(0, max(1, parts - 1), len(preds))
    for number, metric in enumerate(metrics):
        mine = torch.from_numpy(place == number)
        for batch in torch.split(torch.nonzero(mine).reshape(-1), 64):
            metric(preds[batch], targets[batch])
    whole = make()
    whole.load_states([metric.state() for metric in metrics])
    return whole.compute()


@pytest.mark.parametrize("rate", [0.5, 0.01, 0.0005])
@pytest.mark.parametrize("parts", [1, 3, 6])
def test_rare_positives_over_any_split(rate, parts) -> None:
    random = np.random.default_rng(1)
    truth = random.random(20_000) < rate
    truth[0] = True
    chances = torch.from_numpy(random.normal(truth * 1.0)).sigmoid().float() * rate
    found = [
        split(make, chances, torch.from_numpy(truth).long(), parts).item()
        for make in (AUC, AveragePrecision)
    ]
    expected = peer.roc_auc_score(truth, chances), peer.average_precision_score(truth, chances)
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
@pytest.mark.parametrize("metric", AVERAGED, ids=lambda cls: cls.__name__)
def test_averages_over_any_split(metric, average, parts) -> None:
    torch.manual_seed(3)
    scores, truth = torch.randn(500, 5), torch.randint(5, (500,))
    found = split(lambda: metric(average), scores, truth, parts)
    expected = AVERAGED[metric](truth, scores.argmax(-1), average=average, zero_division=0)
    assert found.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("from_logits", [False, True])
def test_answers_are_cut(from_logits) -> None:
    torch.manual_seed(4)
    logits, truth = torch.randn(300, 1), torch.randint(2, (300,))
    scores = logits if from_logits else logits.sigmoid()
    found = value(ConfusionMatrix(threshold=0.7, from_logits=from_logits), scores, truth)
    expected = peer.confusion_matrix(truth, logits.sigmoid().reshape(-1) > 0.7)
    assert found.tolist() == expected.tolist()


def test_class_numbers_and_columns() -> None:
    found = value(ConfusionMatrix(), torch.tensor([0, 2, 1]), torch.tensor([0, 1, 1]))
    assert found.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]
    answers = torch.tensor([[0.9], [0.2]])
    assert value(ConfusionMatrix(), answers, torch.tensor([[1.0], [1.0]])).tolist() == [
        [0, 0],
        [1, 1],
    ]


def test_parts_with_different_classes_are_put_together() -> None:
    parts = [ConfusionMatrix() for _ in range(3)]
    parts[0](torch.tensor([0]), torch.tensor([0]))
    parts[1](torch.tensor([3]), torch.tensor([1]))
    whole = ConfusionMatrix()
    whole.load_states([part.state() for part in parts])
    assert whole.compute().shape == (4, 4)
    assert whole.compute().sum() == 2


@pytest.mark.parametrize("make", [AUC, AveragePrecision])
@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_two_scores_for_two_classes(make, shape) -> None:
    torch.manual_seed(5)
    logits, truth = torch.randn(200, 2), torch.randint(2, (200,))
    expected = value(make(), logits.double().softmax(-1)[:, 1], truth)
    for scores in (logits, logits.double().softmax(-1)):
        found = value(make(), scores, truth.reshape(shape)).item()
        assert found == pytest.approx(expected.item(), abs=1e-12)


def test_labels_of_minus_one_and_one() -> None:
    scores = torch.tensor([-3.0, 2.0, 5.0])
    assert value(AUC(), scores, torch.tensor([-1, 1, 1])) == 1


@pytest.mark.parametrize("labels", [[0, 2], [0.5, 1.0], [float("nan"), 1.0]])
def test_ranks_need_a_yes_or_no_question(labels) -> None:
    with pytest.raises(InputError, match=r"targets 0 \(or -1\) and 1 for AUC; received 1 of 2"):
        value(AUC(), torch.rand(2), torch.tensor(labels))


def test_ranks_of_not_a_number_are_refused_at_the_first_batch() -> None:
    with pytest.raises(InputError, match="1 of 2 are not a number"):
        AUC()(torch.tensor([0.5, torch.nan]), torch.tensor([0, 1]))


@pytest.mark.parametrize(
    ("preds", "labels"),
    [([[0.2, 0.8]], [2]), ([[0.2, 0.8]], [-1]), ([0.3], [0.5]), ([0.3], [2]), ([1], [-1])],
)
def test_matrices_need_class_numbers(preds, labels) -> None:
    with pytest.raises(InputError, match=r"class numbers from 0.* as targets"):
        value(ConfusionMatrix(), torch.tensor(preds), torch.tensor(labels))


@pytest.mark.parametrize("metric", [AUC, ConfusionMatrix])
def test_shapes_must_match(metric) -> None:
    with pytest.raises(InputError, match=r"predictions \(4, 3, 3\) and targets \(4,\)"):
        value(metric(), torch.rand(4, 3, 3), torch.zeros(4))


def test_unknown_average() -> None:
    with pytest.raises(InputError, match="binary, macro, micro, weighted; received 'mean'"):
        F1Score("mean")


def test_logits_that_are_taken_for_probabilities_are_told_of(caplog) -> None:
    metric = Recall()
    metric(torch.tensor([-1.0, 0.2, 3.0]), torch.tensor([0, 1, 1]))
    whole = Recall()
    whole.load_states([metric.state(), Recall().state()])
    whole.compute()
    assert "Recall was taken of 2 scores outside 0 to 1" in caplog.text


@pytest.mark.parametrize("make", [AUC, AveragePrecision, ConfusionMatrix, *AVERAGED])
def test_reset_forgets(make) -> None:
    metric = make()
    metric(torch.tensor([0.5, 0.6]), torch.tensor([0, 1]))
    metric.reset()
    assert metric.state().tolist() == make().state().tolist()
