import ast
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zoo.cluster import watcher
from zoo.cluster.guard import Guard, session_dir, sweep
from zoo.cluster.watcher import Watcher, start_time

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
DEAD_PID = 2**22 + 1  # above the largest id that Linux gives


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(SLEEP)
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def guard() -> Iterator[Guard]:
    guard = Guard()
    yield guard
    guard.close()


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def abandoned_dir(base: Path, *, age_s: float = 3600, start: str = "1") -> Path:
    path = base / f"zoo-{os.getuid()}-{DEAD_PID}-{start}-abcdefgh"
    path.mkdir()
    (path / "file").write_text("left")
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_close_removes_directories(guard: Guard, tmp_path: Path) -> None:
    folder = tmp_path / "mine with spaces\nand lines"
    (folder / "deep").mkdir(parents=True)
    guard.add_dir(folder)
    guard.close()
    assert not folder.exists()


def test_forgotten_directory_stays(guard: Guard, tmp_path: Path) -> None:
    guard.add_dir(tmp_path)
    guard.forget_dir(tmp_path)
    guard.close()
    assert tmp_path.exists()


def test_close_ends_processes(guard: Guard, sleeper: subprocess.Popen[bytes]) -> None:
    guard.add_process(sleeper.pid)
    guard.close()
    assert sleeper.wait(1) == -signal.SIGTERM


@pytest.mark.slow
def test_process_that_ignores_sigterm_is_killed_with_its_children(guard: Guard) -> None:
    child = f"import subprocess; print(subprocess.Popen({SLEEP!r}).pid, flush=True)"
    program = f"import signal; signal.signal(15, signal.SIG_IGN); {child}; signal.pause()"
    stubborn = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with stubborn:
        assert stubborn.stdout is not None
        grandchild = int(stubborn.stdout.readline())
        guard.add_process(stubborn.pid)
        guard.close()
        assert stubborn.wait(1) == -signal.SIGKILL
    assert wait_until(lambda: start_time(grandchild) is None)


def test_reused_process_id_is_left_alone(sleeper: subprocess.Popen[bytes]) -> None:
    watching = Watcher()
    watching.feed(f"process {sleeper.pid}:1".encode() + b"\0")
    watching.clean()
    assert sleeper.poll() is None


def test_cleans_when_the_owner_is_killed(tmp_path: Path) -> None:
    program = (
        "import os, sys; from zoo.cluster.guard import session_dir\n"
        "print(session_dir(sys.argv[1]), flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, check=False
    )
    assert done.stdout
    assert wait_until(lambda: not any(tmp_path.iterdir()))


def test_survives_a_signal_to_the_process_group(guard: Guard, tmp_path: Path) -> None:
    guard.add_dir(tmp_path / "x")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(guard.pid, number)
    time.sleep(0.2)
    assert os.getpgid(guard.pid) != os.getpgid(0)
    assert start_time(guard.pid) is not None


def test_killed_guard_is_replaced(guard: Guard, tmp_path: Path) -> None:
    folder = tmp_path / "first"
    folder.mkdir()
    guard.add_dir(folder)
    os.kill(guard.pid, signal.SIGKILL)
    wait_until(lambda: start_time(guard.pid) is None)
    guard.add_dir(tmp_path / "second")
    guard.close()
    assert not folder.exists()


def test_session_dir_is_private_and_the_same() -> None:
    assert session_dir().stat().st_mode & 0o777 == 0o700
    assert session_dir() == session_dir()


def test_sweep_removes_what_the_dead_left(tmp_path: Path) -> None:
    path = abandoned_dir(tmp_path)
    assert sweep(tmp_path) == [path]
    assert not path.exists()


def test_sweep_spares_the_living(tmp_path: Path) -> None:
    mine = tmp_path / f"zoo-{os.getuid()}-{os.getpid()}-{start_time(os.getpid())}-abcdefgh"
    mine.mkdir()
    os.utime(mine, (0, 0))
    assert sweep(tmp_path) == []


def test_sweep_spares_what_a_guard_holds(guard: Guard, tmp_path: Path) -> None:
    path = abandoned_dir(tmp_path)
    guard.add_dir(path)
    time.sleep(0.3)
    assert sweep(tmp_path) == []


def test_sweep_spares_the_young_and_the_unknown(tmp_path: Path) -> None:
    abandoned_dir(tmp_path, age_s=0)
    (tmp_path / "zoo-something-else").mkdir()
    assert sweep(tmp_path) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_sweep_spares_other_users(tmp_path: Path) -> None:
    os.chown(abandoned_dir(tmp_path), 12345, 12345)
    assert sweep(tmp_path) == []


def test_watcher_needs_the_standard_library_only() -> None:
    tree = ast.parse(Path(watcher.__file__).read_text())
    found = {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    found |= {str(n.module) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert found <= sys.stdlib_module_names


def test_start_time_of_the_dead_is_none() -> None:
    assert start_time(DEAD_PID) is None
    ended = subprocess.Popen(["true"])
    assert wait_until(lambda: start_time(ended.pid) is None)
    ended.wait()
