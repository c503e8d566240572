"""Writes that are killed at any moment, and writes on a full disk."""

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from zoo.errors import InputError
from zoo.orca.data.image.formats.image_folder import write_from_directory
from zoo.orca.data.image.layout.dataset_folder import open_dataset

CHUNKS, BLOCK = 40, 25
# All of a write but Spark: one process makes the chunks, so that a start takes a second.
WRITE = """
import sys
from zoo.orca.data.image.formats import image_folder
from zoo.orca.data.image.writing import spark_writer
class Inline:
    defaultParallelism = 1
    def parallelize(self, items, tasks):
        self.items = items
        return self
    def mapPartitions(self, task):
        self.task = task
        return self
    def collect(self):
        return list(self.task(iter(self.items)))
class Session:
    sparkContext = Inline()
spark_writer.active_session = Session
print("started", flush=True)
image_folder.write_from_directory(sys.argv[1], None, sys.argv[2], block_size=25)
"""
WRITE_WITH_SPARK = """
import sys
from zoo.orca import init_orca_context
from zoo.orca.data.image import write_from_directory
init_orca_context(cores=2, memory="512m", conf={"spark.ui.enabled": "false"})
print("started", flush=True)
write_from_directory(sys.argv[1], None, sys.argv[2], block_size=25)
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, make_picture: Callable[..., bytes]) -> Path:
    folder = tmp_path_factory.mktemp("images")
    (folder / "cats").mkdir()
    for number in range(CHUNKS * BLOCK):
        data = make_picture(8, 8, seed=number % 50, kind="JPEG")
        (folder / "cats" / f"{number}.jpg").write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def undisturbed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a write makes when nothing happens to it."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    _finish(_start(WRITE, images, out))
    return out


def _start(program: str, images: Path, out: Path) -> subprocess.Popen[str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if "SPARK" not in name or name.endswith("_OPTS")
    }
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(images), str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


def _finish(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=60)
    assert process.returncode == 0


def _kill(process: subprocess.Popen[str]) -> None:
    """Kill a process and all that it has started, in one moment."""
    with suppress(ProcessLookupError):  # it may just have come to its end
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _chunks_of_drafts(out: Path) -> int:
    while True:
        with suppress(FileNotFoundError):  # a folder got its last name while it was looked into
            return len(list(out.parent.glob(f".{out.name}.writing-*/chunk=*/part-*")))


def content(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def check_unfinished_or_whole(out: Path, undisturbed: Path) -> None:
    """What is at the place reads as nothing or as the dataset, and so do the drafts."""
    if out.exists():
        assert content(out) == content(undisturbed)
    for draft in out.parent.glob(".out.writing-*"):
        if not (draft / "_orca_metadata").exists():
            with pytest.raises(InputError, match="unfinished"):
                open_dataset(draft)


def kill_and_write_again(images: Path, out: Path, undisturbed: Path, chance: random.Random) -> None:
    process, moment = _start(WRITE, images, out), chance.randrange(CHUNKS)
    while process.poll() is None and _chunks_of_drafts(out) < moment:
        pass
    time.sleep(chance.uniform(0, 0.002))
    _kill(process)
    check_unfinished_or_whole(out, undisturbed)
    _finish(_start(WRITE, images, out))
    assert content(out) == content(undisturbed)
    assert [entry.name for entry in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("seed", range(2))
def test_killed_write(images: Path, undisturbed: Path, tmp_path: Path, seed: int) -> None:
    kill_and_write_again(images, tmp_path / "out", undisturbed, random.Random(seed))


@pytest.mark.slow
def test_write_killed_at_ten_moments(images: Path, undisturbed: Path, tmp_path: Path) -> None:
    chance = random.Random(2)
    for number in range(10):
        (tmp_path / str(number)).mkdir()
        kill_and_write_again(images, tmp_path / str(number) / "out", undisturbed, chance)


@pytest.mark.slow
@pytest.mark.spark
def test_killed_driver_and_spark(
    spark: SparkSession, images: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = _start(WRITE_WITH_SPARK, images, out)
    while process.poll() is None and not _chunks_of_drafts(out):
        time.sleep(0.001)
    _kill(process)
    check_unfinished_or_whole(out, undisturbed)
    write_from_directory(str(images), None, str(out), block_size=BLOCK)
    assert content(out) == content(undisturbed)


@pytest.mark.slow
def test_write_that_is_killed_again_and_again_ends(
    images: Path, undisturbed: Path, tmp_path: Path
) -> None:
    counts = []
    for _ in range(3):
        process = _start(WRITE, images, tmp_path / "out")
        before = len(counts) and counts[-1]
        while (now := _chunks_of_drafts(tmp_path / "out")) <= before:
            assert process.poll() is None
        _kill(process)
        counts.append(now)
    assert counts == sorted(set(counts))
    _finish(_start(WRITE, images, tmp_path / "out"))
    assert content(tmp_path / "out") == content(undisturbed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 KB in memory; needs the right to mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "zoo-test", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small file system is not allowed here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.spark
def test_full_disk(spark: SparkSession, images: Path, undisturbed: Path, small_disk: Path) -> None:
    out = small_disk / "out"
    with pytest.raises(OSError, match="No space left") as caught:
        write_from_directory(str(images), None, str(out), block_size=BLOCK)
    assert caught.value.errno == errno.ENOSPC
    assert "the same call again goes on" in caught.value.__notes__[-1]
    assert not out.exists()
    assert 0 < _chunks_of_drafts(out) < CHUNKS
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    write_from_directory(str(images), None, str(out), block_size=BLOCK)
    assert content(out) == content(undisturbed)
    assert [entry.name for entry in small_disk.iterdir()] == ["out"]
