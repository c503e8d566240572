import subprocess
import sys
from pathlib import Path

import pytest

from zoo.errors import ClusterError, InputError, NotYetError
from zoo.orca.data.image.layout.dataset_folder import open_dataset
from zoo.orca.data.image.writing.publish import published, should_write
from zoo.orca.data.storage import Location, locate

NAME = "0" * 32


def dataset(folder: Path, content: str = "old") -> Path:
    (folder / "chunk=0").mkdir(parents=True)
    (folder / "_orca_metadata").write_text(content)
    return folder


def names(folder: Location) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_dataset_appears_with_its_metadata(tmp_path: Path) -> None:
    target = tmp_path / "new" / "out"
    with published(target, "overwrite", "meta") as draft:
        (draft / "chunk=0").mkdir()
        assert not target.exists()
    assert names(target) == ["_orca_metadata", "chunk=0"]
    assert names(target.parent) == ["out"]


def fail(target: Location, error: BaseException, name: str | None) -> None:
    """A write that makes one chunk and ends with an error."""
    with published(target, "overwrite", "meta", name) as folder:
        (folder / "chunk=0").mkdir()
        (folder / "chunk=0" / "part").write_text("kept")
        raise error


@pytest.mark.parametrize(
    ("error", "name"),
    [(KeyboardInterrupt(), None), (OSError(), None), (InputError("a", "b", "c"), NAME)],
)
def test_error_leaves_the_old_dataset_and_no_draft(
    tmp_path: Path, error: BaseException, name: str | None
) -> None:
    target = dataset(tmp_path / "out")
    with pytest.raises(type(error)):
        fail(target, error, name)
    assert names(tmp_path) == ["out"]
    assert (target / "_orca_metadata").read_text() == "old"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "full")])
def test_same_work_goes_on_after_an_interruption(
    tmp_path: Path, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    target = dataset(tmp_path / "out")
    with pytest.raises(type(error)) as caught:
        fail(target, error, NAME)
    assert "the same call again goes on" in caught.value.__notes__[0]
    assert "the same call again goes on" in caplog.text
    assert (target / "_orca_metadata").read_text() == "old"
    with published(target, "overwrite", "new", NAME) as draft:
        assert (draft / "chunk=0" / "part").read_text() == "kept"
    assert names(tmp_path) == ["out"]
    assert names(target) == ["_orca_metadata", "chunk=0"]


def test_other_work_removes_what_nobody_will_finish(tmp_path: Path) -> None:
    target = tmp_path / "out"
    (tmp_path / ".out.writing-mine").mkdir()
    for name in (NAME, "1" * 32):
        with pytest.raises(OSError, match="disk"):
            fail(target, OSError("disk"), name)
    assert names(tmp_path) == [".out.writing-" + "1" * 32, ".out.writing-mine"]


def test_two_writers_of_the_same_work_do_no_harm(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with published(target, "overwrite", "first", NAME) as first:
        (first / "chunk=0").mkdir()
        with published(target, "overwrite", "second", NAME) as second:
            (second / "chunk=0").mkdir()
            assert first != second
        assert names(first) == ["_zoo_writing", "chunk=0"]
    assert (target / "_orca_metadata").read_text() == "first"
    assert names(tmp_path) == ["out"]


def test_draft_of_a_living_writer_stays(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with published(target, "overwrite", "first", NAME) as first:
        with published(target, "overwrite", "second", "1" * 32):
            pass
        assert first.exists()
    assert (target / "_orca_metadata").read_text() == "first"


def test_half_files_of_a_killed_write_are_removed(tmp_path: Path) -> None:
    half = tmp_path / f".out.writing-{NAME}" / "chunk=0" / ".half.parquet"
    half.parent.mkdir(parents=True)
    half.touch()
    (half.parent.parent / "_zoo_failed").touch()
    with published(tmp_path / "out", "overwrite", "meta", NAME):
        pass
    assert names(tmp_path / "out") == ["_orca_metadata", "chunk=0"]
    assert names(tmp_path / "out" / "chunk=0") == []


# Where no rename is atomic: written in place, and the metadata file comes last


@pytest.fixture
def far(tmp_path: Path) -> Location:
    """A target that is reached through fsspec, with an old dataset."""
    return locate(f"local://{dataset(tmp_path / 'far')}")


def test_write_in_place_is_unfinished_until_its_end(far: Location) -> None:
    with published(far, "overwrite", "new", NAME) as folder:
        assert folder == far
        assert names(far) == ["_zoo_writing"]
        with pytest.raises(InputError, match="unfinished"):
            open_dataset(far)
    assert names(far) == ["_orca_metadata"]


def test_write_in_place_goes_on(far: Location) -> None:
    with pytest.raises(OSError, match="disk"):
        fail(far, OSError("disk"), NAME)
    for mode in ("error", "ignore", "overwrite"):
        assert should_write(far, mode)
    with published(far, "error", "new", NAME) as folder:
        assert (folder / "chunk=0" / "part").read_text() == "kept"
    assert not should_write(far, "ignore")


@pytest.mark.parametrize(
    ("error", "name"), [(OSError("disk"), None), (InputError("a", "b", "c"), NAME)]
)
def test_write_in_place_that_cannot_go_on_leaves_nothing(
    far: Location, error: Exception, name: str | None
) -> None:
    with pytest.raises(type(error)):
        fail(far, error, name)
    assert not far.exists() or names(far) == []


def test_other_work_in_place_starts_anew(far: Location) -> None:
    with pytest.raises(OSError, match="disk"):
        fail(far, OSError("disk"), NAME)
    with published(far, "overwrite", "new", "1" * 32):
        assert names(far) == ["_zoo_writing"]


def test_second_writer_in_place_is_noticed(far: Location) -> None:
    with (
        pytest.raises(ClusterError, match="one writer"),
        published(far, "overwrite", "mine", NAME),
    ):
        (far / "_zoo_writing").write_text("theirs")
    assert not (far / "_orca_metadata").exists()


def test_file_of_another_kind_in_place_stops_the_write(far: Location) -> None:
    (far / "thesis.docx").touch()
    with pytest.raises(InputError, match=r"thesis\.docx"):
        should_write(far, "overwrite")


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
