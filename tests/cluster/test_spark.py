"""Ranks as tasks of Spark: several executors, and what Spark says when it fails."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from pyspark import cloudpickle

from zoo.cluster.launch import pickled
from zoo.cluster.meeting import Member
from zoo.cluster.round import launch
from zoo.cluster.spark import SparkLauncher
from zoo.errors import ClusterError, RankError

cloudpickle.register_pickle_by_value(sys.modules[__name__])

Fresh = Callable[..., subprocess.CompletedProcess[str]]

HEAD = """
import json, os, signal, sys, time
import psutil
from zoo.cluster.launch import launcher_for, pickled
from zoo.cluster.round import launch
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
        daemon = psutil.Process(os.getppid())
        os.kill(daemon.ppid(), signal.SIGKILL)
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


def test_driver_that_cannot_be_reached_is_said(spark: Any) -> None:
    with pytest.raises(ClusterError, match=r"cannot reach .*127\.0\.0\.2.* refused"):
        launch(b"", launcher=Unreachable(), ranks=2, per_executor=2)


def test_package_that_executors_lack_is_named(spark: Any) -> None:
    sys.modules["only_on_the_driver"] = module = type(sys)("only_on_the_driver")
    exec("def body(member): return b'', {}", vars(module))
    body = pickled(vars(module)["body"], "it")
    try:
        with pytest.raises(ModuleNotFoundError, match="only_on_the_driver"):
            launch(body, launcher=SparkLauncher(), ranks=1, per_executor=1)
    finally:
        del sys.modules["only_on_the_driver"]


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


def test_session_goes_on_after_failures(spark: Any) -> None:
    def dies(member: Member) -> tuple[bytes, dict[str, Any]]:
        __import__("os")._exit(1)

    for _ in range(3):
        with pytest.raises(RankError):
            launch(pickled(dies, "it"), launcher=SparkLauncher(), ranks=2, per_executor=2)
    assert spark.range(100).count() == 100
