"""Who shares memory and disks with whom."""

import fcntl
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from zoo.cluster.host import OneAtATime, host_key, scratch_folder, scratch_folders

PRINT_KEY = "from zoo.cluster.host import host_key; print(host_key())"


def test_processes_of_one_host_have_one_key() -> None:
    other = subprocess.run(
        [sys.executable, "-c", PRINT_KEY], capture_output=True, text=True, timeout=60, check=True
    )
    assert other.stdout.strip() == host_key()


def test_another_container_has_another_key() -> None:
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", PRINT_KEY]
    try:
        other = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("no namespaces may be made here")
    assert other.stdout.strip() != host_key()


def locked() -> bool:
    """Whether another holder of the folder's lock would have to wait."""
    folder = os.open(tempfile.gettempdir(), os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(folder)
    return False


def test_one_at_a_time_holds_others_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert pickle.loads(pickle.dumps(OneAtATime(locked)))() is True
    assert not locked()
    assert list(tmp_path.iterdir()) == []


def test_scratch_is_the_local_directory_of_spark_with_the_most_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("SPARK_LOCAL_DIRS", f"{tmp_path}/gone,{tmp_path}/a,{tmp_path}/b")
    free = {"a": 10, "b": 20}
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda p: usage._replace(free=free[Path(p).name]))
    assert scratch_folder() == tmp_path / "b"


def test_scratch_that_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_LOCAL_DIRS", "/gone/a,/gone/b")
    assert scratch_folder() == Path("/gone/a")


def test_scratch_outside_spark_is_the_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPARK_LOCAL_DIRS", raising=False)
    assert scratch_folders() == [Path(tempfile.gettempdir())]
