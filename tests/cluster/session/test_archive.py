import os
import sys
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from zoo.cluster.session import archive
from zoo.cluster.session.properties import quick_properties
from zoo.errors import ClusterError


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment without an archive."""
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    return tmp_path


@pytest.fixture
def made(prefix: Path) -> Path:
    """An archive that somebody has made there."""
    file = archive.archive_file()
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    file.parent.chmod(0o755)
    file.chmod(0o444)
    return file


@pytest.mark.spark
def test_the_driver_of_these_tests_has_mapped_it(spark: SparkSession) -> None:
    file = archive.archive_file()
    if not file.exists():
        pytest.skip("make setup has made no archive here")
    jvm = spark.sparkContext._jvm
    assert jvm is not None
    maps = Path(f"/proc/{jvm.java.lang.ProcessHandle.current().pid()}/maps").read_text()
    assert str(file) in maps


def test_none_is_made_up(prefix: Path) -> None:
    assert archive.archive_options() == ""
    assert quick_properties("local[2]") == {}
    assert set(quick_properties("local-cluster[2,1,1024]")) <= {"spark.executorEnv.PYTHONPATH"}


def test_it_is_for_jvms_of_this_machine(made: Path) -> None:
    assert archive.archive_options().startswith(f"-XX:SharedArchiveFile={made} ")
    assert set(quick_properties("yarn")) == {"spark.driver.defaultJavaOptions"}
    java = {name for name in quick_properties("local-cluster[2,1,1024]") if "Java" in name}
    assert len(java) == 2


@pytest.mark.parametrize("place", ["file", "folder"])
def test_what_others_can_write_is_not_used(
    made: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    (made if place == "file" else made.parent).chmod(0o777)
    assert archive.archive_options() == ""
    assert "is not used: others than its owner could have written it" in caplog.text


def test_other_jars_have_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jar = tmp_path / "jars" / "a.jar"
    jar.parent.mkdir()
    jar.write_bytes(b"1")
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    first = archive.archive_file()
    assert archive.archive_file() == first
    os.utime(jar, ns=(1, 1))
    assert archive.archive_file() != first


def test_failure_is_told_and_leaves_nothing(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_PROGRAM", "raise SystemExit('no Spark today')")
    with pytest.raises(ClusterError, match="no Spark today"):
        archive.make_archive()
    assert list(made.parent.iterdir()) == [made]
