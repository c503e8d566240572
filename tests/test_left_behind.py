"""However a program that trains ends, no process and no file of it is left 15 s later."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.timeout(300)

SETTLE_S = 15.0
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
    if end == "wait":
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
        self.shared_memory = _shared_memory()
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
        deadline = time.monotonic() + 200
        while not (self.folder / "started").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def left(self) -> list[str]:
        """What is still there when all had time to end."""
        deadline = time.monotonic() + SETTLE_S
        while (found := self.processes() + self.files()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

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
        """Files in its folders and, new, in shared memory."""
        found = []
        for name in ("temporary", "work"):
            # Unlike `rglob`, this goes on when a folder vanishes meanwhile.
            for place, folders, files in os.walk(self.folder / name):
                found += [os.path.join(place, one) for one in folders + files]
        # An empty folder that torch makes for a compiler which nobody used.
        own = [path for path in found if "torchinductor_" not in path]
        return own + sorted(_shared_memory() - self.shared_memory)


def _shared_memory() -> set[str]:
    return {str(path) for path in Path("/dev/shm").glob("zoo-*")}  # noqa: S108


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path)
    yield made
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == made.mark:
                process.kill()


def test_marked_processes_are_found(run: Run) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], env={**os.environ, MARK: run.mark}
    ) as process:
        run.shared_memory = _shared_memory()
        deadline = time.monotonic() + 5
        while not run.processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(run.processes()) == 1
        process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["local"])
def test_nothing_is_left_after_stop(run: Run, mode: str) -> None:
    process = run.start(mode, "stop")
    _, errors = process.communicate(timeout=250)
    assert process.returncode == 0, errors
    assert run.left() == []


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["local", "standalone"])
def test_nothing_is_left_after_an_error_in_fit(run: Run, mode: str) -> None:
    process = run.start(mode, "error")
    _, errors = process.communicate(timeout=250)
    assert process.returncode == 1
    assert "ArithmeticError: of the user\nRaised by rank" in errors
    assert run.left() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "mode"),
    [
        (signal.SIGKILL, "local"),
        (signal.SIGKILL, "standalone"),
        (signal.SIGTERM, "local"),
        (signal.SIGINT, "local"),
    ],
)
def test_nothing_is_left_after_a_signal_in_fit(run: Run, mode: str, number: signal.Signals) -> None:
    process = run.start(mode, "wait")
    run.await_training(process)
    assert len(run.processes()) > 3
    process.send_signal(number)
    process.communicate(timeout=60)
    assert run.left() == []
