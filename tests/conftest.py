"""Fixtures of all tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from pyspark.sql import SparkSession

from zoo.orca import OrcaContext, init_orca_context, stop_orca_context

# JVMs of tests live for seconds: optimised code and a parallel collector cost more than they save.
QUICK_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
os.environ.setdefault("SPARK_LAUNCHER_OPTS", QUICK_JVM)
os.environ.setdefault("SPARK_DAEMON_JAVA_OPTS", QUICK_JVM)
os.environ.setdefault(
    "SPARK_SUBMIT_OPTS", f'{QUICK_JVM} "-Dspark.executor.extraJavaOptions={QUICK_JVM}"'
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes share the tests, begin with the files that take long."""
    if hasattr(config, "workerinput"):
        slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
        size = Counter(item.path for item in items)
        items.sort(key=lambda item: (-slow[item.path], -size[item.path], item.path))


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """One small local Spark for the whole run."""
    conf = {
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "4",
        "spark.python.daemon.module": "warm_daemon",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        init_orca_context(cores=4, memory="3g", conf=conf)
    yield OrcaContext.get_spark_session()
    stop_orca_context()


def plain_environment() -> dict[str, str]:
    """What a user's shell has: none of the variables that a running Spark leaves here."""
    return {
        name: value
        for name, value in os.environ.items()
        if "SPARK" not in name or name.endswith("_OPTS")
    }


@pytest.fixture(scope="session")
def fresh_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program in a Python of its own, for what would disturb the shared Spark."""

    def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error::UserWarning", "-c", program],
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
            env={**plain_environment(), **environment},
        )

    return run


VICTIM = """
import json, threading, time
from zoo.cluster import session
from zoo.orca import init_orca_context
sc = init_orca_context({mode!r}, cores=1, memory="512m", num_nodes={nodes})
sc.parallelize(range(4), 2).count()
work = sc.parallelize(range(4), 2).map(lambda _: time.sleep(600))
threading.Thread(target=work.count, daemon=True).start()
time.sleep(2)
facts = {{"driver": session._session.driver.pid, "dir": str(session.session_dir())}}
print(json.dumps(facts), flush=True)
time.sleep(600)
"""


@pytest.fixture
def left_after_kill() -> Iterator[Callable[[str, str], list[str]]]:
    """Start Spark in a Python of its own, kill parts of it, and tell what is left 15 s later."""
    victims = []

    def kill(mode: str, target: str) -> list[str]:
        program = VICTIM.format(mode=mode, nodes=1 if mode == "local" else 2)
        python = subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=plain_environment(),
        )
        victims.append(python)
        assert python.stdout is not None
        facts = json.loads(python.stdout.readline())
        family = psutil.Process(python.pid).children(recursive=True)
        targets = {"python": [python.pid], "jvm": [facts["driver"]]}
        targets["both"] = targets["python"] + targets["jvm"]
        for pid in targets[target]:
            os.kill(pid, signal.SIGKILL)
        return _left(family, Path(facts["dir"]))

    yield kill
    for victim in victims:
        victim.kill()
        victim.communicate()


def _left(family: list[psutil.Process], folder: Path) -> list[str]:
    deadline = time.monotonic() + 15
    while True:
        left = [str(one) for one in family if _runs(one)]
        left += [str(folder)] if folder.exists() else []
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
