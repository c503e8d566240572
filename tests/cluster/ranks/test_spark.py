"""Ranks as tasks of Spark: several executors, and what Spark says when it fails."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest

from zoo.cluster.ranks import spark as spark_module
from zoo.cluster.ranks.carried import pickled
from zoo.cluster.ranks.member import Member
from zoo.cluster.ranks.round import launch
from zoo.cluster.ranks.spark import SparkLauncher
from zoo.errors import ClusterError, RankError, RankLostError, SlotsError

cloudpickle.register_pickle_by_value(sys.modules[__name__])

Fresh = Callable[..., subprocess.CompletedProcess[str]]

HEAD = """
import json, os, signal, sys, time
import psutil
from zoo.cluster.ranks.carried import pickled
from zoo.cluster.ranks.launcher import launcher_for
from zoo.cluster.ranks.round import launch
from zoo.errors import RankError
from zoo.orca import init_orca_context, stop_orca_context

def run(body, ranks, per_executor, **how):
    return launch(pickled(body, "it"), launcher=launcher_for("spark"), ranks=ranks,
                  per_executor=per_executor, **how)
"""
TWO_EXECUTORS = """
sc = init_orca_context("standalone", num_nodes=2, cores=2, memory="512m",
                       conf={"spark.ui.enabled": "false"})

def who(member):
    return b"", {"executors": [p.executor for p in member.peers], "pid": os.getpid(),
                 "parent": os.getppid(), "address": member.arrival.address}

def lost(member):
    if member.rank == 1:
        stands_in = f"zoo-for-{os.getppid()}"  # a child of the executor, for its daemon
        executor, = (p.ppid() for p in psutil.process_iter() if p.name() == stands_in)
        os.kill(executor, signal.SIGKILL)
        time.sleep(600)
    member.share(0)
    return b"", {}

facts = {"one": [r.body for r in run(who, 2, 1)], "four": [r.body for r in run(who, 4, 2)]}
start = time.monotonic()
try:
    run(lost, 2, 1)
except RankError as exc:
    facts["lost"] = str(exc)
facts["lost_s"] = time.monotonic() - start
facts["sum"] = sc.parallelize(range(10), 4).sum()
facts["again"] = len(run(who, 2, 2))
print(json.dumps(facts))
stop_orca_context()
"""


def facts_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


@pytest.mark.slow
def test_ranks_spread_over_executors(fresh_python: Fresh) -> None:
    facts = facts_of(fresh_python(HEAD + TWO_EXECUTORS))
    assert len(set(facts["one"][0]["executors"])) == 2
    executors = facts["four"][0]["executors"]
    assert executors[0] == executors[1] != executors[2] == executors[3]
    assert len({body["parent"] for body in facts["four"]}) == 2
    # The death of an executor is told at once, and Spark goes on.
    assert "rank 1 on" in facts["lost"]
    assert facts["lost_s"] < 15.0
    assert (facts["sum"], facts["again"]) == (45, 2)


class Unreachable(SparkLauncher):
    """Tells its tasks an address at which nobody listens."""

    @property
    def reached_at(self) -> str:
        return "127.0.0.2"


@pytest.mark.spark
def test_driver_that_cannot_be_reached_is_said(spark: Any) -> None:
    with pytest.raises(ClusterError, match=r"cannot reach .*127\.0\.0\.2.* refused"):
        launch(b"", launcher=Unreachable(), ranks=2, per_executor=2)


@pytest.mark.spark
def test_package_that_executors_lack_is_named(spark: Any) -> None:
    sys.modules["only_on_the_driver"] = module = type(sys)("only_on_the_driver")
    exec("def body(member): return b'', {}", vars(module))
    body = pickled(vars(module)["body"], "it")
    try:
        with pytest.raises(ModuleNotFoundError, match="only_on_the_driver"):
            launch(body, launcher=SparkLauncher(), ranks=1, per_executor=1)
    finally:
        del sys.modules["only_on_the_driver"]


@pytest.mark.spark
def test_worker_that_dies_before_the_meeting_is_an_error(spark: Any) -> None:
    class Deadly:
        def __reduce__(self) -> Any:
            return __import__("os")._exit, (3,)

    class Broken(SparkLauncher):
        def start(self, invitation: Any, body: bytes, ranks: int) -> Any:
            # The body is not looked at before the meeting: only the address can hurt there.
            object.__setattr__(invitation, "address", Deadly())
            return super().start(invitation, body, ranks)

    with pytest.raises(Exception, match=r"exited unexpectedly|crashed"):
        launch(b"", launcher=Broken(), ranks=1, per_executor=1)


@pytest.mark.spark
def test_launches_from_several_threads_at_once(spark: Any) -> None:
    def body(member: Member) -> tuple[bytes, dict[str, Any]]:
        return b"", {"values": member.share(member.rank)}

    results: list[Any] = []

    def once() -> None:
        results.append(
            launch(pickled(body, "it"), launcher=SparkLauncher(), ranks=2, per_executor=2)
        )

    threads = [threading.Thread(target=once) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [[r.body["values"] for r in rs] for rs in results] == [[[0, 1], [0, 1]]] * 4


@pytest.mark.spark
def test_session_goes_on_after_failures(spark: Any) -> None:
    def dies(member: Member) -> tuple[bytes, dict[str, Any]]:
        __import__("os")._exit(1)

    for _ in range(3):
        with pytest.raises(RankError):
            launch(pickled(dies, "it"), launcher=SparkLauncher(), ranks=2, per_executor=2)
    assert spark.range(100).count() == 100


# What Spark says, in our words


@pytest.mark.parametrize(
    ("text", "kind", "told"),
    [
        ("x\nModuleNotFoundError: No module named 'rich'", ClusterError, "No module named 'rich'"),
        ("x\nPython worker exited unexpectedly (crashed)", RankLostError, "exited unexpectedly"),
        ("ExecutorLostFailure (executor 1 exited)", RankLostError, "executor 1 exited"),
        ("due to node and executor excludeOnFailure.", SlotsError, "excludeOnFailure"),
    ],
)
def test_failures_of_spark_are_explained(text: str, kind: type[Exception], told: str) -> None:
    inside = SimpleNamespace(isStopped=lambda: False)
    runs: Any = SimpleNamespace(_jsc=SimpleNamespace(sc=lambda: inside))
    found = spark_module._explained(Exception(text), runs)
    assert type(found) is kind
    assert told in str(found)


def test_error_of_a_spark_that_has_ended_says_so() -> None:
    stopped: Any = SimpleNamespace(_jsc=None)
    found = spark_module._explained(Exception("ExecutorLostFailure"), stopped)
    assert type(found) is ClusterError
    assert "was stopped" in str(found)


class Executor:
    """An executor as Spark's status store tells of it."""

    def __init__(self, number: int, excluded: bool) -> None:
        self.id, self.hostPort = lambda: str(number), lambda: f"host{number}:4711"
        self.isExcluded = lambda: excluded


