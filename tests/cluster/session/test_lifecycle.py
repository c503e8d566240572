import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from zoo.cluster.session import lifecycle
from zoo.cluster.session.driver import spark_command
from zoo.cluster.session.java import find_java
from zoo.cluster.session.options import StartOptions
from zoo.errors import ClusterError, InputError

pytestmark = pytest.mark.timeout(900)

Run = Callable[..., subprocess.CompletedProcess[str]]

LIFE = """
import json, os, sys, psutil
from victims import AtWork, answer, family, kill_jvm, left, ports
from zoo.cluster.session import lifecycle
from zoo.orca import OrcaContext, init_orca_context, stop_orca_context

sc = init_orca_context(cores=1, memory="512m")
facts = {"python": sc.parallelize([1], 1).map(lambda _: sys.executable).first()}
facts["dir"] = str(lifecycle.session_dir())
facts["ports"] = ports([psutil.Process(), *family()])
facts["kill"] = answer(sc.uiWebUrl + "/jobs/job/kill/?id=0", b"")
spark = OrcaContext.get_spark_session()
facts["arrow"] = spark.conf.get("spark.sql.execution.arrow.pyspark.enabled")
facts["frame"] = sc.parallelize([(1,)]).toDF(["a"]).count()
facts["variable"] = os.environ.get("PYSPARK_PYTHON")
java = sc._jvm.java.lang
facts["temporary"] = java.System.getProperty("java.io.tmpdir")
facts["heap"] = [java.Runtime.getRuntime().maxMemory() >> 20]
first = lifecycle._session.driver.pid
stop_orca_context()
stop_orca_context()
sc = init_orca_context(cores=2, memory="512m", conf={"spark.local.dir": "blocks"})
facts["kept jvm"] = lifecycle._session.driver.pid == first
facts["again"] = [sc.master, sc.parallelize([1, 2], 2).sum()]
facts["blocks"] = os.listdir("blocks")
stop_orca_context()
sc = init_orca_context(cores=1, memory="640m")
facts["heap"].append(sc._jvm.java.lang.Runtime.getRuntime().maxMemory() >> 20)
print("ends begin", file=sys.stderr, flush=True)

facts["after stop"] = AtWork(sc).after(stop_orca_context)
work = AtWork(init_orca_context(cores=1, memory="640m"))
facts["after kill"] = work.after(kill_jvm)
facts["left"] = left(work.family, work.folder)
print("ends end", file=sys.stderr, flush=True)

sc = init_orca_context(cores=1, memory="512m", spark_log_level="info")
facts["after all"] = sc.parallelize([1, 2]).sum()
facts["daemon"] = sc.getConf().get("spark.python.daemon.module")
stop_orca_context()
# Its executors may still tell a master that ends what they did.
print("cluster begin", file=sys.stderr, flush=True)
os.mkdir("conf")
os.environ["SPARK_CONF_DIR"] = os.path.abspath("conf")
with open("conf/spark-defaults.conf", "w") as file:
    file.write("spark.executorEnv.PYTHONPATH /elsewhere\\n")
conf = {"spark.master": "local-cluster[2,1,1024]"}
sc = init_orca_context("spark-submit", conf=conf)
pids = set()
while len(pids) < 2:  # the second executor may come when the first has done all
    pids |= {*sc.range(4, numSlices=4).map(lambda _: os.getppid()).collect()}
shape = lifecycle.nodes_and_cores(sc)
facts["local-cluster"] = [lifecycle.is_local(sc), *shape, len(pids)]
said = dict(sc.getConf().getAll())
facts["daemons"] = [facts["daemon"], said.get("spark.python.daemon.module")]
print(json.dumps(facts))
"""


@dataclass
class Life:
    """A program that starts Spark, stops it, kills it, starts it again and just ends."""

    folder: Path
    done: subprocess.CompletedProcess[str]

    def errors(self) -> tuple[str, str, str]:
        """What it wrote to the terminal before, while and after it ended Spark by force."""
        before, _, rest = self.done.stderr.partition("ends begin\n")
        while_, _, after = rest.partition("ends end\n")
        return before, while_, after.partition("cluster begin\n")[0]


@pytest.fixture(scope="module")
def life(fresh_python: Run, tmp_path_factory: pytest.TempPathFactory) -> Life:
    """Folders have odd names, and the locale is the plain one, in which Java knows ASCII only."""
    folder = tmp_path_factory.mktemp("a f\u00f6lder")
    here = {"TMPDIR": str(folder), "PYTHONPATH": str(Path(__file__).parent), "LC_ALL": "C"}
    return Life(folder, fresh_python(f"import os; os.chdir({str(folder)!r})\n{LIFE}", **here))


@pytest.fixture(scope="module")
def facts(life: Life) -> dict[str, Any]:
    assert life.done.returncode == 0, life.done.stderr
    found: dict[str, Any] = json.loads(life.done.stdout)
    return found


