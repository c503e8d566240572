import time
from pathlib import Path

import pytest

from zoo.orca.data.image.writing.write_progress import watched


def test_bar_counts_chunks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with watched(tmp_path, 3, show=True):
        for index in range(2):
            (tmp_path / f"chunk={index}").mkdir()
        time.sleep(1.2)
    assert "2/3" in capsys.readouterr().err


def test_log_stays_silent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with watched(tmp_path, 3):
        (tmp_path / "chunk=0").mkdir()
    assert capsys.readouterr().err == ""


def test_folder_may_be_gone(tmp_path: Path) -> None:
    with watched(tmp_path / "gone", 3, show=True):
        time.sleep(0.6)
    assert not (tmp_path / "gone").exists()
