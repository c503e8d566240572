import numpy as np
import pytest

from zoo.orca.data.image.formats.outlines import box_around, unpacked_runs


def packed(runs: list[int]) -> str:
    """Run lengths as text, written from the description of the format."""
    text = ""
    for place, run in enumerate(runs):
        value = run - runs[place - 2] if place > 2 else run
        while True:
            group, value = value & 31, value >> 5
            done = value == (-1 if group & 16 else 0)
            text += chr(group + (0 if done else 32) + 48)
            if done:
                break
    return text


def runs_of(mask: np.ndarray) -> list[int]:
    changes = np.flatnonzero(np.diff(mask.flatten("F"), prepend=0))
    return np.diff([0, *changes, mask.size]).tolist()


@pytest.mark.parametrize("seed", range(40))
def test_box_around_any_mask(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 40, 2)
    mask = (rng.random((height, width)) < rng.choice([0.01, 0.3, 1])).astype(int)
    mask[0, 0] &= seed % 2
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    expected = [0.0] * 4
    if len(rows):
        left, top = columns[0], rows[0]
        expected = [left, top, columns[-1] + 1 - left, rows[-1] + 1 - top]
    runs = runs_of(mask)
    for counts in (runs, packed(runs)):
        assert box_around({"counts": counts, "size": [int(height), int(width)]}) == expected


def test_runs_as_text() -> None:
    """The example that the tools of COCO give for a square of 2 x 2 in 4 x 4 pixels."""
    assert unpacked_runs("52203") == [5, 2, 2, 2, 5]
    runs = [0, 5, 100_000, 3, 40, 2, 9_999_999]
    assert unpacked_runs(packed(runs)) == runs


def test_polygons() -> None:
    assert box_around([[1, 2, 5, 2, 5, 4], [0.5, 3, 1, 3, 1, 9]]) == [0.5, 2.0, 4.5, 7.0]


@pytest.mark.parametrize(
    "outline", [[], [[]], [[1, 2, 3]], [[1, 2, 3], [4]], {"counts": "5 ", "size": [2, 2]}]
)
def test_what_is_no_outline(outline: object) -> None:
    with pytest.raises(ValueError, match="points|run lengths"):
        box_around(outline)
