import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from zoo.errors import InputError
from zoo.orca.data.image.formats.box_labels import (
    Annotation,
    annotated_size,
    as_label,
    image_size,
    labelled,
    relative_box,
)
from zoo.orca.data.image.writing.verify import SizedImage


def test_box_is_divided_by_the_size() -> None:
    assert relative_box((2, 1, 10, 5), 20, 10, "x") == (0.1, 0.1, 0.5, 0.5)


def test_box_is_clipped() -> None:
    assert relative_box((-5, 2, 30, 50), 20, 10, "x") == (0, 0.2, 1, 1)


@pytest.mark.parametrize(
    "box", [(5, 1, 5, 2), (5, 1, 4, 2), (1, 2, 3, 2), (20, 1, 30, 2), (math.nan, 1, 2, 3)]
)
def test_box_without_inside(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(InputError, match=r"a\.xml"):
        relative_box(box, 20, 10, "a.xml")


@pytest.mark.parametrize("size", [(0, 10), (20, -1), (math.inf, 10)])
def test_size_that_is_none(size: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="image size"):
        relative_box((1, 1, 2, 2), *size, "x")


def test_label_without_objects() -> None:
    assert as_label([]).shape == (0, 5)
    assert as_label([(0, 0, 1, 1, 3)]).dtype == np.float32


def test_bad_annotation_spoils_its_record_only() -> None:
    bad = labelled("a.jpg", lambda: relative_box((1, 1, 1, 1), 2, 2, "a.xml"))
    assert bad.path == "a.jpg"
    assert "a.xml" in bad.reason


def test_annotated_size_goes_along_with_the_image() -> None:
    label = as_label([])
    assert labelled("a.jpg", lambda: Annotation(label, (20, 10)))["image"] == SizedImage(
        "a.jpg", 20, 10
    )
    assert labelled("a.jpg", lambda: Annotation(label, None))["image"] == "a.jpg"


@pytest.mark.parametrize(
    "size", [(0, 0), (-1, -1), (None, None), ("", "20"), (math.nan, 10), (math.inf, 10), ([], 3)]
)
def test_sizes_that_say_nothing(size: tuple[object, object]) -> None:
    assert annotated_size(*size) is None


def test_size_may_be_text() -> None:
    assert annotated_size("500.0", "375") == (500, 375)


def test_size_of_an_image(tmp_path: Path, make_picture: Callable[..., bytes]) -> None:
    (tmp_path / "a.png").write_bytes(make_picture(8, 6))
    assert image_size(str(tmp_path / "a.png")) == (6, 8)
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"a\.png"):
        image_size(str(tmp_path / "a.png"))
