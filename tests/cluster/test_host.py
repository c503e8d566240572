"""Who shares memory and disks with whom."""

import subprocess
import sys
from pathlib import Path

import pytest

from zoo.cluster.host import host_key, scratch_root

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


def test_scratch_is_the_first_local_directory_of_spark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_LOCAL_DIRS", "/fast/a,/slow/b")
    assert scratch_root() == Path("/fast/a")
