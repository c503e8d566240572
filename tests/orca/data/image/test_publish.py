import subprocess
import sys
from pathlib import Path

import pytest

from zoo.errors import InputError, NotYetError
from zoo.orca.data.image.publish import published, should_write


def dataset(folder: Path, content: str = "old") -> Path:
    (folder / "chunk=0").mkdir(parents=True)
    (folder / "_orca_metadata").write_text(content)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_dataset_appears_with_its_metadata(tmp_path: Path) -> None:
    target = tmp_path / "new" / "out"
    with published(target, "overwrite", "meta") as draft:
        (draft / "chunk=0").mkdir()
        assert not target.exists()
    assert names(target) == ["_orca_metadata", "chunk=0"]
    assert names(target.parent) == ["out"]


def test_error_leaves_the_old_dataset_and_no_draft(tmp_path: Path) -> None:
    target = dataset(tmp_path / "out")

    def interrupted() -> None:
        with published(target, "overwrite", "meta") as draft:
            (draft / "chunk=0").mkdir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(tmp_path) == ["out"]
    assert (target / "_orca_metadata").read_text() == "old"


def test_overwrite_leaves_nothing_of_the_old_dataset(tmp_path: Path) -> None:
    target = dataset(tmp_path / "out")
    with published(target, "overwrite", "new"):
        assert (target / "_orca_metadata").read_text() == "old"
    assert names(tmp_path) == ["out"]
    assert names(target) == ["_orca_metadata"]


def test_link_keeps_pointing_at_the_dataset(tmp_path: Path) -> None:
    real, link = dataset(tmp_path / "real"), tmp_path / "link"
    link.symlink_to(real)
    with published(link, "overwrite", "new"):
        pass
    assert link.is_symlink()
    assert (real / "_orca_metadata").read_text() == "new"


def test_second_writer_that_must_not_overwrite_loses(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(InputError, match="does not exist"), published(target, "error", "mine"):
        dataset(target, "theirs")
    assert (target / "_orca_metadata").read_text() == "theirs"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("mode", ["error", "errorifexists"])
def test_error_modes(tmp_path: Path, mode: str) -> None:
    assert should_write(tmp_path / "new", mode)
    with pytest.raises(InputError, match="does not exist"):
        should_write(tmp_path, mode)


def test_ignore_mode(tmp_path: Path) -> None:
    assert should_write(tmp_path / "new", "ignore")
    assert not should_write(tmp_path, "ignore")


def test_empty_folder_may_be_overwritten(tmp_path: Path) -> None:
    assert should_write(tmp_path, "overwrite")


def test_folder_with_other_files_is_not_overwritten(tmp_path: Path) -> None:
    target = dataset(tmp_path / "out")
    (target / "thesis.docx").touch()
    with pytest.raises(InputError, match=r"thesis\.docx"):
        should_write(target, "overwrite")


def test_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match="the file"):
        should_write(tmp_path / "out", "overwrite")


def test_modes_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotYetError, match="append"):
        should_write(tmp_path, "append")
    with pytest.raises(InputError, match="'w'"):
        should_write(tmp_path, "w")


def test_killed_writer_leaves_the_old_dataset(tmp_path: Path) -> None:
    target = dataset(tmp_path / "out")
    program = (
        "import os, signal, sys\n"
        "from zoo.orca.data.image import DType, FeatureType, ParquetDataset, SchemaField\n"
        "def records():\n"
        "    yield from ({'x': n} for n in range(25))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "schema = {'x': SchemaField(FeatureType.SCALAR, DType.INT32, ())}\n"
        "ParquetDataset.write(sys.argv[1], records(), schema, block_size=10)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(target)], check=False, timeout=60)
    assert done.returncode == -9
    assert (target / "_orca_metadata").read_text() == "old"
    left = [folder for folder in tmp_path.iterdir() if folder != target]
    assert [folder.name.split("-")[0] for folder in left] == [".out.writing"]
    assert not (left[0] / "_orca_metadata").exists()