@pytest.mark.parametrize(
    ("excluded", "told"),
    [([], ""), ([2], "2 on host2:4711;"), (range(9), "4 on host4:4711 and 4 more; see spark.")],
)
def test_executors_that_spark_has_excluded_are_named(excluded: Any, told: str) -> None:
    found = [Executor(n, n in excluded) for n in range(10)]
    listed = SimpleNamespace(size=lambda: len(found), apply=lambda k: found[k])
    store = SimpleNamespace(executorList=lambda only_active: listed)
    inner = SimpleNamespace(statusStore=lambda: store)
    launcher: Any = object.__new__(SparkLauncher)
    launcher._context = SimpleNamespace(_jsc=SimpleNamespace(sc=lambda: inner))
    assert told in launcher.hindered()
    assert bool(launcher.hindered()) is bool(told)


@pytest.mark.spark
def test_spark_tells_of_its_executors(spark: Any) -> None:
    assert SparkLauncher().hindered() == ""


GONE = """
import json, os, sys, threading, time
from zoo.cluster.ranks.carried import pickled
from zoo.cluster.ranks.launcher import launcher_for
from zoo.cluster.ranks.round import RoundHooks, launch
from zoo.cluster.session import lifecycle
from zoo.errors import ClusterError
from zoo.orca import init_orca_context, stop_orca_context

def body(member):
    time.sleep(60)
    return b"", {}

class Strike(RoundHooks):
    def on_world(self, peers):
        threading.Thread(target=strike).start()

def told(launcher, hooks):
    try:
        launch(pickled(body, "it"), launcher=launcher, ranks=2, per_executor=2, hooks=hooks)
    except ClusterError as exc:
        return str(exc)

words = {}
for how in ("stopped", "killed"):
    init_orca_context(cores=2, memory="512m", conf={"spark.ui.enabled": "false"})
    driver, launcher = lifecycle._session.driver.pid, launcher_for("spark")
    strike = stop_orca_context if how == "stopped" else lambda: os.kill(driver, 9)
    words[how] = [told(launcher, Strike()), told(launcher, None)]
print(json.dumps(words))
"""


@pytest.mark.slow
def test_spark_that_ends_under_ranks_is_a_cluster_error(fresh_python: Fresh) -> None:
    words = facts_of(fresh_python(GONE))
    assert words["stopped"][0]
    assert words["killed"][0]
    assert "was stopped" in words["stopped"][1]
    assert "the end of its JVM" in words["killed"][1]
