import pickle

import numpy as np
import pytest

from zoo.errors import InputError
from zoo.orca.data.image.steps.boxes import Boxes

ROWS = [[0.25, 0.25, 0.5, 0.75, 7.0], [0.5, 0.0, 1.0, 0.5, 3.0]]


def test_rows_come_back_as_they_went_in() -> None:
    rows = Boxes.of(ROWS).rows()
    np.testing.assert_array_equal(rows, np.array(ROWS, np.float32), strict=True)


def test_columns_behind_the_corners_are_kept() -> None:
    rows = Boxes.of([[0.0, 0.0, 1.0, 1.0, 4.0, 5.0]]).cropped(0.5, 0.5, 0.5, 0.5).rows()
    assert rows.tolist() == [[0, 0, 1, 1, 4, 5]]


def test_crop_moves_and_clips() -> None:
    rows = Boxes.of(ROWS).cropped(0.25, 0.5, 0.5, 0.5).rows()
    assert rows.tolist() == [[0, 0, 0.5, 0.5, 7]]


def test_window_beyond_the_picture_pads() -> None:
    rows = Boxes.of(ROWS).cropped(-0.5, -0.5, 2, 2).rows()
    assert rows[0].tolist() == [0.375, 0.375, 0.5, 0.625, 7]


def test_box_is_dropped_when_too_little_is_left() -> None:
    cut = Boxes.of([[0.0, 0.0, 0.5, 1.0]]).cropped(0.4, 0.0, 0.6, 1.0)
    assert len(cut.rows(0.19)) == 1
    assert len(cut.rows(0.21)) == 0


def test_share_that_is_left_counts_all_cuts() -> None:
    twice = Boxes.of([[0, 0, 1, 1]]).cropped(0, 0, 0.5, 1).cropped(0, 0, 0.5, 1)
    assert twice.visible.tolist() == [0.25]


def test_cut_before_padding_stays_a_cut() -> None:
    boxes = Boxes.of([[0, 0, 1, 1]]).cropped(0, 0, 0.5, 1).cropped(-1, 0, 2, 1)
    assert boxes.visible.tolist() == [0.5]
    assert boxes.rows().tolist() == [[0.5, 0, 1, 1]]


def test_what_lies_outside_from_the_start_is_clipped() -> None:
    assert Boxes.of([[-0.5, 0.0, 0.5, 1.25]]).rows().tolist() == [[0, 0, 0.5, 1]]


def test_box_without_area_is_dropped() -> None:
    assert Boxes.of([[0.5, 0.0, 0.5, 1.0], [0, 0, 1, 1]]).rows().tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("vertical", [True, False])
def test_two_flips_are_none(vertical: bool) -> None:
    boxes = Boxes.of(ROWS)
    twice = boxes.flipped(vertical=vertical).flipped(vertical=vertical)
    np.testing.assert_array_equal(twice.rows(), boxes.rows())


def test_flips() -> None:
    assert Boxes.of(ROWS).flipped().rows()[1].tolist() == [0, 0, 0.5, 0.5, 3]
    assert Boxes.of(ROWS).flipped(vertical=True).rows()[1].tolist() == [0.5, 0.5, 1, 1, 3]


def test_quarter_turn_of_a_square() -> None:
    turned = Boxes.of([[0.5, 0.0, 1.0, 0.25]]).rotated(90, 80, 80)
    np.testing.assert_allclose(turned.rows(), [[0, 0, 0.25, 0.5]], atol=1e-7)


def test_turned_box_encloses_its_corners() -> None:
    turned = Boxes.of([[0.25, 0.25, 0.75, 0.75]]).rotated(45, 100, 100)
    reach = 0.5 * 2**0.5 / 2
    np.testing.assert_allclose(
        turned.rows(), [[0.5 - reach, 0.5 - reach, 0.5 + reach, 0.5 + reach]], atol=1e-6
    )


@pytest.mark.parametrize("empty", [[], np.empty((0, 4)), np.empty((0, 5), np.float32)])
def test_no_boxes(empty: object) -> None:
    boxes = Boxes.of(empty)  # type: ignore[arg-type]
    columns = 5 if np.shape(empty) == (0, 5) else 4
    assert boxes.cropped(0, 0, 0.5, 0.5).flipped().rotated(3, 9, 9).rows().shape == (0, columns)


@pytest.mark.parametrize(
    "rows",
    [
        None,
        "boxes",
        [0.0, 0.0, 1.0, 1.0],
        [[0.0, 0.0, 1.0]],
        [[0.5, 0.0, 0.2, 1.0]],
        [[0.0, float("nan"), 1.0, 1.0]],
        [[0, 0, 1, float("inf")]],
        [[0, 0, 1, 1], [0, 0, 1]],
    ],
)
def test_what_is_no_box(rows: object) -> None:
    with pytest.raises(InputError, match="boxes as rows of xmin"):
        Boxes.of(rows)  # type: ignore[arg-type]


def test_what_came_in_stays_as_it_was() -> None:
    rows = np.array(ROWS, np.float32)
    Boxes.of(rows).flipped().cropped(0.1, 0.1, 0.5, 0.5).rotated(9, 5, 5).rows()[:] = 0
    np.testing.assert_array_equal(rows, np.array(ROWS, np.float32))


def test_boxes_survive_pickling() -> None:
    again = pickle.loads(pickle.dumps(Boxes.of(ROWS)))
    np.testing.assert_array_equal(again.rows(), Boxes.of(ROWS).rows())
