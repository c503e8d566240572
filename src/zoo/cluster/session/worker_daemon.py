"""The process from which Spark forks its Python workers, with all loaded that the program uses.

Spark's own forks first and imports then, in each worker anew: seconds of a core for a worker that
needs torch. Here it is imported once on each executor, and a worker is there in 0.1 s.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zoo.cluster.session.topology import nodes_and_cores

if TYPE_CHECKING:
    from pyspark import SparkContext

__all__ = ["daemon_properties", "start_workers"]

_DAEMON = "spark.python.daemon.module"
_NAMES = "ZOO_PRELOADED_MODULES"
_PATH = "spark.executorEnv.PYTHONPATH"
# Their import starts no thread that a fork would lose; jemalloc's, for Arrow, is told of forks.
_HEAVY = ("numpy", "pandas", "pyarrow", "torch")


def daemon_properties(python: str, asked: Mapping[str, str]) -> dict[str, str]:
    """What lets executors on this machine fork their workers from here.

    Args:
        python: The program that workers are to run.
        asked: What the user asked for. A daemon of their own is left alone, and so are other
            places to import from: this package might not be in them.
    """
    if sys.platform != "linux" or python != sys.executable or {_DAEMON, _PATH} & {*asked}:
        return {}
    return {
        _DAEMON: __name__,
        f"spark.executorEnv.{_NAMES}": ",".join(_loaded_here()),
        # Workers of frames have this, and others not; with one environment one daemon has both.
        "spark.executorEnv.SPARK_SIMPLIFIED_TRACEBACK": "1",
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


def _preload() -> None:
    # What cannot be imported here is the task's to tell of.
    for name in ("pyspark.worker", *filter(None, os.environ.get(_NAMES, "").split(","))):
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    # Each worker collects garbage after each task: 0.1 s among all that torch has made.
    gc.freeze()
    # Each worker has all of these read their archive, pyspark.zip, twenty times: 0.3 s.
    for place in [place for place in sys.path_importer_cache if ".zip" in place]:
        del sys.path_importer_cache[place]


def main() -> None:
    """Import, and become Spark's own daemon."""
    _preload()
    if threading.active_count() > 1:
        # A fork would lose that thread, with the locks that it holds. Then as without this.
        os.execv(sys.executable, [sys.executable, "-m", "pyspark.daemon", *sys.argv[1:]])
    from pyspark.daemon import manager

    manager()


if __name__ == "__main__":
    main()
