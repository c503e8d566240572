"""However a program that trains ends, no process and no file of it is left 15 s later."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
import pytest

SETTLE_S = 15.0
SIDE_BY_SIDE = 3
MARK = "ZOO_TEST_MARK"

PROGRAM = """
import os, sys, time
import torch
from pathlib import Path
from torch import nn
from zoo.orca import OrcaContext, init_orca_context, stop_orca_context
from zoo.orca.learn.pytorch import Estimator

mode, end = sys.argv[1:]
started = os.path.abspath("../started")

def loss(output, target):
    if end == "error":
        raise ArithmeticError("of the user")
    if end == "wait" and "PYTHON_WORKER_FACTORY_SECRET" in os.environ:  # in a rank
        Path(started).touch()
    return ((output - target) ** 2).mean()

init_orca_context(mode, cores=2, memory="512m", num_nodes=1 if mode == "local" else 2)
rows = OrcaContext.get_spark_session().range(0, 1000, 1, 4)
frame = rows.selectExpr("float(id) a", "float(id) y")
model = nn.Sequential(nn.Linear(1, 1), nn.Flatten(0))
estimator = Estimator.from_torch(model=model, loss=loss, workers_per_node=2)
epochs = 1_000_000 if end == "wait" else 2
estimator.fit(frame, epochs=epochs, batch_size=10, feature_cols=[["a"]], label_cols=["y"])
estimator.predict(frame, feature_cols=[["a"]]).count()
stop_orca_context()
"""


@dataclass
class Run:
    """A program in a process of its own, with folders of its own."""

    folder: Path
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def start(self, mode: str, end: str) -> subprocess.Popen[str]:
        """Start it where its temporary files and working directory are told from others'."""
        for name in ("temporary", "work"):
            (self.folder / name).mkdir()
        plain = {
            name: value
            for name, value in os.environ.items()
            if "SPARK" not in name or name.endswith("_OPTS")
        }
        mine = {MARK: self.mark, "TMPDIR": str(self.folder / "temporary")}
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, mode, end],
            cwd=self.folder / "work",
            env={**plain, **mine},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def await_training(self, process: subprocess.Popen[str]) -> None:
        """Wait until ranks compute."""
        deadline = time.monotonic() + 900
        while not (self.folder / "started").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def processes(self) -> list[str]:
        """Processes that inherited the mark, wherever in the tree they are."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                zombie = process.status() == psutil.STATUS_ZOMBIE
                if not zombie and process.environ().get(MARK) == self.mark:
                    found.append(" ".join(process.cmdline())[:200])
        return found

    def files(self) -> list[str]:
        """Files in its folders."""
        found = []
        for name in ("temporary", "work"):
            # Unlike `rglob`, this goes on when a folder vanishes meanwhile.
            for place, folders, files in os.walk(self.folder / name):
                found += [os.path.join(place, one) for one in folders + files]
        # An empty folder that torch makes for a compiler which nobody used.
        return [path for path in found if "torchinductor_" not in path]


def _shared_memory() -> set[str]:
    return {str(path) for path in Path("/dev/shm").glob("zoo-*")}  # noqa: S108


@contextmanager
def new_run(folder: Path) -> Iterator[Run]:
    """A run of which nothing is there afterwards, also when it failed."""
    made = Run(folder)
    yield made
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == made.mark:
                process.kill()


def test_marked_processes_are_found(tmp_path: Path) -> None:
    with (
        new_run(tmp_path) as run,
        subprocess.Popen(
            [sys.executable, "-c", "import time; time.sleep(60)"],
            env={**os.environ, MARK: run.mark},
        ) as process,
    ):
        deadline = time.monotonic() + 5
        while not run.processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(run.processes()) == 1
        process.kill()


def stop(run: Run, mode: str) -> None:
    process = run.start(mode, "stop")
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors


def fail(run: Run, mode: str) -> None:
    process = run.start(mode, "error")
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 1
    assert "ArithmeticError: of the user\nRaised by rank" in errors


def send(number: signal.Signals, run: Run, mode: str) -> None:
    process = run.start(mode, "wait")
    run.await_training(process)
    assert len(run.processes()) > 3
    process.send_signal(number)
    process.communicate(timeout=300)


WAYS = {
    "stops": (stop, "local"),
    "fails": (fail, "local"),
    "fails on a cluster": (fail, "standalone"),
    "is killed": (partial(send, signal.SIGKILL), "local"),
    "is killed on a cluster": (partial(send, signal.SIGKILL), "standalone"),
    "is told to end": (partial(send, signal.SIGTERM), "local"),
    "is interrupted": (partial(send, signal.SIGINT), "local"),
}


@pytest.fixture(scope="module")
def endings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[str]]]:
    """Programs that end in all ways, a few at a time, and what is left of each in the end.

    What went wrong in a program itself counts as left, and so does shared memory, which does not
    tell whose it is.
    """
    before = _shared_memory()
    with ExitStack() as runs, ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        made = {way: runs.enter_context(new_run(tmp_path_factory.mktemp("run"))) for way in WAYS}
        ends = {way: pool.submit(end, made[way], mode) for way, (end, mode) in WAYS.items()}
        flaws = {way: [repr(e)] if (e := end.exception()) else [] for way, end in ends.items()}
        deadline = time.monotonic() + SETTLE_S
        while True:
            shared = sorted(_shared_memory() - before)
            found = {way: run.processes() + run.files() + shared for way, run in made.items()}
            if not any(found.values()) or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        yield {way: flaws[way] + found[way] for way in WAYS}


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.timeout(1800)  # all programs run while the first of these waits
@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_left_when_a_program(endings: dict[str, list[str]], way: str) -> None:
    assert endings[way] == []
