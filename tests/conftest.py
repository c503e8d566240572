"""Fixtures of all tests."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from warm_launcher import WarmLauncher, warm_up
from zoo.orca import OrcaContext, init_orca_context, stop_orca_context

# JVMs of tests live for seconds: optimised code and a parallel collector cost more than they save.
QUICK_JVM = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
os.environ.setdefault("SPARK_LAUNCHER_OPTS", QUICK_JVM)
os.environ.setdefault("SPARK_DAEMON_JAVA_OPTS", QUICK_JVM)
os.environ.setdefault(
    "SPARK_SUBMIT_OPTS", f'{QUICK_JVM} "-Dspark.executor.extraJavaOptions={QUICK_JVM}"'
)


# What the call of a test may take; the marker that allows the most counts.
CALL_S = {"spark": 10.0, "slow": float("inf"), "long": float("inf")}
UNMARKED_S = 2.0
# Machines differ, and are noisy: up to this much more is told at the end of a run, and no failure.
# A second machine took three times as long for tests that start a program.
TOLERANCE = 8.0

# What all tests of a folder may take together, fixtures included. Told at the end of a run.
WING_S = {
    ".": 150,
    "benchmarks": 90,
    "cluster": 350,
    "conformance": 270,
    "docs": 540,
    "examples": 360,
    "faults": 600,
    "orca/data": 330,
    "orca/learn": 900,
}
OTHER_WINGS_S = 60

spent_s: defaultdict[str, float] = defaultdict(float)
counts: Counter[str] = Counter()
long_ones: dict[str, object] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes share the tests, begin with the files that take long."""
    if hasattr(config, "workerinput"):
        slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
        size = Counter(item.path for item in items)
        items.sort(key=lambda item: (-slow[item.path], -size[item.path], item.path))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Spark only where it is marked."""
    given = getattr(item, "callspec", None)
    fixtures = {*getattr(item, "fixturenames", ())}.difference(given.params if given else ())
    if "spark" in fixtures and not item.get_closest_marker("spark"):
        pytest.fail("the fixture `spark` is for tests that are marked `spark`", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A test that takes longer than its markers allow fails."""
    marked = [CALL_S[mark.name] for mark in item.iter_markers() if mark.name in CALL_S]
    limit_s = max(marked, default=UNMARKED_S)
    wall, cpu = time.monotonic(), sum(os.times()[:4])
    done = yield
    wall, cpu = time.monotonic() - wall, sum(os.times()[:4]) - cpu
    # On a busy machine a test waits for its turn: then its share of the time counts, or the work
    # that it did.
    took_s = max(wall / crowd(), min(wall, cpu))
    if took_s > limit_s:
        item.user_properties.append(("took long", f"{took_s:.1f} s of {limit_s:g} s"))
    if took_s > TOLERANCE * limit_s:
        pytest.fail(
            f"took {took_s:.1f} s of {limit_s:g} s: make it shorter, or mark it `slow`",
            pytrace=False,
        )
    return done


def crowd() -> float:
    """How many programs want each core, at least one: in the last minute, or right now."""
    now = Path("/proc/loadavg").read_text().split()[3].partition("/")[0]
    return max(1.0, max(os.getloadavg()[0], float(now)) / (os.cpu_count() or 1))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up what each folder takes."""
    folders = report.nodeid.partition("::")[0].split("/")[1:-1]
    if found := dict(report.user_properties).get("took long"):
        long_ones[report.nodeid] = found
    wing = "/".join(folders[: 2 if folders[:1] == ["orca"] else 1]) or "."
    spent_s[wing] += report.duration
    counts[wing] += report.when == "call"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell what each folder took."""
    terminalreporter.section("wings")
    for wing, seconds in sorted(spent_s.items()):
        limit_s = WING_S.get(wing, OTHER_WINGS_S)
        over = "  too much" if seconds > limit_s * crowd() else ""
        line = f"{wing:<12} {counts[wing]:5} tests {seconds:6.0f} s of {limit_s:4} s{over}"
        terminalreporter.line(line)
    for name, text in sorted(long_ones.items()):
        terminalreporter.line(f"took long: {name}: {text}")


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """One small local Spark for the whole run."""
    conf = {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "4"}
    init_orca_context(cores=4, memory="3g", conf=conf)
    yield OrcaContext.get_spark_session()
    stop_orca_context()


@pytest.fixture(scope="session")
def warm_launcher() -> type[WarmLauncher]:
    """The local launcher with ranks that start at once."""
    warm_up()
    return WarmLauncher


def plain_environment() -> dict[str, str]:
    """What a user's shell has: none of the variables that a running Spark leaves here."""
    return {
        name: value
        for name, value in os.environ.items()
        if "SPARK" not in name or name.endswith("_OPTS")
    }


@pytest.fixture(scope="session")
def run_program() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script of this repository in a Python of its own."""

    def run(
        script: Path, *options: object, timeout_s: float = 800
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error::UserWarning", str(script), *map(str, options)],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env=plain_environment(),
        )

    return run


@pytest.fixture(scope="session")
def fresh_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program in a Python of its own, for what would disturb the shared Spark."""

    def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error::UserWarning", "-c", program],
            capture_output=True,
            text=True,
            timeout=800,
            check=False,
            env={**plain_environment(), **environment},
        )

    return run
