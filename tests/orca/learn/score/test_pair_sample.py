import numpy as np
import pytest

from zoo.orca.learn.score.pair_sample import sample_of


def pairs(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 2))


def as_set(sample: np.ndarray) -> set[tuple[float, ...]]:
    return {tuple(pair) for pair in sample.tolist()}


@pytest.mark.parametrize("parts", [1, 2, 7, 1_000])
def test_the_sample_does_not_hang_on_the_parts(parts: int) -> None:
    data = pairs(1_000)
    whole = sample_of(data, 50)
    held = np.zeros((0, 2))
    order = np.random.default_rng(1).permutation(1_000)
    for part in np.array_split(data[order], parts):
        held = sample_of(np.concatenate([held, sample_of(part, 50)]), 50)
    assert np.array_equal(held, whole)


def test_few_pairs_are_all_kept() -> None:
    data = pairs(20)
    assert as_set(sample_of(data, 20)) == as_set(sample_of(data, 500)) == as_set(data)
    assert sample_of(data[:0], 20).shape == (0, 2)


def test_the_sample_is_fair() -> None:
    """Its mean and spread are those of 2,000 drawn by chance, within 5 standard errors."""
    data = pairs(200_000)
    sample = sample_of(data, 2_000)
    assert np.abs(sample.mean(axis=0)).max() < 5 / 2_000**0.5
    assert np.abs(sample.std(axis=0) - 1).max() < 5 / (2 * 2_000) ** 0.5
    # Whole numbers differ in few bits; each of their values has its share.
    grid = np.stack(np.meshgrid(np.arange(100.0), np.arange(100.0)), axis=-1).reshape(-1, 2)
    low = (sample_of(grid, 2_000) < 50).mean(axis=0)
    assert np.abs(low - 0.5).max() < 5 * 0.5 / 2_000**0.5


def test_numbers_that_are_none_are_kept_as_they_are() -> None:
    odd = np.array([[np.nan, 1.0], [np.inf, -np.inf], [0.0, -0.0]])
    assert len(sample_of(odd, 3)) == 3
    assert np.isnan(sample_of(odd, 3)).sum() == 1
