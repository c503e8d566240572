import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [pytest.mark.spark, pytest.mark.slow]

LIFE = """
import json, os, subprocess, sys, psutil
from zoo.cluster import session
from zoo.cluster.guard import jvm_pid
from zoo.orca import init_orca_context, stop_orca_context

def whereabouts(_):
    import zoo
    return jvm_pid(), os.environ.get("SPARK_LOCAL_DIRS", "")

def living(process):
    try:
        return process.status() != "zombie"
    except psutil.NoSuchProcess:
        return False

sc = init_orca_context("STANDALONE", cores=1, memory="512m", num_nodes=2)
facts = {"dir": str(session.session_dir())}
facts["executors"] = session.await_executors.__globals__["live_executors"](sc)
facts["places"] = sc.range(4, numSlices=4).map(whereabouts).collect()
facts["shape"] = session.nodes_and_cores(sc)
facts["bind"] = session.bind_address(sc)
family = [psutil.Process(), *psutil.Process().children(recursive=True)]
family = [process for process in family if living(process)]
facts["ports"] = [
    place.laddr.ip
    for process in family
    for place in process.net_connections() if place.status == "LISTEN"
]
secret = sc.getConf().get("spark.authenticate.secret")
facts["secret shown"] = any(secret in " ".join(process.cmdline()) for process in family)

JOIN = '''
import sys
from zoo.cluster import session
from zoo.orca import init_orca_context
conf = {"spark.authenticate": "true", "spark.authenticate.secret": sys.stdin.read()}
sc = init_orca_context("standalone", master=sys.argv[1], cores=1, memory="512m", conf=conf)
print(session.bind_address(sc), sc.parallelize([1, 2], 2).sum())
'''
url = sc.master
context, session._session.cluster = session._session.cluster, None
stop_orca_context()
session._session.cluster = context
join = [sys.executable, "-c", JOIN, url]
done = subprocess.run(join, input=secret, capture_output=True, text=True)
facts["joined"] = done.stdout + done.stderr
stop_orca_context()
facts["left"] = [process.pid for process in family[3:] if process.is_running()
                 and process.status() != "zombie" and process.pid != session._session.driver.pid]
print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def life(fresh_python: Run) -> subprocess.CompletedProcess[str]:
    """A program that starts a cluster, has another program join it, and stops it."""
    return fresh_python(LIFE)


@pytest.fixture(scope="module")
def facts(life: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert life.returncode == 0, life.stderr
    found: dict[str, object] = json.loads(life.stdout)
    return found


def test_start_and_stop_are_silent(life: subprocess.CompletedProcess[str]) -> None:
    assert life.stderr == ""


def test_executors_are_there_when_init_returns(facts: dict[str, object]) -> None:
    assert facts["executors"] == 2
    assert facts["shape"] == [2, 1]


def test_executors_are_separate_processes(facts: dict[str, list[list[object]]]) -> None:
    assert len({pid for pid, _ in map(tuple, facts["places"])}) == 2


def test_temporary_files_are_in_the_session_dir(facts: dict[str, list[list[str]]]) -> None:
    folder = str(facts["dir"])
    assert all(place.startswith(folder) for _, place in facts["places"])
    assert not Path(folder).exists()


def test_every_port_listens_on_loopback(facts: dict[str, list[str]]) -> None:
    # Master, worker, their UIs, the driver with its UI, and two executors.
    assert len(facts["ports"]) >= 9
    assert {ip.removeprefix("::ffff:") for ip in facts["ports"]} == {"127.0.0.1"}
    assert facts["bind"] == "127.0.0.1"


def test_secret_is_on_no_command_line(facts: dict[str, object]) -> None:
    assert facts["secret shown"] is False


def test_another_program_can_join_with_the_secret(facts: dict[str, object]) -> None:
    assert facts["joined"] == "127.0.0.1 3\n"


def test_stop_ends_the_cluster(facts: dict[str, object]) -> None:
    assert facts["left"] == []


@pytest.mark.parametrize("target", ["jvm", "both"])
def test_nothing_is_left_after_kill(
    left_after_kill: Callable[[str, str], list[str]], target: str
) -> None:
    assert left_after_kill("standalone", target) == []
