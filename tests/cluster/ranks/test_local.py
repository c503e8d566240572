"""Ranks as processes of this machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import psutil
import pytest

from zoo.cluster.ranks.carried import pickled
from zoo.cluster.ranks.local import LocalLauncher
from zoo.cluster.ranks.member import Member
from zoo.cluster.ranks.round import launch
from zoo.errors import RankError, RankLostError

cloudpickle.register_pickle_by_value(sys.modules[__name__])

# A driver whose ranks sleep; it says their process ids when they run.
DRIVER = """
import sys, time
import numpy as np
from zoo.cluster.ranks.carried import pickled
from zoo.cluster.ranks.launcher import launcher_for
from zoo.cluster.ranks.round import RoundHooks, launch

def body(member):
    from zoo.orca.learn.agree.collective import collective_for
    collective = collective_for(member, [np.zeros(100_000)])
    member.report({"pid": member.arrival.pid})
    while True:
        time.sleep(0.01 * member.rank)
        collective.all_reduce()

class Hooks(RoundHooks):
    def on_report(self, message):
        print(message.body["pid"], flush=True)

if "%(launcher)s" == "spark":
    from zoo.orca import init_orca_context
    init_orca_context(cores=2, memory="1g", conf={"spark.ui.enabled": "false"})
launch(pickled(body, "a body"), launcher=launcher_for("%(launcher)s"), ranks=2, per_executor=2,
       hooks=Hooks())
"""


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A driver in a session of its own, and the process ids of its ranks."""
    environment = {name: value for name, value in os.environ.items() if "SPARK" not in name}
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER % {"launcher": request.param}],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert process.stdout is not None
    ranks = [int(process.stdout.readline()) for _ in range(2)]
    yield process, ranks
    process.kill()
    process.communicate()


def left_of(processes: list[psutil.Process], timeout_s: float = 15.0) -> list[psutil.Process]:
    return psutil.wait_procs(processes, timeout_s)[1]


def traces() -> set[str]:
    folders = [Path("/dev/shm"), Path("/tmp")]
    return {entry.name for folder in folders for entry in folder.iterdir() if "zoo" in entry.name}


def test_ranks_import_what_the_driver_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_here.py").write_text("ANSWER = 42\n")
    monkeypatch.syspath_prepend(tmp_path)

    def body(member: Member) -> tuple[bytes, dict[str, int]]:
        import only_here

        return b"", {"answer": only_here.ANSWER}

    results = launch(pickled(body, "it"), launcher=LocalLauncher(), ranks=1, per_executor=1)
    assert results[0].body == {"answer": 42}


def test_command_lines_hold_no_secret() -> None:
    def body(member: Member) -> tuple[bytes, dict[str, list[str]]]:
        return b"", {"line": Path("/proc/self/cmdline").read_text().strip("\0").split("\0")}

    results = launch(pickled(body, "it"), launcher=LocalLauncher(), ranks=2, per_executor=2)
    first, second = (result.body["line"] for result in results)
    assert first == second
    assert len(first) == 3
    assert "127.0.0.1" not in first[2]


def test_processes_that_cannot_start_are_an_error_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    start = time.monotonic()
    with pytest.raises(RankError, match="exit status 1"):
        launch(b"", launcher=LocalLauncher(), ranks=2, per_executor=2)
    assert time.monotonic() - start < 5.0


def test_one_process_that_cannot_start_is_an_error_at_once() -> None:
    class OneBroken(LocalLauncher):
        def start(self, invitation, body, ranks):  # type: ignore[no-untyped-def]
            job = super().start(invitation, body, ranks)
            os.kill(job._children[0].pid, signal.SIGKILL)
            return job

    start = time.monotonic()
    with pytest.raises(RankLostError, match="ended by SIGKILL"):
        launch(b"", launcher=OneBroken(), ranks=2, per_executor=2)
    assert time.monotonic() - start < 10.0


@pytest.mark.parametrize("driver", ["local", "spark"], indirect=True)
def test_nothing_is_left_of_a_killed_driver(
    driver: tuple[subprocess.Popen[str], list[int]],
) -> None:
    process, ranks = driver
    family = psutil.Process(process.pid).children(recursive=True)
    assert {p.pid for p in family} >= set(ranks)
    os.kill(process.pid, signal.SIGKILL)
    assert not left_of(family)
    assert not [name for name in traces() if f"-{process.pid}-" in name or "reduce" in name]


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["local", "spark"], indirect=True)
def test_interrupt_ends_ranks_quietly(driver: tuple[subprocess.Popen[str], list[int]]) -> None:
    process, ranks = driver
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=60)
    assert errors.count("Traceback") == 1
    # Spark may still say in its log that the job was cancelled.
    assert "\nKeyboardInterrupt\n" in errors
    assert "ERROR" not in errors
    assert not left_of(family)
