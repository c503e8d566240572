import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from pyspark.sql import SparkSession

from zoo.cluster.session.worker_template import DAEMON
from zoo.errors import ClusterError, InputError
from zoo.orca.data.image import DType, FeatureType, SchemaField, read_parquet
from zoo.orca.data.image.formats.image_folder import write_from_directory
from zoo.orca.data.image.layout.dataset_folder import open_dataset
from zoo.orca.data.image.layout.quarantine import BadRecord, read_quarantine
from zoo.orca.data.image.writing.spark_writer import _Failure, _Job, _write_some, cut, write_parts
from zoo.orca.data.image.writing.verify import Screening

NUMBERS = {"x": SchemaField(FeatureType.SCALAR, DType.INT32, ())}
IMAGES = {"image": SchemaField(FeatureType.IMAGE, DType.FLOAT32, ())}


def numbers(part: Sequence[int]) -> Iterator[dict[str, Any]]:
    for number in part:
        yield {"x": number}


def files_of(folder: Path) -> dict[str, bytes]:
    """The content of a dataset's chunk files."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.glob("chunk=*/*")}


def test_blocks_cover_all_records() -> None:
    assert cut(5, 2) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert cut(4, 9) == [slice(0, 4)]


@pytest.mark.parametrize(("count", "block_size"), [(0, 1), (1, 0), (1, -1), (1, 1.5)])
def test_blocks_that_cannot_be(count: int, block_size: Any) -> None:
    with pytest.raises(InputError):
        cut(count, block_size)


@pytest.mark.spark
def test_chunks_are_written_by_workers(spark: SparkSession, tmp_path: Path) -> None:
    def where_it_runs(part: int) -> Iterator[dict[str, Any]]:
        yield {"x": os.getpid()}

    out = str(tmp_path / "out")
    write_parts(out, range(3), where_it_runs, schema=NUMBERS, write_mode="error")
    processes = [row.x for row in read_parquet("spark", out).collect()]
    assert len(processes) == 3
    assert os.getpid() not in processes


@pytest.mark.spark
def test_many_chunks_are_in_order(spark: SparkSession, tmp_path: Path) -> None:
    parts = [[3 * n, 3 * n + 1, 3 * n + 2] for n in range(100)]
    write_parts(str(tmp_path / "out"), parts, numbers, schema=NUMBERS, write_mode="error")
    dataset = open_dataset(tmp_path / "out")
    assert dataset.manifest is not None
    assert [file.rows for file in dataset.manifest.files] == [3] * 100
    loader = read_parquet("dataloader", str(tmp_path / "out"), batch_size=300)
    assert next(iter(loader))["x"].tolist() == list(range(300))


@pytest.mark.spark
def test_error_of_a_function_keeps_its_type(spark: SparkSession, tmp_path: Path) -> None:
    def broken(part: int) -> Iterator[dict[str, Any]]:
        raise KeyError("no such label")

    with pytest.raises(KeyError, match="no such label") as caught:
        write_parts(str(tmp_path / "out"), [1], broken, schema=NUMBERS, write_mode="error")
    assert "chunk 0" in caught.value.__notes__[0]
    assert not list(tmp_path.iterdir())


@pytest.mark.spark
def test_bad_records_of_a_format(spark: SparkSession, tmp_path: Path) -> None:
    def some(part: int) -> Iterator[dict[str, Any] | BadRecord]:
        yield {"x": part}
        yield BadRecord(f"{part}.xml", "no size")

    out = str(tmp_path / "out")
    write_parts(out, [1, 2], some, schema=NUMBERS, write_mode="error", on_error="quarantine")
    assert list(read_quarantine(out)["path"]) == ["1.xml", "2.xml"]


@pytest.mark.spark
def test_storage_that_tasks_do_not_share(spark: SparkSession) -> None:
    with pytest.raises(ClusterError, match="storage that all hosts share"):
        write_parts("memory://out", [[1]], numbers, schema=NUMBERS, write_mode="error")


@pytest.mark.spark
def test_same_input_gives_the_same_files(
    spark: SparkSession, classes: Path, tmp_path: Path
) -> None:
    for name in "ab":
        write_from_directory(str(classes), None, str(tmp_path / name), block_size=3)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert (tmp_path / "a" / "_zoo_files.json").read_text() == (
        tmp_path / "b" / "_zoo_files.json"
    ).read_text()


@pytest.mark.spark
def test_killed_workers_are_an_error_and_the_write_goes_on(
    spark: SparkSession, tmp_path: Path, make_picture: Callable[..., bytes]
) -> None:
    (tmp_path / "in" / "cats").mkdir(parents=True)
    data = make_picture(200, 200, kind="JPEG")
    for number in range(400):
        (tmp_path / "in" / "cats" / f"{number}.jpg").write_bytes(data)
    write = partial(
        write_from_directory, str(tmp_path / "in"), None, block_size=10, verify="decode"
    )
    done = threading.Event()
    killed: list[psutil.Process] = []

    def kill() -> None:
        while not done.is_set():
            if list(tmp_path.glob(".out.writing-*/chunk=*")):
                for process in _python_workers():
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
                        killed.append(process)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(ClusterError, match="a Spark job"):
            write(str(tmp_path / "out"))
    finally:
        done.set()
        killer.join()
    psutil.wait_procs(killed, timeout=20)  # Spark must not hand a task to one of them
    assert not (tmp_path / "out").exists()
    for name in ("out", "undisturbed"):
        write(str(tmp_path / name))
    assert files_of(tmp_path / "out") == files_of(tmp_path / "undisturbed")


def _python_workers() -> list[psutil.Process]:
    """The processes in which Spark runs our tasks, without the daemon that forks them."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            parent = process.parent()
            if parent and parent.name() == DAEMON:
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def test_chunks_after_a_failure_are_not_written(classes: Path, tmp_path: Path) -> None:
    (tmp_path / "_zoo_writing").touch()
    job = _Job(tmp_path, IMAGES, iter, Screening())
    good = {"image": str(next(classes.rglob("*.png")))}
    parts = [[good], [{"image": "/gone.png"}], [good]]
    results = dict(_write_some(job, iter(enumerate(parts))))
    assert sorted(results) == [0, 1]
    assert isinstance(results[1], _Failure)
    assert not dict(_write_some(job, iter([(2, parts[2])])))
    assert [file.parent.name for file in tmp_path.glob("chunk=*/part-*")] == ["chunk=0"]


def test_chunk_that_is_there_is_not_written_again(classes: Path, tmp_path: Path) -> None:
    (tmp_path / "_zoo_writing").touch()
    job = _Job(tmp_path, IMAGES, iter, Screening())
    image = next(classes.rglob("*.png"))
    parts = [[{"image": str(image)}]]
    time.sleep(0.02)  # a clock of files ticks some 250 times a second
    first = dict(_write_some(job, iter(enumerate(parts))))
    file = tmp_path / "chunk=0" / "part-00000.parquet"
    before = file.stat()
    assert dict(_write_some(job, iter(enumerate(parts)))) == first
    assert os.path.samestat(file.stat(), before)
    image.write_bytes(image.read_bytes())  # changed, as far as anyone can tell
    assert dict(_write_some(job, iter(enumerate(parts)))) == first
    assert not os.path.samestat(file.stat(), before)


def test_task_that_does_not_see_the_output(tmp_path: Path) -> None:
    job = _Job(tmp_path / "elsewhere", NUMBERS, iter, Screening())
    [(_, failure)] = _write_some(job, iter([(0, [])]))
    assert isinstance(failure, _Failure)
    assert "storage that all hosts share" in failure.facts["text"]
