from pathlib import Path

import pytest

from zoo.errors import InputError, NotYetError
from zoo.orca.data.image.location import local_path, spark_path


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
    assert local_path(text) == Path(path)


def test_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert local_path("out") == tmp_path / "out"


@pytest.mark.parametrize("text", ["hdfs://name/a", "s3a://bucket/a", "hdfs:/a"])
def test_other_file_systems_come_later(text: str) -> None:
    with pytest.raises(NotYetError, match="file://"):
        local_path(text)


@pytest.mark.parametrize("text", ["", "file://host/a"])
def test_texts_that_name_no_place(text: str) -> None:
    with pytest.raises(InputError):
        local_path(text)


def test_spark_does_not_see_a_pattern_in_a_name() -> None:
    assert spark_path(Path("/a [1]*")) == r"file:///a \[1\]\*"
