import numpy as np
import pytest
from sklearn import metrics as peer

from zoo.errors import InputError
from zoo.orca.learn.score import score_counts
from zoo.orca.learn.score.score_counts import ScoreCounts


def problem(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels: with and without ties, with rare positives, of any scale."""
    random = np.random.default_rng(seed)
    rows = int(random.integers(50, 5000))
    truth = random.random(rows) < [0.5, 0.1, 0.01, 0.0005][seed % 4]
    truth[:2] = True, False
    scores = random.normal(truth * random.random() * 2) * 10.0 ** random.integers(-3, 4)
    if seed % 3 == 0:
        scores = np.round(scores / np.abs(scores).max(), 1)
    return scores.astype(np.float32 if seed % 2 else np.float64), truth


def counted(scores: np.ndarray, truth: np.ndarray, batch: int = 97) -> ScoreCounts:
    counts = ScoreCounts()
    for at in range(0, len(scores), batch):
        counts.add(scores[at : at + batch], truth[at : at + batch])
    return counts


def merged(scores: np.ndarray, truth: np.ndarray, parts: int) -> ScoreCounts:
    """Dealt to parts, some of which are empty."""
    place = np.random.default_rng(len(scores)).integers(0, max(1, parts - 1), len(scores))
    vectors = [counted(scores[place == k], truth[place == k]).vector() for k in range(parts)]
    whole = ScoreCounts()
    whole.merge(vectors)
    return whole


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("parts", [1, 3, 7])
def test_the_values_of_the_peer(seed: int, parts: int) -> None:
    scores, truth = problem(seed)
    counts = merged(scores, truth, parts)
    assert counts.roc_auc() == pytest.approx(peer.roc_auc_score(truth, scores), abs=1e-12)
    expected = peer.average_precision_score(truth, scores)
    assert counts.average_precision() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_neighbours_that_share_a_count_hardly_change_it(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_counts, "EXACT_SCORES", 1000)
    random = np.random.default_rng(seed)
    truth = random.random(60_000) < [0.3, 0.01, 0.001][seed % 3]
    scores = random.normal(truth * 1.0)
    for parts in (1, 4):
        counts = merged(scores, truth, parts)
        assert counts.roc_auc() == pytest.approx(peer.roc_auc_score(truth, scores), abs=6e-3)
        expected = peer.average_precision_score(truth, scores)
        assert counts.average_precision() == pytest.approx(expected, rel=6e-3)
    assert len(counted(scores, truth).vector()) <= 4 * 1000


@pytest.mark.parametrize("rate", [0.5, 0.05, 0.001])
def test_a_million_rows_to_the_sixth_digit(rate: float) -> None:
    random = np.random.default_rng(0)
    truth = random.random(1_000_000) < rate
    scores = random.normal(truth * 1.0)
    counts = counted(scores, truth, 8192)
    assert len(counts.vector()) <= 4 * score_counts.EXACT_SCORES
    assert counts.roc_auc() == pytest.approx(peer.roc_auc_score(truth, scores), abs=1e-6)
    expected = peer.average_precision_score(truth, scores)
    assert counts.average_precision() == pytest.approx(expected, abs=1e-6)


def test_one_kind_only() -> None:
    scores = np.array([0.1, 0.2])
    assert np.isnan(counted(scores, np.array([True, True])).roc_auc())
    assert counted(scores, np.array([True, True])).average_precision() == 1
    none = counted(scores, np.array([False, False]))
    assert np.isnan([none.roc_auc(), none.average_precision()]).all()
    assert np.isnan([ScoreCounts().roc_auc(), ScoreCounts().average_precision()]).all()


def test_infinite_scores_have_an_order() -> None:
    scores = np.array([-np.inf, 0.0, np.inf, 3.0])
    assert counted(scores, np.array([False, False, True, True])).roc_auc() == 1


def test_what_has_no_order_is_refused() -> None:
    with pytest.raises(InputError, match="1 of 2 are not a number"):
        ScoreCounts().add(np.array([np.nan, 1.0]), np.array([True, False]))
