"""What every way of starting Spark takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.cluster import properties as props
from zoo.errors import InputError

if TYPE_CHECKING:
    from pyspark import SparkConf

__all__ = ["DEFAULT_LOG_LEVEL", "StartOptions"]

DEFAULT_LOG_LEVEL = "WARN"
_LOG_LEVELS = ("ALL", "TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL", "OFF")


@dataclass(frozen=True)
class StartOptions:
    """What every way of starting Spark takes.

    Args:
        conf: Spark properties of the user; they win over ours.
        python_location: The Python of the workers; this one when None.
        spark_log_level: What Spark logs.
        redirect_spark_log: Send what Spark logs below WARN to `spark.log` in the working
            directory instead of the terminal.
        extra_python_lib: Python files or packages for the workers, with commas between.
        jars: Java packages, with commas between.
    """

    conf: Mapping[str, object] | SparkConf | None = None
    python_location: str | None = None
    spark_log_level: str = DEFAULT_LOG_LEVEL
    redirect_spark_log: bool = True
    extra_python_lib: str | None = None
    jars: str | None = None
    properties: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        level = self.spark_log_level.upper()
        if level not in _LOG_LEVELS:
            raise InputError(
                "spark_log_level to be one of " + ", ".join(_LOG_LEVELS),
                repr(self.spark_log_level),
                "WARN is the default.",
            )
        chosen = props.as_properties(self.conf)
        if self.jars:
            chosen.setdefault("spark.jars", self.jars)
        object.__setattr__(self, "spark_log_level", level)
        object.__setattr__(self, "properties", chosen)

    def log_settings(self) -> str:
        """The log4j2 settings of a driver JVM of ours."""
        level = self.spark_log_level
        verbose = _LOG_LEVELS.index(level) < _LOG_LEVELS.index(DEFAULT_LOG_LEVEL)
        to_file = verbose and self.redirect_spark_log
        return props.log_settings(level, Path("spark.log").absolute() if to_file else None)
