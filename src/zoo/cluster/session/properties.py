"""The Spark properties that each mode starts with. What the user's `conf` says wins."""

from __future__ import annotations

import os
import re
import shlex
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.cluster.session.archive import archive_options
from zoo.cluster.session.topology import LOOPBACK
from zoo.errors import InputError

if TYPE_CHECKING:
    from pyspark import SparkConf

__all__ = [
    "DRIVER_OPTIONS",
    "as_properties",
    "common_properties",
    "driver_at",
    "escaped",
    "launch_properties",
    "local_properties",
    "log_settings",
    "machine_properties",
    "memory_text",
    "own_cluster_properties",
    "quick_properties",
    "require_count",
    "standalone_properties",
    "worker_environment",
]

DRIVER_OPTIONS = "spark.driver.defaultJavaOptions"
EXECUTOR_OPTIONS = "spark.executor.defaultJavaOptions"
# What the JVM must know when it starts; all else can be told when the context is made.
_AT_LAUNCH = re.compile(
    r"spark\.driver\.(memory$|extra|default|userClassPathFirst)"
    r"|spark\.(jars|files|archives|submit|yarn|kerberos|kubernetes)\b"
)
_KNOWN = "|".join(
    [
        r".*could not bind on port \\d+\\. Attempting port",
        "Exception in task ",
        r".*\\nRaised by [a-z0-9 ]*partition \\d+ on ",
        r"Task \\d+ in stage [\\d.]+ failed \\d+ times; aborting job",
        r"Block rdd_\\d+_\\d+ could not be removed as it was not found",
    ]
)
_LOG_SETTINGS = """\
rootLogger.level = {level}
rootLogger.appenderRef.console.ref = console
rootLogger.appenderRef.console.level = {console_level}
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{{yy/MM/dd HH:mm:ss}} %p %c{{1}}: %m%n%ex
# Several programs on one machine are nothing to warn of: each takes the next free port. What a task
# of ours has raised, Python raises or tells of, as it does what ends a job; and the executor's line
# is followed by one of the scheduler, with the same texts. A partition that failed was never held.
# One filter for all: an appender takes no second one.
appender.console.filter.known.type = RegexFilter
appender.console.filter.known.regex = (?s)({known}).*
appender.console.filter.known.onMatch = DENY
appender.console.filter.known.onMismatch = NEUTRAL
# Spark takes a driver JVM of Python for a shell, whose terminal gets this level at most.
logger.shell.name = org.apache.spark.api.python.PythonGatewayServer
logger.shell.level = {level}
logger.native.name = org.apache.hadoop.util.NativeCodeLoader
logger.native.level = error
"""
_LOG_FILE = """\
rootLogger.appenderRef.file.ref = file
appender.file.type = File
appender.file.name = file
appender.file.fileName = {file}
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{yy/MM/dd HH:mm:ss}} %p %c{{1}}: %m%n%ex
"""


def as_properties(conf: Mapping[str, object] | SparkConf | None) -> dict[str, str]:
    """What the user gave as `conf`, as text by property name."""
    if conf is None:
        return {}
    if isinstance(conf, Mapping):
        return {key: _as_text(key, value) for key, value in conf.items()}
    if hasattr(conf, "getAll"):
        return dict(conf.getAll())
    raise InputError(
        "conf to be a dict of Spark properties",
        type(conf).__name__,
        'Write it like conf={"spark.sql.shuffle.partitions": "8"}.',
    )


def _as_text(name: str, value: object) -> str:
    if value is None:
        raise InputError(
            f"a value of {name} in conf", "None", "Leave the property out to not set it."
        )
    return str(value).lower() if isinstance(value, bool) else str(value)


