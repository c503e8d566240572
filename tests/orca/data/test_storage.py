import pickle
import uuid
from pathlib import Path

import pytest

from zoo.errors import InputError
from zoo.orca.data.storage import is_local, local_path, locate, spark_path


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/a b/é%20", "/a b/é%20"),
        ("file:///a b/é%20", "/a b/é%20"),
        ("file:/a", "/a"),
        ("FILE:///a/../b/", "/b"),
        ("/a:/b", "/a:/b"),
    ],
)
def test_local_paths(text: str, path: str) -> None:
    assert local_path(text) == locate(text) == Path(path)


def test_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate("out") == tmp_path / "out"


def test_other_file_systems_read_and_write_like_paths() -> None:
    place = locate(f"memory://{uuid.uuid4().hex}/a #?[é].txt")
    assert not is_local(place)
    place.parent.mkdir(parents=True)
    place.write_bytes(b"x")
    again = pickle.loads(pickle.dumps(place))
    assert again.read_bytes() == b"x"
    assert [one.name for one in place.parent.iterdir()] == ["a #?[é].txt"]


def test_only_local_where_it_must_be() -> None:
    with pytest.raises(InputError, match="file://"):
        local_path("memory://a/b")


@pytest.mark.parametrize("text", ["", "file://host/a", "nosuch://host/a"])
def test_texts_that_name_no_place(text: str) -> None:
    with pytest.raises(InputError):
        locate(text)


def test_missing_package_is_named() -> None:
    with pytest.raises(InputError, match="s3fs"):
        locate("s3://bucket/key")


def test_spark_does_not_see_a_pattern_in_a_name() -> None:
    assert spark_path(Path("/a [1]*")) == r"file:///a \[1\]\*"
    assert spark_path(locate("memory://a/b*")) == r"memory://a/b\*"
