import os
from pathlib import Path

import pytest

from zoo.cluster.session.driver import variables, write_properties
from zoo.cluster.session.properties import (
    common_properties,
    escaped,
    local_properties,
    log_settings,
    memory_text,
    standalone_properties,
)
from zoo.errors import InputError


def test_properties_file_is_private_and_faithful(tmp_path: Path) -> None:
    file = tmp_path / "some.properties"
    write_properties(file, {"spark.a": r"c:\new", "spark.b": "two\nlines"})
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text() == "spark.a=c:\\\\new\nspark.b=two\\nlines\n"


def test_escaped_values_are_ascii() -> None:
    assert escaped("/тест/\N{GRINNING FACE}") == r"/\u0442\u0435\u0441\u0442/\ud83d\ude00"


def test_escaped_values_keep_the_space_in_front() -> None:
    assert escaped(" a b") == r"\ a b"


def test_log_file_may_have_any_name() -> None:
    assert r"fileName = /\u0442 a/spark.log" in log_settings("INFO", Path("/т a/spark.log"))


@pytest.mark.parametrize(
    ("given", "text"), [("2g", "2g"), ("10GB", "10g"), ("512 m", "512m"), ("1T", "1t")]
)
def test_memory_is_what_the_jvm_reads(given: str, text: str) -> None:
    assert memory_text(given, "memory") == text


@pytest.mark.parametrize("given", ["1.5g", "2", "g", "-1g", 2])
def test_bad_memory_is_refused(given: object) -> None:
    with pytest.raises(InputError, match='memory="2g"'):
        memory_text(given, "memory")


@pytest.mark.parametrize("cores", [0, -1, 1.5, "two", True])
def test_cores_must_be_a_count(cores: object) -> None:
    with pytest.raises(InputError, match="cores to be a positive whole number"):
        local_properties(cores, None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cores to be a positive whole number"):
        standalone_properties(1, cores, "1g")  # type: ignore[arg-type]


def test_nobody_ends_jobs_on_the_web_page() -> None:
    assert common_properties()["spark.ui.killEnabled"] == "false"


def test_variables_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_ONE", "before")
    monkeypatch.delenv("ZOO_TWO", raising=False)
    with variables({"ZOO_ONE": "1", "ZOO_TWO": "2"}):
        assert (os.environ["ZOO_ONE"], os.environ["ZOO_TWO"]) == ("1", "2")
    assert os.environ["ZOO_ONE"] == "before"
    assert "ZOO_TWO" not in os.environ
