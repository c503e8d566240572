import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from zoo.cluster.session.surroundings import locale_for_java, require_room, require_user_name
from zoo.errors import ClusterError


def test_user_id_without_a_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 54321)
    with pytest.raises(ClusterError, match=r"user id 54321.*zoo:x:54321:"):
        require_user_name()


def test_user_with_a_name_may_start() -> None:
    require_user_name()


def test_java_gets_a_locale_for_all_file_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("locale.getencoding", lambda: "ANSI_X3.4-1968")
    assert locale_for_java() == {"LC_ALL": "C.UTF-8"}


@pytest.mark.parametrize("encoding", ["UTF-8", "ISO-8859-1"])
def test_other_locales_stay(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("locale.getencoding", lambda: encoding)
    assert locale_for_java() == {}


def test_missing_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    require_room([str(tmp_path / "a" / "b")], "SPARK_LOCAL_DIRS")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    places = [str(tmp_path), str(tmp_path / "file" / "b")]
    with pytest.raises(ClusterError, match=r"file/b: Not a directory \(SPARK_LOCAL_DIRS\)"):
        require_room(places, "SPARK_LOCAL_DIRS")


def test_read_only_folder_is_refused() -> None:
    with pytest.raises(ClusterError, match="name other folders in spark.local.dir"):
        require_room(["/proc"], "spark.local.dir")


@pytest.fixture
def no_room() -> Iterator[None]:
    """Files of this process may have 64 KiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("no_room")
def test_folder_without_room_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"SPARK_LOCAL_DIRS\). Make room there"):
        require_room([str(tmp_path)], "SPARK_LOCAL_DIRS")


def test_init_refuses_a_user_without_a_name() -> None:
    program = (
        "import os; os.getuid = lambda: 54321\n"
        "from zoo.orca import init_orca_context; init_orca_context()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert "ClusterError: Expected a name for the user" in done.stderr
