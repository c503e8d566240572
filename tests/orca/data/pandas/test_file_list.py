import itertools
from pathlib import Path

import pytest

from zoo.errors import InputError
from zoo.orca.data.pandas.file_list import FileList, list_files, natural_key
from zoo.orca.data.storage import locate

COUNT = itertools.count()


@pytest.fixture(params=["local", "memory", "fsspec"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder with files, on a local disk and on two file systems of fsspec."""
    plain = str(tmp_path / "a [1]")
    text = {"memory": f"memory://list{next(COUNT)}/a [1]", "fsspec": f"local://{plain}"}
    root = locate(text.get(request.param, plain))
    (root / "sub").mkdir(parents=True)
    (root / "day=2").mkdir()
    for name in ["b10.csv", "b2.csv", "é x.csv", "_SUCCESS", ".b.crc", "a.txt"]:
        (root / name).write_text("x")
    (root / "sub" / "deep.csv").write_text("x")
    (root / "day=2" / "part.csv").write_text("x")
    return str(root)


def listed(file_path: object) -> FileList:
    return list_files(file_path, locate, missing="Path does not exist")


def names(file_path: object) -> list[str]:
    return [file.name for file in listed(file_path).files]


def test_a_folder_stands_for_its_files_by_name_with_numbers_by_value(folder: str) -> None:
    assert names(folder) == ["a.txt", "b2.csv", "b10.csv", "é x.csv"]


def test_a_pattern_stands_for_the_files_that_have_such_names(folder: str) -> None:
    assert names(f"{folder}/b*.csv") == ["b2.csv", "b10.csv"]
    assert names(f"{folder}/[ab]*.csv") == ["b2.csv", "b10.csv"]
    assert names(f"{folder}/{{a,b10}}.*") == ["a.txt", "b10.csv"]
    assert names(f"{folder}/s*/*.csv") == ["deep.csv"]
    assert names(f"{folder}/**/*e*.csv") == ["deep.csv"]
    assert names(f"{folder}/_S*") == ["_SUCCESS"]


def test_a_list_keeps_its_order_and_its_repetitions(folder: str) -> None:
    given = [f"{folder}/é x.csv", f"{folder}/a.txt", f"{folder}/é x.csv"]
    assert names(given) == ["é x.csv", "a.txt", "é x.csv"]


def test_a_name_that_looks_like_a_pattern_and_exists_is_that_file(tmp_path: Path) -> None:
    for name in ["x[1].csv", "x1.csv"]:
        (tmp_path / name).touch()
    assert names(str(tmp_path / "x[1].csv")) == ["x[1].csv"]


def test_names_may_hold_anything(tmp_path: Path) -> None:
    odd = ["a,b.csv", "a\nb.csv", "a%20#?.csv", "{x}.csv"]
    for name in odd:
        (tmp_path / name).touch()
    assert sorted(names(tmp_path)) == sorted(odd)


def test_subfolders_only_where_asked_for(folder: str) -> None:
    found = list_files(folder, locate, missing="", enter=lambda name: "=" in name)
    assert [file.name for file in found.files if file.name.startswith("p")] == ["part.csv"]
    assert found.root == locate(folder)
    assert listed(folder).root is None


@pytest.mark.parametrize("path", ["nosuch.csv", "nosuch*.csv", "nosuch/*.csv"])
def test_a_missing_path_is_an_error(folder: str, path: str) -> None:
    with pytest.raises(InputError, match=r"Path does not exist: .*nosuch"):
        names(f"{folder}/{path}")


@pytest.mark.parametrize("path", [3, None, [], ["a", 3]])
def test_what_is_no_path_is_an_error(path: object) -> None:
    with pytest.raises(InputError, match="file_path as a path"):
        names(path)


def test_a_folder_without_files_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "_SUCCESS").touch()
    with pytest.raises(InputError, match="at least one data file"):
        names(tmp_path)


def test_natural_key_orders_any_names() -> None:
    texts = ["a", "a0", "a00", "1", "10", "9", "a1b2", "", "-", "a1"]
    assert len(sorted(texts, key=natural_key)) == len(texts)
    assert sorted(["10", "9", "1"], key=natural_key) == ["1", "9", "10"]
