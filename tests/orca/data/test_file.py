import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zoo.errors import InputError
from zoo.orca.data.file import exists, load_numpy, makedirs, open_image, open_text, write_text
from zoo.orca.data.storage import locate

COUNT = itertools.count()


@pytest.fixture(params=["plain", "file", "memory", "local"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder that is not there yet, on each kind of file system."""
    path = f"{tmp_path}/new é/[1]"
    prefix = {"file": "file://", "local": "local://", "plain": ""}
    at = prefix.get(request.param)
    return f"memory://file{next(COUNT)}/new" if at is None else at + path


def png(color: tuple[int, int, int]) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (4, 3), color).save(data, "PNG")
    return data.getvalue()


def test_makedirs_makes_what_leads_to_the_folder(folder: str) -> None:
    assert not exists(folder)
    makedirs(f"{folder}/a/b")
    assert exists(f"{folder}/a")


def test_makedirs_of_an_existing_folder_is_an_error(folder: str) -> None:
    makedirs(folder)
    with pytest.raises(FileExistsError):
        makedirs(folder)


def test_write_text_returns_the_number_of_characters(folder: str) -> None:
    makedirs(folder)
    assert write_text(f"{folder}/a.txt", " é1 \r\n\n two") == 11
    assert open_text(f"{folder}/a.txt") == ["é1", "", "two"]
    assert write_text(f"{folder}/a.txt", "new") == 3
    assert open_text(f"{folder}/a.txt") == ["new"]


def test_open_image_gives_a_loaded_image(folder: str) -> None:
    makedirs(folder)
    locate(f"{folder}/a.png").write_bytes(png((1, 2, 3)))
    image = open_image(f"{folder}/a.png")
    assert (image.size, image.mode, image.getpixel((0, 0))) == ((4, 3), "RGB", (1, 2, 3))


@pytest.mark.parametrize("data", [b"", b"no image", png((1, 2, 3))[:50], b"%!PS-Adobe-3.0 EPSF"])
def test_open_image_of_a_damaged_file_names_it(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "odd.png").write_bytes(data)
    with pytest.raises(InputError, match=r"odd\.png"):
        open_image(tmp_path / "odd.png")


def test_load_numpy(folder: str) -> None:
    makedirs(folder)
    data = io.BytesIO()
    np.save(data, np.arange(6).reshape(2, 3))
    locate(f"{folder}/a.npy").write_bytes(data.getvalue())
    np.testing.assert_array_equal(load_numpy(f"{folder}/a.npy"), [[0, 1, 2], [3, 4, 5]])


def test_load_numpy_never_unpickles(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="without objects"):
        load_numpy(tmp_path / "a.npy")


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY\x01\x00v\x00{'descr'", b"text"])
def test_load_numpy_of_a_damaged_file_names_it(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "odd.npy").write_bytes(data)
    with pytest.raises(InputError, match=r"odd\.npy"):
        load_numpy(tmp_path / "odd.npy")


def test_a_missing_file_is_a_file_not_found_error(folder: str) -> None:
    for read in [open_text, open_image, load_numpy]:
        with pytest.raises(FileNotFoundError):
            read(f"{folder}/nosuch")
