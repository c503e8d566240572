from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from yolo.draw import sheet
from yolo.shapes import SHAPES, write_shapes

from zoo.orca.data.image.formats.voc import VocLabels
from zoo.orca.data.storage import locate

STRICT = VocLabels(SHAPES, strict_boxes=True)


def test_folder_is_as_voc_has_it(tmp_path: Path) -> None:
    folder = Path(write_shapes(str(tmp_path), 20, 5)) / "VOC2007"
    lists = {f.stem: f.read_text().split() for f in (folder / "ImageSets" / "Main").iterdir()}
    assert {name: len(names) for name, names in lists.items()} == {"train": 20, "val": 5}
    assert not set(lists["train"]) & set(lists["val"])
    kinds, widths = set(), set()
    for name in lists["train"] + lists["val"]:
        image = str(folder / "JPEGImages" / f"{name}.jpg")
        found = STRICT.read(locate(str(folder / "Annotations" / f"{name}.xml")), image)
        with Image.open(image) as picture:
            assert picture.size == found.size
        assert len(found.label)
        kinds |= set(found.label[:, 4])
        widths.add(found.size[0])
    assert kinds == {0, 1, 2}
    assert len(widths) > 2


def test_same_seed_same_pictures(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_shapes(str(tmp_path / name), 2, 1, seed=seed)
    files = [(tmp_path / n / "VOC2007/JPEGImages/000000.jpg").read_bytes() for n in "abc"]
    assert files[0] == files[1] != files[2]


def test_photographs_are_grounds(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (50, 50), "#00ff00").save(tmp_path / "photos" / "a.jpg")
    folder = write_shapes(str(tmp_path), 1, 0, photos=str(tmp_path / "photos"))
    with Image.open(Path(folder, "VOC2007/JPEGImages/000000.jpg")) as picture:
        assert abs(np.median(np.array(picture), axis=(0, 1)) - [0, 255, 0]).max() < 8


def test_sheet_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    folder = Path(write_shapes(str(tmp_path), 2, 0)) / "VOC2007"
    data = (folder / "JPEGImages" / "000000.jpg").read_bytes()
    found = np.array([[10, 10, 60, 60, 0.9, 1], [20, 20, 50, 50, 0.1, 0]])
    truth = np.array([[12, 11, 58, 61, 1, 0]])
    figure = sheet([(data, found, truth), (data, found[:0], truth[:0])], SHAPES)
    figure.savefig(tmp_path / "sheet.png")
    assert len(figure.axes[0].patches) == 2
    assert [text.get_text() for text in figure.axes[0].texts] == ["square 0.90"]
    assert not figure.axes[1].patches
