"""The process from which Spark forks its Python workers, with all loaded that the program uses.

Spark's own forks first and imports then, in each worker anew: seconds of a core for a worker that
needs torch. Here it is imported once on each executor, and a worker is there in 0.1 s.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zoo.cluster.guard import session_dir, session_guard
from zoo.cluster.session.soon import noted_names
from zoo.cluster.session.topology import nodes_and_cores
from zoo.cluster.session.worker_template import (
    DAEMON,
    NAMES,
    PLACE,
    Template,
    call_process,
    fork_from_template,
    load_modules,
)

if TYPE_CHECKING:
    from pyspark import SparkContext

__all__ = ["daemon_properties", "end_template", "start_template", "start_workers"]

_DAEMON = "spark.python.daemon.module"
_PATH = "spark.executorEnv.PYTHONPATH"
# Their import starts no thread that a fork would lose; jemalloc's, for Arrow, is told of forks.
_HEAVY = ("numpy", "pandas", "pyarrow", "torch")
_ENVIRONMENT = "spark.executorEnv."

_template: Template | None = None


def start_template(
    python: str,
    asked: Mapping[str, str],
    defaults: Mapping[str, str],
    environment: Mapping[str, str],
) -> None:
    """Begin to import what workers on this machine will need; see `Template`.

    Args:
        python: The program that workers are to run.
        asked: The properties that are known before the driver JVM runs.
        defaults: More of them, which hold unless the user says otherwise.
        environment: Of the JVM, which its workers inherit.
    """
    global _template  # noqa: PLW0603 - one for the Sparks of this process, one after the other
    if not _ours(python, asked):
        return
    place = session_dir() / "workers"
    if _template is not None and _template.alive and place.exists():
        return
    end_template()
    variables = {
        name.removeprefix(_ENVIRONMENT): value
        for name, value in {**defaults, **asked}.items()
        if name.startswith(_ENVIRONMENT)
    }
    # As Spark does for workers.
    variables["PYTHONHASHSEED"] = os.environ.get("PYTHONHASHSEED", "0")
    variables["PYTHONUNBUFFERED"] = "YES"
    with contextlib.suppress(OSError):  # such as a path that is too long for a socket
        modules = [*_loaded_here(), *noted_names()]
        _template = Template(str(place), modules, {**environment, **variables})
        session_guard().add_process(_template.pid)


def end_template() -> None:
    """End the process, if there is one."""
    global _template  # noqa: PLW0603 - see above
    if _template is not None:
        _template.stop()
        _template = None


def _ours(python: str, asked: Mapping[str, str]) -> bool:
    """Whether workers may be forked from here."""
    return sys.platform == "linux" and python == sys.executable and not {_DAEMON, _PATH} & {*asked}


def daemon_properties(python: str, asked: Mapping[str, str]) -> dict[str, str]:
    """What lets executors on this machine fork their workers from here.

    Args:
        python: The program that workers are to run.
        asked: What the user asked for. A daemon of their own is left alone, and so are other
            places to import from: this package might not be in them.
    """
    if not _ours(python, asked):
        return {}
    place = {f"{_ENVIRONMENT}{PLACE}": _template.place} if _template is not None else {}
    return {
        _DAEMON: __name__,
        f"{_ENVIRONMENT}{NAMES}": ",".join(_loaded_here()),
        # Workers of frames have this, and others not; with one environment one daemon has both.
        f"{_ENVIRONMENT}SPARK_SIMPLIFIED_TRACEBACK": "1",
        **place,
    }


def _loaded_here() -> list[str]:
    """What this program has loaded by now, and its workers probably will."""
    ours = [name for name in sys.modules if name.partition(".")[0] == "zoo"]
    return [*(name for name in _HEAVY if name in sys.modules), *sorted(ours)]


def start_workers(context: SparkContext) -> None:
    """Have executors start their daemons while the program goes on."""
    if context.getConf().get(_DAEMON, "") != __name__:
        return
    # One task on each, which waits for the imports: with more, the first query would wait as well.
    tasks, _ = nodes_and_cores(context)
    context.setJobDescription("zoo: start Python workers")
    try:
        rows: Any = context.parallelize(range(tasks), tasks).mapPartitions(iter)
        rows._jrdd.countAsync()
    finally:
        context.setLocalProperty("spark.job.description", None)  # type: ignore[arg-type]


def main() -> None:
    """Import, and become Spark's own daemon."""
    if fork_from_template():
        return
    if not load_modules():
        # Then as without this.
        os.execv(sys.executable, [sys.executable, "-m", "pyspark.daemon", *sys.argv[1:]])
    from pyspark.daemon import manager

    call_process(DAEMON)
    manager()


if __name__ == "__main__":
    main()
