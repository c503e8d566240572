"""What every way of starting Spark takes."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.cluster.session import properties as props
from zoo.errors import InputError

if TYPE_CHECKING:
    from pyspark import SparkConf

__all__ = ["DEFAULT_LOG_LEVEL", "StartOptions", "say_idle"]

_log = logging.getLogger(__name__)

DEFAULT_LOG_LEVEL = "WARN"
_LOG_LEVELS = ("ALL", "TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL", "OFF")


def say_idle(mode: str, names: Iterable[str]) -> None:
    """Name the arguments that a mode cannot use."""
    if idle := sorted(names):
        _log.warning("Without effect in %s mode: %s.", mode, ", ".join(idle))


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
    libraries: list[str] = field(init=False)

    def __post_init__(self) -> None:
        level = str(self.spark_log_level).upper()
        if level not in _LOG_LEVELS:
            raise InputError(
                "spark_log_level to be one of " + ", ".join(_LOG_LEVELS),
                repr(self.spark_log_level),
                "WARN is the default.",
            )
        chosen = props.as_properties(self.conf)
        foreign = sorted(name for name in chosen if not name.startswith("spark."))
        if foreign:
            _log.warning(
                "Without effect, since the names do not begin with spark.: %s.", ", ".join(foreign)
            )
        if jars := _files("jars", self.jars):
            chosen["spark.jars"] = ",".join([*_listed(chosen.get("spark.jars")), *jars])
        object.__setattr__(self, "libraries", _files("extra_python_lib", self.extra_python_lib))
        object.__setattr__(self, "spark_log_level", level)
        object.__setattr__(self, "properties", chosen)

    @property
    def logs_to_file(self) -> bool:
        """Whether there is something to log that is not for the terminal."""
        verbose = _LOG_LEVELS.index(self.spark_log_level) < _LOG_LEVELS.index(DEFAULT_LOG_LEVEL)
        return verbose and self.redirect_spark_log

    def log_settings(self) -> str:
        """The log4j2 settings of a driver JVM of ours."""
        file = Path("spark.log").absolute() if self.logs_to_file else None
        return props.log_settings(self.spark_log_level, file)


def _listed(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _files(argument: str, text: str | None) -> list[str]:
    """The files of an argument; those of this machine must exist, or Spark would go on without."""
    found = _listed(text)
    for place in found:
        if "://" not in place and not place.startswith("local:") and not glob.glob(place):
            raise InputError(
                f"{argument} to name files that exist",
                repr(place),
                "Give paths or URLs with commas between.",
            )
    return found