@pytest.mark.spark
@pytest.mark.slow
def test_start_and_stop_are_silent(life: Life) -> None:
    # Spark itself says a word about every spark.local.dir.
    before = life.errors()[0].splitlines()
    assert [line for line in before if "spark.local.dir" not in line] == []


@pytest.mark.spark
@pytest.mark.slow
def test_every_port_listens_on_loopback(facts: dict[str, Any]) -> None:
    # The driver, the block manager, py4j, the Spark UI, and Python workers.
    assert len(facts["ports"]) >= 5
    assert {ip.removeprefix("::ffff:") for ip in facts["ports"]} == {"127.0.0.1"}


@pytest.mark.spark
@pytest.mark.slow
def test_nobody_ends_jobs_on_the_web_page(facts: dict[str, Any]) -> None:
    assert facts["kill"] == 403


@pytest.mark.spark
@pytest.mark.slow
def test_workers_run_this_python(facts: dict[str, Any]) -> None:
    assert facts["python"] == sys.executable
    assert facts["variable"] is None


@pytest.mark.spark
@pytest.mark.slow
def test_session_comes_with_the_context(facts: dict[str, Any]) -> None:
    assert facts["frame"] == 1
    assert facts["arrow"] == "true"


@pytest.mark.spark
@pytest.mark.slow
def test_temporary_files_are_in_the_session_dir(facts: dict[str, Any]) -> None:
    assert facts["temporary"].startswith(facts["dir"])


@pytest.mark.spark
@pytest.mark.slow
def test_local_dir_of_the_user_wins(facts: dict[str, Any]) -> None:
    assert any(name.startswith("blockmgr") for name in facts["blocks"])


@pytest.mark.spark
@pytest.mark.slow
def test_nothing_is_left_after_the_end(life: Life, facts: dict[str, Any]) -> None:
    assert Path(facts["dir"]).parent == life.folder
    assert sorted(path.name for path in life.folder.iterdir()) == ["blocks", "conf", "spark.log"]


@pytest.mark.spark
@pytest.mark.slow
def test_starts_again_after_stop(facts: dict[str, Any]) -> None:
    assert facts["again"] == ["local[2]", 3]
    assert facts["kept jvm"]


@pytest.mark.spark
@pytest.mark.slow
def test_other_memory_takes_effect_at_the_next_start(facts: dict[str, Any]) -> None:
    first, last = facts["heap"]
    assert first <= 512 < last


@pytest.mark.spark
@pytest.mark.slow
def test_stop_by_another_thread_is_told(facts: dict[str, Any]) -> None:
    assert "received a SparkContext that was stopped." in facts["after stop"]


@pytest.mark.spark
@pytest.mark.slow
def test_death_of_the_jvm_is_told(life: Life, facts: dict[str, Any]) -> None:
    assert "received the end of its JVM." in facts["after kill"]
    assert "The Spark driver JVM was ended (SIGKILL)" in life.errors()[1]


@pytest.mark.spark
@pytest.mark.slow
def test_nothing_is_left_after_the_jvm_was_killed(facts: dict[str, Any]) -> None:
    assert facts["left"] == []


@pytest.mark.spark
@pytest.mark.slow
def test_starts_again_after_the_jvm_was_killed(facts: dict[str, Any]) -> None:
    assert facts["after all"] == 3


@pytest.mark.spark
@pytest.mark.slow
def test_log_level_below_warn_goes_to_a_file(life: Life, facts: dict[str, Any]) -> None:
    assert life.errors()[2] == ""
    assert "INFO SparkContext: Running Spark version" in (life.folder / "spark.log").read_text()


@pytest.mark.spark
@pytest.mark.slow
def test_local_cluster_through_conf(facts: dict[str, Any]) -> None:
    assert facts["local-cluster"] == [False, 2, 1, 2]


@pytest.mark.spark
@pytest.mark.slow
def test_a_place_in_spark_defaults_keeps_our_daemon_away(facts: dict[str, Any]) -> None:
    """It need not hold this package, and then no worker would start."""
    assert facts["daemons"] == ["zoo.cluster.session.worker_daemon", None]


@pytest.mark.spark
@pytest.mark.slow
def test_spark_submit_keeps_what_it_gave(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from zoo.orca import init_orca_context, stop_orca_context\n"
        "sc = init_orca_context('Spark-Submit', cores=7)\n"
        "print(sc.master, sc.appName, sc.parallelize([1, 2]).sum())\n"
        "stop_orca_context()\n"
    )
    command = [spark_command("spark-submit"), "--master", "local[3]", "--name", "mine"]
    command += ["--conf", "spark.ui.enabled=false", str(program)]
    plain = {name: value for name, value in os.environ.items() if "SPARK" not in name}
    plain |= {"JAVA_HOME": str(find_java()), "PYSPARK_PYTHON": sys.executable}
    done = subprocess.run(command, env=plain, capture_output=True, text=True, check=False)
    # What the program says on stderr goes the same way.
    idle = "Without effect in spark-submit mode: cores."
    assert done.stdout == f"{idle}\nlocal[3] mine 3\n", done.stderr


