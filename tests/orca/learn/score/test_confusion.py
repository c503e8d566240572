import numpy as np
import pytest
from sklearn import metrics as peer

from zoo.errors import InputError
from zoo.orca.learn.score.confusion import average, confusion, sum_of


def problem(seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Classes, predictions, and how many classes: with rare ones, and with some that are absent."""
    random = np.random.default_rng(seed)
    classes = [2, 3, 10][seed % 3]
    shares = random.dirichlet(np.full(classes, 0.3))
    truth = random.choice(classes, 400, p=shares)
    found = np.where(random.random(400) < 0.6, truth, random.choice(classes, 400, p=shares))
    return truth, found, classes


@pytest.mark.parametrize("seed", range(20))
def test_the_values_of_the_peer(seed: int) -> None:
    truth, found, classes = problem(seed)
    cuts = np.random.default_rng(seed).integers(0, 400, 4)
    parts = [
        confusion(t, f, classes)
        for t, f in zip(np.split(truth, sorted(cuts)), np.split(found, sorted(cuts)), strict=True)
    ]
    matrix = sum_of([np.zeros((0, 0)), *parts])
    assert (matrix == peer.confusion_matrix(truth, found, labels=range(classes))).all()
    kinds = {"precision": peer.precision_score, "recall": peer.recall_score, "f1": peer.f1_score}
    for kind, expected in kinds.items():
        for how in ("macro", "micro", "weighted", *(["binary"] if classes == 2 else [])):
            value = expected(truth, found, average=how, zero_division=0.0)
            assert average(matrix, kind, how) == pytest.approx(value, abs=1e-12), (kind, how)


def test_what_is_meant_when_nothing_is_said() -> None:
    two, three = np.array([[5.0, 1], [2, 3]]), np.array([[5.0, 1, 0], [2, 3, 1], [0, 0, 4]])
    assert average(two, "recall", None) == average(two, "recall", "binary") == 0.6
    assert average(three, "recall", None) == average(three, "recall", "macro")


def test_nothing_seen_is_nan() -> None:
    assert np.isnan(average(np.zeros((0, 0)), "f1", None))


def test_more_classes_in_one_part() -> None:
    assert sum_of([np.ones((1, 1)), np.ones((3, 3))])[0].tolist() == [2, 1, 1]


def test_only_negatives_were_seen() -> None:
    assert average(np.array([[4.0]]), "precision", None) == 0


def test_binary_of_three_classes() -> None:
    with pytest.raises(InputError, match="two classes for average='binary'; received 3"):
        average(np.eye(3), "f1", "binary")
