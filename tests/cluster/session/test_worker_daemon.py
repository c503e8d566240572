import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from pyspark.sql import SparkSession

from zoo.cluster.session.worker_daemon import daemon_properties
from zoo.cluster.session.worker_template import DAEMON, NAMES, PLACE, STAND_IN, Template

# While a test runs.
_CHANGES = "PYTEST_CURRENT_TEST"
MODULE = "zoo.cluster.session.worker_daemon"


def test_workers_get_what_the_program_has_loaded() -> None:
    properties = daemon_properties(sys.executable, {})
    assert properties["spark.python.daemon.module"] == MODULE
    names = properties[f"spark.executorEnv.{NAMES}"].split(",")
    assert torch.__name__ in names
    assert MODULE in names
    assert not {"pytest", "tests", "tensorflow"} & set(names)


@pytest.mark.parametrize(
    ("python", "asked"),
    [
        ("/usr/bin/another", {}),
        (sys.executable, {"spark.python.daemon.module": "my.daemon"}),
        (sys.executable, {"spark.executorEnv.PYTHONPATH": "/elsewhere"}),
    ],
)
def test_left_to_spark(python: str, asked: dict[str, str]) -> None:
    assert daemon_properties(python, asked) == {}


def _here(_: Any) -> Iterator[tuple[int, str]]:
    parent = os.getppid()
    yield parent, Path(f"/proc/{parent}/comm").read_text().strip()


@pytest.mark.spark
def test_one_daemon_has_the_workers_of_frames_and_of_rdds(spark: SparkSession) -> None:
    (of_rdd,) = set(spark.sparkContext.parallelize(range(2), 2).mapPartitions(_here).collect())

    def of_frame(batches: Iterator[Any]) -> Iterator[Any]:
        import pandas as pd

        for _ in batches:
            pass
        yield pd.DataFrame([next(_here(None))], columns=["parent", "name"])

    rows = spark.range(0, 4, 1, 2).mapInPandas(of_frame, "parent long, name string").collect()
    assert {tuple(row) for row in rows} == {of_rdd}
    assert of_rdd[1] == DAEMON


def test_it_loads_what_is_named_and_can_be_loaded(tmp_path: Path) -> None:
    (tmp_path / "noted.py").write_text("import pathlib; pathlib.Path(__file__ + '.seen').touch()")
    assert _command_of_daemon(tmp_path, "no.such_module,noted") == MODULE
    assert (tmp_path / "noted.py.seen").exists()


def test_a_module_with_a_thread_leaves_it_to_spark(tmp_path: Path) -> None:
    (tmp_path / "threaded.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(9,), daemon=True).start()\n"
    )
    assert _command_of_daemon(tmp_path, "threaded") == "pyspark.daemon"


@pytest.fixture
def template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Template]:
    """One that has imported a module which notes where that was done."""
    monkeypatch.delenv(_CHANGES)
    (tmp_path / "noted.py").write_text(
        "import os, pathlib\nwith open(__file__ + '.seen', 'a') as f: f.write(f'{os.getpid()} ')"
    )
    made = Template(
        str(tmp_path / "socket"), ["noted"], {**os.environ, "PYTHONPATH": _places(tmp_path)}
    )
    yield made
    made.stop()
    assert not (tmp_path / "socket").exists()


