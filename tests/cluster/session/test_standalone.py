import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(900)]

LIFE = """
import json, os, re, subprocess, sys, psutil
sys.path.insert(0, "beside")
import double
from victims import AtWork, answer, command, family, kill_jvm, left, ports, runs
from zoo.cluster.session import lifecycle
from zoo.cluster.session.topology import live_executors
from zoo.orca import init_orca_context, stop_orca_context

sc = init_orca_context(cores=1)
facts = {"doubled": [sc.parallelize([1, 2], 2).map(double.double).sum()]}
stop_orca_context()

def whereabouts(_):
    import zoo
    # All workers of an executor come from one process.
    return os.getppid(), os.environ.get("SPARK_LOCAL_DIRS", "")

sc = init_orca_context("STANDALONE", cores=1, memory="512m", num_nodes=2)
facts["dir"] = str(lifecycle.session_dir())
facts["executors"] = live_executors(sc)
facts["doubled"].append(sc.parallelize([1, 2], 2).map(double.double).sum())
facts["places"] = []
while len({parent for parent, _ in facts["places"]}) < 2:  # the quicker one may do all of a job
    facts["places"] += sc.range(4, numSlices=4).map(whereabouts).collect()
facts["shape"] = lifecycle.nodes_and_cores(sc)
facts["bind"] = lifecycle.bind_address(sc)
members = family()
facts["ports"] = ports([psutil.Process(), *members])
secret = sc.getConf().get("spark.authenticate.secret")
facts["secret shown"] = any(secret in command(process) for process in members)
logs = lifecycle.session_dir().glob("standalone-*/*.log")
pages = [re.search(r"started at (http://\\S+)", log.read_text())[1] for log in sorted(logs)]
facts["pages"] = [answer(page) for page in pages]
facts["retire"] = answer(pages[0] + "/workers/kill/", b"host=127.0.0.1")

JOIN = '''
import sys
from zoo.cluster.session import lifecycle
from zoo.orca import init_orca_context
conf = {"spark.authenticate": "true", "spark.authenticate.secret": sys.stdin.read()}
sc = init_orca_context("standalone", master=sys.argv[1], cores=1, memory="512m", conf=conf)
print(lifecycle.bind_address(sc), sc.parallelize([1, 2], 2).sum())
'''
url = sc.master
cluster, lifecycle._session.cluster = lifecycle._session.cluster, None
stop_orca_context()
lifecycle._session.cluster = cluster
join = [sys.executable, "-c", JOIN, url]
done = subprocess.run(join, input=secret, capture_output=True, text=True)
facts["joined"] = done.stdout + done.stderr
stop_orca_context()
driver = lifecycle._session.driver.pid
guard = [process.pid for process in members if "watcher" in command(process)]
facts["left"] = [str(one) for one in members if runs(one) and one.pid not in (driver, *guard)]
print("ends", file=sys.stderr, flush=True)

work = AtWork(init_orca_context("standalone", cores=1, memory="512m"))
facts["after kill"] = work.after(kill_jvm)
facts["left after kill"] = left(work.family, work.folder)
work = AtWork(init_orca_context("standalone", cores=1, memory="512m"))
facts["last dir"] = work.folder
facts["last family"] = [(one.pid, one.create_time()) for one in work.family if runs(one)]
print(json.dumps(facts), flush=True)
kill_jvm()
os.kill(os.getpid(), 9)
"""


@pytest.fixture(scope="module")
def life(
    fresh_python: Run, tmp_path_factory: pytest.TempPathFactory
) -> subprocess.CompletedProcess[str]:
    """A program that starts clusters: one that another joins, and two that are killed.

    Folders have odd names, and the locale is the plain one, in which Java knows ASCII only.
    """
    folder = tmp_path_factory.mktemp("a f\u00f6lder")
    (folder / "beside").mkdir()
    (folder / "beside" / "double.py").write_text("def double(x):\n    return 2 * x\n")
    here = {"TMPDIR": str(folder), "PYTHONPATH": str(Path(__file__).parent), "LC_ALL": "C"}
    return fresh_python(f"import os; os.chdir({str(folder)!r})\n{LIFE}", **here)


@pytest.fixture(scope="module")
def facts(life: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert life.returncode == -9, life.stderr
    found: dict[str, Any] = json.loads(life.stdout)
    return found


def test_start_and_stop_are_silent(life: subprocess.CompletedProcess[str]) -> None:
    assert life.stderr.partition("ends\n")[0] == ""


def test_modes_one_after_the_other_import_what_the_program_imports(facts: dict[str, Any]) -> None:
    assert facts["doubled"] == [6, 6]


def test_executors_are_there_when_init_returns(facts: dict[str, Any]) -> None:
    assert facts["executors"] == 2
    assert facts["shape"] == [2, 1]


def test_executors_are_separate_processes(facts: dict[str, Any]) -> None:
    assert len({parent for parent, _ in facts["places"]}) == 2


def test_temporary_files_are_in_the_session_dir(facts: dict[str, Any]) -> None:
    folder = facts["dir"]
    assert all(place.startswith(folder) for _, place in facts["places"])
    assert not Path(folder).exists()


def test_every_port_listens_on_loopback(facts: dict[str, Any]) -> None:
    # Master, worker, their UIs, the driver with its UI, and two executors.
    assert len(facts["ports"]) >= 9
    assert {ip.removeprefix("::ffff:") for ip in facts["ports"]} == {"127.0.0.1"}
    assert facts["bind"] == "127.0.0.1"


def test_pages_of_master_and_worker_are_shut(facts: dict[str, Any]) -> None:
    assert facts["pages"] == [403, 403]


def test_nobody_retires_workers(facts: dict[str, Any]) -> None:
    assert facts["retire"] in (403, 405)


def test_secret_is_on_no_command_line(facts: dict[str, Any]) -> None:
    assert facts["secret shown"] is False


def test_another_program_can_join_with_the_secret(facts: dict[str, Any]) -> None:
    assert facts["joined"] == "127.0.0.1 3\n"


def test_stop_ends_the_cluster(facts: dict[str, Any]) -> None:
    assert facts["left"] == []


def test_death_of_the_jvm_is_told(facts: dict[str, Any]) -> None:
    assert "received the end of its JVM." in facts["after kill"]


def test_nothing_is_left_after_the_jvm_was_killed(facts: dict[str, Any]) -> None:
    assert facts["left after kill"] == []


def test_nothing_is_left_after_both_were_killed(facts: dict[str, Any]) -> None:
    deadline = time.monotonic() + 15
    while (left := _left(facts)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


def _left(facts: dict[str, Any]) -> list[str]:
    found = [facts["last dir"]] if Path(facts["last dir"]).exists() else []
    for pid, born in facts["last family"]:
        try:
            process = psutil.Process(pid)
            if process.create_time() == born and process.status() != psutil.STATUS_ZOMBIE:
                found.append(str(process))
        except psutil.NoSuchProcess:
            continue
    return found
