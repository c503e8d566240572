from pathlib import Path

import pytest

from zoo.cluster.session.options import StartOptions
from zoo.errors import InputError


@pytest.mark.parametrize("level", ["loud", 3, None])
def test_bad_log_level_is_refused(level: object) -> None:
    with pytest.raises(InputError, match=rf"FATAL, OFF; received {level!r}"):
        StartOptions(spark_log_level=level)  # type: ignore[arg-type]


def test_property_without_a_value_is_refused() -> None:
    with pytest.raises(InputError, match=r"a value of spark\.a in conf; received None"):
        StartOptions(conf={"spark.a": None})


def test_names_that_spark_passes_over_are_told(caplog: pytest.LogCaptureFixture) -> None:
    StartOptions(conf={"executor.cores": 2, "spark.executor.cores": 2})
    assert "Without effect, since the names do not begin with spark.: executor.cores." in (
        caplog.text
    )


def test_jars_join_those_of_conf(tmp_path: Path) -> None:
    jar = tmp_path / "a.jar"
    jar.touch()
    options = StartOptions(conf={"spark.jars": "hdfs://b.jar"}, jars=f"{jar}, local:/c.jar")
    assert options.properties["spark.jars"] == f"hdfs://b.jar,{jar},local:/c.jar"


@pytest.mark.parametrize("argument", ["jars", "extra_python_lib"])
def test_missing_files_are_refused(argument: str) -> None:
    with pytest.raises(InputError, match=rf"{argument} to name files that exist.*'/no/where'"):
        StartOptions(**{argument: "hdfs://there, /no/where"})


def test_log_goes_to_a_file_only_below_warnings() -> None:
    assert StartOptions(spark_log_level="info").logs_to_file
    assert not StartOptions(spark_log_level="error").logs_to_file
    assert not StartOptions(spark_log_level="info", redirect_spark_log=False).logs_to_file