@contextlib.contextmanager
def _started(folder: Path, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon as an executor starts it, when it can be asked for workers."""
    daemon = subprocess.Popen(
        [sys.executable, "-m", MODULE, "pyspark.worker"],
        env={**{n: v for n, v in os.environ.items() if n != _CHANGES}, NAMES: "noted",
             "PYTHONPATH": _places(folder),
             "PYTHON_UNIX_DOMAIN_ENABLED": "false", PLACE: str(folder / "socket"), **more},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder,
    )  # fmt: skip
    with daemon:
        assert daemon.stdin
        assert daemon.stdout
        assert int.from_bytes(daemon.stdout.read(4), "big") > 0
        yield daemon
        daemon.stdin.close()
        assert daemon.stdout.read() == b""  # it ends, and so does who holds its end


def _stands_for(daemon: subprocess.Popen[bytes]) -> psutil.Process | None:
    deadline = time.monotonic() + 2  # its name is another one soon after it has forked
    while time.monotonic() < deadline:
        name = Path(f"/proc/{daemon.pid}/comm").read_text().strip()
        if name.startswith(STAND_IN):
            return psutil.Process(int(name.removeprefix(STAND_IN)))
        time.sleep(0.01)
    return None


def test_daemons_of_several_executors_are_forked_from_the_template(
    template: Template, tmp_path: Path
) -> None:
    with _started(tmp_path) as one, _started(tmp_path) as other:
        found = [_stands_for(one), _stands_for(other)]
        assert all(found)
        assert [daemon.ppid() for daemon in found if daemon] == [template.pid] * 2
        assert {daemon.cwd() for daemon in found if daemon} == {str(tmp_path)}
        template.stop()  # those that it forked stay
        assert all(daemon.is_running() for daemon in found if daemon)
    assert (tmp_path / "noted.py.seen").read_text().split() == [str(template.pid)]
    gone, left = psutil.wait_procs([d for d in found if d], timeout=20)
    assert not left


def test_another_environment_is_left_to_the_daemon(template: Template, tmp_path: Path) -> None:
    with _started(tmp_path, OMP_NUM_THREADS="7") as daemon:
        assert _stands_for(daemon) is None
        assert str(daemon.pid) in (tmp_path / "noted.py.seen").read_text().split()


def test_a_template_that_has_ended_is_done_without(template: Template, tmp_path: Path) -> None:
    os.kill(template.pid, signal.SIGKILL)
    with _started(tmp_path) as daemon:
        assert _stands_for(daemon) is None


def test_a_daemon_ends_with_its_executor(template: Template, tmp_path: Path) -> None:
    """What is left of an executor that is killed is the other end of a pipe that closes."""
    with _started(tmp_path) as daemon:
        found = _stands_for(daemon)
        assert found
        daemon.kill()
    psutil.wait_procs([found], timeout=20)
    assert not found.is_running()


def _places(folder: Path) -> str:
    return os.pathsep.join([str(folder), *filter(None, sys.path)])


def _command_of_daemon(folder: Path, names: str) -> str:
    """What a daemon runs once it can be asked for workers."""
    daemon = subprocess.Popen(
        [sys.executable, "-m", MODULE, "pyspark.worker"],
        env={
            **os.environ,
            "PYTHONPATH": _places(folder),
            NAMES: names,
            "PYTHON_UNIX_DOMAIN_ENABLED": "false",
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with daemon:
        assert daemon.stdin
        assert daemon.stdout
        assert int.from_bytes(daemon.stdout.read(4), "big") > 0
        command = Path(f"/proc/{daemon.pid}/cmdline").read_bytes().split(b"\0")
        daemon.stdin.close()
    return command[command.index(b"-m") + 1].decode()


@contextlib.contextmanager
def _busy() -> Iterator[None]:
    """Two loops that take the cores meanwhile."""
    loops = [subprocess.Popen([sys.executable, "-c", "while 1: pass"]) for _ in range(2)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


@pytest.mark.long
@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_thousand_forks_under_load(threads: str) -> None:
    """Children use what the parent has only imported; one that hangs ends the test."""
    with _busy():
        subprocess.run(
            [sys.executable, "-c", FORKS],
            env={
                **os.environ,
                "OMP_NUM_THREADS": threads,
                "ZOO_PRELOADED_MODULES": "numpy,pandas,pyarrow,torch,zoo.orca.learn.rank.body",
            },
            check=True,
            timeout=1800,
        )


FORKS = """
import os, random, signal, sys
from zoo.cluster.session.worker_template import load_modules
assert load_modules()
assert "torch" in sys.modules
for number in range(1000):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        import numpy, pandas, pyarrow, torch
        square = torch.rand(200, 200)
        (square @ square).sum().item()
        torch.nn.functional.relu(torch.nn.Linear(200, 50)(square)).sum().backward()
        frame = pandas.DataFrame({"a": numpy.random.rand(1000), "b": ["x", "y"] * 500})
        pyarrow.Table.from_pandas(frame).group_by("b").aggregate([("a", "sum")])
        numpy.linalg.svd(numpy.random.rand(50, 50))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"fork {number} ended with {status}"
"""