def escaped(value: str) -> str:
    """A value as files of properties hold it: Java reads some of them as Latin-1."""
    plain = value.replace("\\", "\\\\")
    for char, written in (("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        plain = plain.replace(char, written)
    if plain.startswith(" "):  # it would be taken for the space after the equals sign
        plain = "\\" + plain
    if plain.isascii():
        return plain
    units = plain.encode("utf-16-be", "surrogatepass")
    codes = [int.from_bytes(units[at : at + 2], "big") for at in range(0, len(units), 2)]
    return "".join(chr(code) if code < 128 else f"\\u{code:04x}" for code in codes)


def require_count(name: str, value: object) -> int:
    """Accept a positive whole number only.

    Raises:
        InputError: It is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(
            f"{name} to be a positive whole number", repr(value), f"Pass {name}=2, for example."
        )
    return value


def memory_text(value: object, name: str) -> str:
    """A size of memory as the JVM reads it: a whole number and one letter.

    Raises:
        InputError: It is something else.
    """
    match = re.fullmatch(r"([1-9]\d*)\s*([kmgt])b?", str(value).strip().lower())
    if match is None:
        raise InputError(
            f"{name} to be a whole number with a unit k, m, g or t",
            repr(value),
            f'Write it like {name}="2g".',
        )
    return match[1] + match[2]


def launch_properties(properties: Mapping[str, str]) -> dict[str, str]:
    """Those properties that must be known when the driver JVM starts."""
    chosen = {key: value for key, value in properties.items() if _AT_LAUNCH.match(key)}
    master = properties.get("spark.master", "")
    if not re.match(r"local(\[|$)|spark://|$", master):
        chosen["spark.master"] = master
    return chosen


def common_properties() -> dict[str, str]:
    """What is set in every mode where nobody else did."""
    return {
        "spark.app.name": "zoo",
        # Whoever can open the pages of Spark, such as each user of this machine, could end jobs.
        "spark.ui.killEnabled": "false",
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.ui.showConsoleProgress": "false",
    }


def machine_properties(scratch: Path) -> dict[str, str]:
    """What is set besides when all processes are on this machine, where nobody else did.

    Without a `spark.local.dir` Spark keeps its blocks where Java keeps its temporary files.

    Args:
        scratch: The directory that is to hold them, and is removed in the end.
    """
    folder = scratch / "tmp"
    folder.mkdir(exist_ok=True)
    # Without the last option each JVM leaves a file in /tmp/hsperfdata_<user> when it is killed.
    mine = f"{shlex.quote(f'-Djava.io.tmpdir={folder}')} -XX:+PerfDisableSharedMem"
    options = f"{mine} {archive_options()}".rstrip()
    properties = {DRIVER_OPTIONS: options, EXECUTOR_OPTIONS: options}
    # Loopback keeps other machines out, this other users of the same one.
    properties["spark.authenticate"] = "true"
    return properties | _import_places()


def quick_properties(master: str) -> dict[str, str]:
    """What lets those JVMs start sooner that are on this machine, where the others may not be."""
    options = archive_options()
    made = {DRIVER_OPTIONS: options} if options else {}
    if not master.startswith("local-cluster["):
        return made
    return _import_places() | made | ({EXECUTOR_OPTIONS: options} if options else {})


def _import_places() -> dict[str, str]:
    """Where workers on this machine import from.

    They share its files but not this process's `sys.path`: what lies beside the user's program, and
    this package when it is not installed, they would not find.
    """
    installed = {Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib")}
    places = [Path(__file__).resolve().parents[3], *(Path(p).absolute() for p in sys.path)]
    own = [str(p) for p in places if p.is_dir() and not installed & {p, *p.parents}]
    return {"spark.executorEnv.PYTHONPATH": os.pathsep.join(dict.fromkeys(own))} if own else {}


def local_properties(cores: int | str, memory: str | None) -> dict[str, str]:
    """What makes a Spark inside one JVM, which nobody outside this machine can reach."""
    slots = cores if cores == "*" else require_count("cores", cores)
    properties = {"spark.master": f"local[{slots}]", **driver_at(LOOPBACK)}
    if memory is not None:
        properties["spark.driver.memory"] = memory_text(memory, "memory")
    return properties


def standalone_properties(executors: int, cores: int, memory: str) -> dict[str, str]:
    """How many executors of what size to ask a standalone master for."""
    require_count("num_nodes", executors)
    require_count("cores", cores)
    return {
        "spark.executor.instances": str(executors),
        "spark.executor.cores": str(cores),
        "spark.executor.memory": memory,
        "spark.cores.max": str(executors * cores),
    }


def own_cluster_properties(secret: str) -> dict[str, str]:
    """What lets a driver and a cluster of its own know each other."""
    return {"spark.authenticate": "true", "spark.authenticate.secret": secret}


def driver_at(address: str) -> dict[str, str]:
    """Where the driver listens to its executors."""
    return {"spark.driver.host": address, "spark.driver.bindAddress": address}


def worker_environment(cores: int | str) -> dict[str, str]:
    """The thread settings of Python workers: one thread for each task unless told otherwise."""
    threads = os.environ.get("ZOO_NUM_MKLTHREADS", os.environ.get("OMP_NUM_THREADS", "1"))
    if threads.lower() == "all":
        threads = str(os.cpu_count() if cores == "*" else cores)
    settings = {"OMP_NUM_THREADS": threads, "KMP_BLOCKTIME": "0"}
    for name in ("KMP_AFFINITY", "KMP_BLOCKTIME", "KMP_SETTINGS"):
        if name in os.environ:
            settings[name] = os.environ[name]
    return {f"spark.executorEnv.{name}": value for name, value in settings.items()}


def log_settings(level: str, file: Path | None) -> str:
    """The log4j2 settings of a JVM of ours.

    Args:
        level: What is logged at all.
        file: Where all of it goes, leaving only warnings to the terminal. None: all of it goes
            to the terminal.
    """
    text = _LOG_SETTINGS.format(level=level, known=_KNOWN, console_level="WARN" if file else level)
    return text + _LOG_FILE.format(file=escaped(str(file))) if file else text