def test_stop_without_spark_starts_nothing(fresh_python: Run) -> None:
    done = fresh_python(
        "import sys; from zoo.orca import stop_orca_context\n"
        "stop_orca_context(); stop_orca_context(); print('pyspark' in sys.modules)"
    )
    assert done.stdout == "False\n", done.stderr


def test_active_session_without_spark_says_so(fresh_python: Run) -> None:
    program = "from zoo.cluster.session.lifecycle import active_session; active_session()"
    done = fresh_python(program)
    assert "ClusterError" in done.stderr
    assert "No active SparkContext" in done.stderr


def test_connect_session_is_refused(fresh_python: Run) -> None:
    program = "from zoo.orca import init_orca_context; init_orca_context()"
    done = fresh_python(program, SPARK_REMOTE="sc://nowhere")
    assert "Expected a classic Spark session" in done.stderr


@pytest.mark.spark
def test_facts_of_local_spark(spark: SparkSession) -> None:
    sc = spark.sparkContext
    assert lifecycle.is_local(sc)
    assert lifecycle.nodes_and_cores(sc) == (1, sc.defaultParallelism)
    assert lifecycle.bind_address(sc) == "127.0.0.1"
    assert lifecycle.active_session() is spark


class Stoppable:
    """What is told to stop, and may refuse."""

    def __init__(self, said: list[str], name: str, error: Exception | None = None) -> None:
        self.said, self.name, self.error = said, name, error
        self._jsc: object | None = object()

    def stop(self) -> None:
        if self._jsc is None:
            return
        self.said.append(self.name)
        if self.error is not None:
            raise self.error


@pytest.fixture
def stop_two(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Stop a session and a context, which may fail; tells what was stopped."""

    def run(session_error: Exception | None, context_error: Exception | None) -> list[str]:
        said: list[str] = []
        context = Stoppable(said, "context", context_error)
        monkeypatch.setattr(lifecycle, "_session", lifecycle._Session())
        monkeypatch.setattr(lifecycle, "_known_context", lambda: context)
        monkeypatch.setattr(
            lifecycle,
            "active_context",
            lambda: None if {"jvm", "context"} & set(said) and not context_error else context,
        )
        monkeypatch.setattr(lifecycle, "_end_driver", lambda: said.append("jvm"))
        session = Stoppable(said, "session", session_error)
        monkeypatch.setattr(SparkSession, "_instantiatedSession", session)
        lifecycle.stop()
        return said

    return run


def test_context_stops_when_its_session_fails_to(
    stop_two: Callable[..., list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    assert stop_two(RuntimeError("of the session"), None) == ["session", "context"]
    assert "of the session" in caplog.text


def test_jvm_ends_when_the_context_fails_to_stop(stop_two: Callable[..., list[str]]) -> None:
    assert stop_two(None, RuntimeError("of the context")) == ["session", "context", "jvm"]


def test_python_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match=r"python_location.*received '/no/python'"):
        lifecycle._python_variables(StartOptions(python_location="/no/python"), here=True)


def test_python_of_conf_beats_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYSPARK_PYTHON", "/no/python")
    options = StartOptions(conf={"spark.pyspark.python": sys.executable})
    found = lifecycle._python_variables(options, here=True)
    assert found["PYSPARK_PYTHON"] == sys.executable


@pytest.mark.spark
def test_reuse_names_what_it_does_not_use(
    spark: SparkSession, caplog: pytest.LogCaptureFixture
) -> None:
    conf = {"spark.sql.shuffle.partitions": 4, "spark.executor.memory": "9g"}
    assert lifecycle.attach(StartOptions(conf=conf)) is spark.sparkContext
    assert f"({spark.sparkContext.master}); without effect: spark.executor.memory." in caplog.text


def test_jvm_of_others_has_switches_of_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lifecycle, "_session", lifecycle._Session())
    monkeypatch.setattr(lifecycle.settings, "log_output", True)
    lifecycle._say_what_needs_our_jvm(StartOptions(spark_log_level="info"))
    assert "log settings of its own: redirect_spark_log, log_output." in caplog.text


@pytest.mark.parametrize(
    ("variable", "conf", "named"),
    [
        ("/dev/null/a", "/tmp", "SPARK_LOCAL_DIRS"),
        (None, "file:/dev/null/a", "spark.local.dir"),
    ],
)
def test_bad_local_dirs_are_found_at_start(
    variable: str | None, conf: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPARK_LOCAL_DIRS", raising=False)
    if variable:
        monkeypatch.setenv("SPARK_LOCAL_DIRS", variable)
    asked: Any = {"spark.local.dir": conf}
    with pytest.raises(ClusterError, match=rf"/dev/null/a: Not a directory \({named}\)"):
        lifecycle._require_room(asked)
