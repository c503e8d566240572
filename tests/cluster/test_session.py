import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from zoo.cluster import session
from zoo.cluster.driver import write_properties
from zoo.cluster.options import StartOptions
from zoo.cluster.properties import memory_text
from zoo.cluster.topology import address_toward
from zoo.errors import InputError

Run = Callable[..., subprocess.CompletedProcess[str]]

LIFE = """
import contextlib, json, os, sys, time, psutil
from zoo.cluster import session
from zoo.orca import OrcaContext, init_orca_context, stop_orca_context

began = time.monotonic()
sc = init_orca_context(cores=1, memory="512m")
one = sc.parallelize([1], 1).map(lambda _: sys.executable).first()
took = time.monotonic() - began
facts = {"took": took, "python": one, "dir": str(session.session_dir())}
facts["ports"] = []
for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
    with contextlib.suppress(psutil.NoSuchProcess):  # one may just end
        places = process.net_connections() if process.status() != "zombie" else []
        facts["ports"] += [place.laddr.ip for place in places if place.status == "LISTEN"]
spark = OrcaContext.get_spark_session()
facts["arrow"] = spark.conf.get("spark.sql.execution.arrow.pyspark.enabled")
facts["frame"] = sc.parallelize([(1,)]).toDF(["a"]).count()
java = sc._jvm.java.lang
facts["temporary"] = java.System.getProperty("java.io.tmpdir")
facts["heap"] = [java.Runtime.getRuntime().maxMemory() >> 20]
first = session._session.driver.pid
stop_orca_context()
stop_orca_context()
sc = init_orca_context(cores=2, memory="512m", conf={"spark.local.dir": sys.argv[1]})
facts["kept jvm"] = session._session.driver.pid == first
facts["again"] = [sc.master, sc.parallelize([1, 2], 2).sum()]
facts["blocks"] = os.listdir(sys.argv[1])
stop_orca_context()
sc = init_orca_context(cores=1, memory="640m")
facts["heap"].append(sc._jvm.java.lang.Runtime.getRuntime().maxMemory() >> 20)
print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def life(
    fresh_python: Run, tmp_path_factory: pytest.TempPathFactory
) -> subprocess.CompletedProcess[str]:
    """A program that starts Spark, stops it, starts it again twice and just ends."""
    folder = tmp_path_factory.mktemp("blocks")
    return fresh_python(LIFE.replace("sys.argv[1]", repr(str(folder))))


@pytest.fixture(scope="module")
def facts(life: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert life.returncode == 0, life.stderr
    found: dict[str, object] = json.loads(life.stdout)
    return found


@pytest.mark.spark
def test_start_and_stop_are_silent(life: subprocess.CompletedProcess[str]) -> None:
    # Spark itself says a word about every spark.local.dir.
    assert [line for line in life.stderr.splitlines() if "spark.local.dir" not in line] == []


@pytest.mark.spark
def test_every_port_listens_on_loopback(facts: dict[str, list[str]]) -> None:
    # The driver, the block manager, py4j, the Spark UI, and Python workers.
    assert len(facts["ports"]) >= 5
    assert {ip.removeprefix("::ffff:") for ip in facts["ports"]} == {"127.0.0.1"}


@pytest.mark.spark
def test_workers_run_this_python(facts: dict[str, str]) -> None:
    assert facts["python"] == sys.executable


@pytest.mark.spark
def test_session_comes_with_the_context(facts: dict[str, object]) -> None:
    assert facts["frame"] == 1
    assert facts["arrow"] == "true"


@pytest.mark.spark
def test_temporary_files_are_in_the_session_dir(facts: dict[str, str]) -> None:
    assert facts["temporary"].startswith(facts["dir"])


@pytest.mark.spark
def test_local_dir_of_the_user_wins(facts: dict[str, list[str]]) -> None:
    assert any(name.startswith("blockmgr") for name in facts["blocks"])


@pytest.mark.spark
def test_nothing_is_left_after_the_end(facts: dict[str, str]) -> None:
    assert not Path(facts["dir"]).exists()


@pytest.mark.spark
def test_starts_again_after_stop(facts: dict[str, object]) -> None:
    assert facts["again"] == ["local[2]", 3]
    assert facts["kept jvm"]


@pytest.mark.spark
def test_other_memory_takes_effect_at_the_next_start(facts: dict[str, list[int]]) -> None:
    first, last = facts["heap"]
    assert first <= 512 < last


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.parametrize("target", ["python", "jvm", "both"])
def test_nothing_is_left_after_kill(
    left_after_kill: Callable[[str, str], list[str]], target: str
) -> None:
    assert left_after_kill("local", target) == []


@pytest.mark.spark
@pytest.mark.slow
def test_starts_again_after_the_jvm_was_killed(fresh_python: Run) -> None:
    done = fresh_python(
        "import os, time\n"
        "from zoo.cluster import session\n"
        "from zoo.orca import init_orca_context\n"
        "init_orca_context(cores=1, memory='512m')\n"
        "os.kill(session._session.driver.pid, 9)\n"
        "while session.active_context(): time.sleep(0.1)\n"
        "print(init_orca_context(cores=1, memory='512m').parallelize([1, 2]).sum())\n"
    )
    assert done.stdout == "3\n", done.stderr


@pytest.mark.spark
@pytest.mark.slow
def test_local_cluster_through_conf(fresh_python: Run) -> None:
    done = fresh_python(
        "import os\n"
        "from zoo.cluster import session\n"
        "from zoo.orca import init_orca_context\n"
        "conf = {'spark.master': 'local-cluster[2,1,1024]'}\n"
        "sc = init_orca_context('spark-submit', conf=conf)\n"
        "pids = sc.range(4, numSlices=4).map(lambda _: os.getppid()).collect()\n"
        "print(session.is_local(sc), session.nodes_and_cores(sc), len(set(pids)) > 1)\n"
    )
    assert done.stdout == "False (2, 1) True\n", done.stderr


@pytest.mark.spark
@pytest.mark.slow
def test_spark_submit_keeps_what_it_gave(fresh_python: Run, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from zoo.orca import init_orca_context, stop_orca_context\n"
        "sc = init_orca_context('Spark-Submit', cores=7)\n"
        "print(sc.master, sc.appName, sc.parallelize([1, 2]).sum())\n"
        "stop_orca_context()\n"
    )
    done = fresh_python(
        "import subprocess, sys\n"
        "from zoo.cluster.driver import environment, spark_command\n"
        "command = [spark_command('spark-submit'), '--master', 'local[3]', '--name', 'mine']\n"
        f"command += ['--conf', 'spark.ui.enabled=false', {str(program)!r}]\n"
        "subprocess.run(command, env=environment({'PYSPARK_PYTHON': sys.executable}))\n"
    )
    assert done.stdout == "local[3] mine 3\n", done.stderr


@pytest.mark.spark
@pytest.mark.slow
def test_log_level_below_warn_goes_to_a_file(fresh_python: Run, tmp_path: Path) -> None:
    done = fresh_python(
        "import os\n"
        f"os.chdir({str(tmp_path)!r})\n"
        "from zoo.orca import init_orca_context\n"
        "init_orca_context(cores=1, memory='512m', spark_log_level='info')\n"
    )
    assert done.stderr == ""
    assert "INFO SparkContext: Running Spark version" in (tmp_path / "spark.log").read_text()


def test_stop_without_spark_starts_nothing(fresh_python: Run) -> None:
    done = fresh_python(
        "import sys; from zoo.orca import stop_orca_context\n"
        "stop_orca_context(); stop_orca_context(); print('pyspark' in sys.modules)"
    )
    assert done.stdout == "False\n", done.stderr


def test_active_session_without_spark_says_so(fresh_python: Run) -> None:
    done = fresh_python("from zoo.cluster.session import active_session; active_session()")
    assert "ClusterError" in done.stderr
    assert "No active SparkContext" in done.stderr


def test_connect_session_is_refused(fresh_python: Run) -> None:
    program = "from zoo.orca import init_orca_context; init_orca_context()"
    done = fresh_python(program, SPARK_REMOTE="sc://nowhere")
    assert "Expected a classic Spark session" in done.stderr


@pytest.mark.spark
def test_facts_of_local_spark(spark: SparkSession) -> None:
    sc = spark.sparkContext
    assert session.is_local(sc)
    assert session.nodes_and_cores(sc) == (1, sc.defaultParallelism)
    assert session.bind_address(sc) == "127.0.0.1"
    assert session.active_session() is spark


def test_properties_file_is_private_and_faithful(tmp_path: Path) -> None:
    file = tmp_path / "some.properties"
    write_properties(file, {"spark.a": r"c:\new", "spark.b": "two\nlines"})
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text() == "spark.a=c:\\\\new\nspark.b=two\\nlines\n"


@pytest.mark.parametrize(
    ("given", "text"), [("2g", "2g"), ("10GB", "10g"), ("512 m", "512m"), ("1T", "1t")]
)
def test_memory_is_what_the_jvm_reads(given: str, text: str) -> None:
    assert memory_text(given, "memory") == text


@pytest.mark.parametrize("given", ["1.5g", "2", "g", "-1g", 2])
def test_bad_memory_is_refused(given: object) -> None:
    with pytest.raises(InputError, match='memory="2g"'):
        memory_text(given, "memory")


def test_bad_log_level_is_refused() -> None:
    with pytest.raises(InputError, match="loud"):
        StartOptions(spark_log_level="loud")


def test_address_toward_a_master_on_this_machine() -> None:
    assert address_toward("spark://127.0.0.1:7077") == "127.0.0.1"


def test_bad_master_is_refused() -> None:
    with pytest.raises(InputError, match="spark://host:port"):
        address_toward("yarn")


ONE_AFTER_THE_OTHER = """
import sys
sys.path.insert(0, {folder!r})
import beside
from zoo.orca import init_orca_context, stop_orca_context
for mode, more in (("local", {{}}), ("standalone", {{"num_nodes": 1, "memory": "512m"}})):
    sc = init_orca_context(mode, cores=1, **more)
    print(sc.parallelize([1, 2], 2).map(beside.double).sum())
    stop_orca_context()
"""


@pytest.mark.slow
def test_modes_one_after_the_other_import_what_the_program_imports(
    fresh_python: Run, tmp_path: Path
) -> None:
    (tmp_path / "beside.py").write_text("def double(x):\n    return 2 * x\n")
    done = fresh_python(ONE_AFTER_THE_OTHER.format(folder=str(tmp_path)))
    assert (done.stdout, done.stderr) == ("6\n6\n", "")
