import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from zoo.errors import InputError
from zoo.orca.data.image.dataset_schema import DType, FeatureType, SchemaField
from zoo.orca.data.image.layout.quarantine import BadRecord
from zoo.orca.data.image.writing.chunk_file import (
    ROW_GROUP_ROWS,
    is_older,
    kept_chunk,
    write_chunk,
)
from zoo.orca.data.image.writing.verify import Screening
from zoo.orca.data.storage import locate

IMAGE = {"image": SchemaField(FeatureType.IMAGE, DType.FLOAT32, ())}
BYTES = {"x": SchemaField(FeatureType.SCALAR, DType.BYTES, ())}
NUMBER = {"n": SchemaField(FeatureType.SCALAR, DType.INT32, ())}
ARRAY = {"a": SchemaField(FeatureType.NDARRAY, DType.FLOAT32, (-1,))}
SKIP, LIST = Screening("skip"), Screening("quarantine")


@pytest.fixture
def pictures(tmp_path: Path, make_picture: Callable[..., bytes]) -> list[dict[str, Any]]:
    files = [tmp_path / f"{number}.jpg" for number in range(5)]
    for number, file in enumerate(files):
        file.write_bytes(make_picture(8, 8, seed=number, kind="JPEG"))
    return [{"image": str(file)} for file in files]


def test_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    rows = [{"a": np.arange(n, dtype=np.float32)} for n in range(ROW_GROUP_ROWS + 3)]
    results = [write_chunk(tmp_path / name, ARRAY, rows) for name in ("chunk=0", "chunk=1")]
    first, second = ((tmp_path / result.file.path).read_bytes() for result in results)
    assert first == second
    assert results[0].file[1:] == results[1].file[1:]


def test_chunk_without_rows(tmp_path: Path) -> None:
    result = write_chunk(tmp_path / "chunk=0", BYTES, [])
    assert result.file.rows == 0
    assert pq.read_table(tmp_path / result.file.path, partitioning=None).num_rows == 0
    assert kept_chunk(tmp_path / "chunk=0", SKIP) == result


@pytest.mark.parametrize("value", [b"ab", bytearray(b"ab"), memoryview(b"ab"), "ab"])
def test_bytes_of_every_kind(tmp_path: Path, value: object) -> None:
    result = write_chunk(tmp_path / "chunk=0", BYTES, [{"x": value}, {"x": None}])
    table = pq.read_table(tmp_path / result.file.path, partitioning=None)
    assert table["x"].to_pylist() == [b"ab", None]


def test_number_in_a_column_of_bytes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="column 'x'"):
        write_chunk(tmp_path / "chunk=0", BYTES, [{"x": 5}])


def test_missing_parent_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_chunk(tmp_path / "gone" / "chunk=0", NUMBER, [{"n": 1}])


def test_failure_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        write_chunk(tmp_path / "chunk=0", NUMBER, [{"n": 1}, {"n": "x"}])
    assert not list((tmp_path / "chunk=0").iterdir())


def test_bad_records_are_left_out(tmp_path: Path, pictures: list[dict[str, Any]]) -> None:
    Path(pictures[1]["image"]).write_bytes(b"text")
    rows = [*pictures, BadRecord("b.xml", "no size")]
    result = write_chunk(tmp_path / "chunk=0", IMAGE, rows, LIST)
    assert (result.file.rows, result.bad) == (4, 2)
    listed = pq.read_table(tmp_path / "_quarantine" / "chunk=0.parquet").to_pylist()
    assert [row["path"] for row in listed] == [pictures[1]["image"], "b.xml"]
    assert "no image: 4 bytes" in listed[0]["reason"]


def test_bad_record_fails_by_default(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'b\.xml': no size.*on_error='skip'"):
        write_chunk(tmp_path / "chunk=0", IMAGE, [BadRecord("b.xml", "no size")])


@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "long name", "zero", "secret"])
def test_things_that_are_no_files(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "x.jpg"
    if kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    elif kind == "loop":
        place.symlink_to(place)
    elif kind == "long name":
        place = tmp_path / ("x" * 300)
    elif kind == "zero":
        place.symlink_to("/dev/null")
    else:
        place = tmp_path / "a\0b"
    assert write_chunk(tmp_path / "chunk=0", IMAGE, [{"image": str(place)}], SKIP).bad == 1


def test_image_larger_than_one_read(tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(2**18 + 5)
    (tmp_path / "large").write_bytes(data)
    screening = Screening(verify="none")
    row = {"image": tmp_path / "large"}
    result = write_chunk(tmp_path / "chunk=0", IMAGE, [row], screening)
    table = pq.read_table(tmp_path / result.file.path, partitioning=None)
    assert table["image"][0].as_py() == data


def test_images_and_chunk_on_another_file_system(
    tmp_path: Path, pictures: list[dict[str, Any]]
) -> None:
    here = write_chunk(tmp_path / "chunk=0", IMAGE, pictures)
    far = [{"image": f"local://{row['image']}"} for row in pictures]
    (tmp_path / "far").mkdir()
    there = write_chunk(locate(f"local://{tmp_path}/far/chunk=0"), IMAGE, far)
    assert here == there
    assert (tmp_path / here.file.path).read_bytes() == (
        tmp_path / "far" / there.file.path
    ).read_bytes()
    assert kept_chunk(locate(f"local://{tmp_path}/far/chunk=0"), SKIP) == there


def test_whole_chunk_is_known_again(tmp_path: Path, pictures: list[dict[str, Any]]) -> None:
    rows = [*pictures, BadRecord("b.xml", "no size")]
    result = write_chunk(tmp_path / "chunk=0", IMAGE, rows, LIST)
    assert kept_chunk(tmp_path / "chunk=0", LIST) == result
    assert kept_chunk(tmp_path / "chunk=1", LIST) is None
    (tmp_path / "_quarantine" / "chunk=0.parquet").unlink()
    assert kept_chunk(tmp_path / "chunk=0", LIST) is None


@pytest.mark.parametrize(
    "change", [lambda d: d[:-1], lambda d: d[1:], lambda d: b"", lambda d: d + d, lambda d: d[-8:]]
)
def test_other_file_is_no_whole_chunk(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    result = write_chunk(tmp_path / "chunk=0", NUMBER, [{"n": 1}])
    file = tmp_path / result.file.path
    file.write_bytes(change(file.read_bytes()))
    assert kept_chunk(tmp_path / "chunk=0", SKIP) is None


def test_changed_image_makes_a_chunk_old(tmp_path: Path, pictures: list[dict[str, Any]]) -> None:
    time.sleep(0.02)  # a clock of files ticks some 250 times a second
    write_chunk(tmp_path / "chunk=0", IMAGE, pictures)
    assert not is_older(tmp_path / "chunk=0", IMAGE, pictures)
    image = Path(pictures[2]["image"])
    image.write_bytes(image.read_bytes())
    assert is_older(tmp_path / "chunk=0", IMAGE, pictures)


def test_repaired_annotation_makes_a_chunk_old(tmp_path: Path) -> None:
    rows = [BadRecord(str(tmp_path / "b.xml"), "no size")]
    write_chunk(tmp_path / "chunk=0", IMAGE, rows, LIST)
    assert not is_older(tmp_path / "chunk=0", IMAGE, rows)
    (tmp_path / "b.xml").touch()
    assert is_older(tmp_path / "chunk=0", IMAGE, rows)
    write_chunk(tmp_path / "chunk=0", IMAGE, [], LIST)
    assert not list((tmp_path / "_quarantine").iterdir())


def test_error_of_the_disk_is_no_bad_file(tmp_path: Path) -> None:
    program = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from zoo.orca.data.image.writing.chunk_file import write_chunk\n"
        "from zoo.orca.data.image.dataset_schema import DType, FeatureType, SchemaField\n"
        "from zoo.orca.data.image.writing.verify import Screening\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "schema = {'x': SchemaField(FeatureType.SCALAR, DType.BYTES, ())}\n"
        "try:\n"
        "    write_chunk(Path(sys.argv[1]), schema, [{'x': bytes(9000)}], Screening('skip'))\n"
        "except OSError as exc:\n"
        "    print(exc.errno)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "chunk=0")],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout.strip(), done.stderr) == (str(errno.EFBIG), "")
    assert not list((tmp_path / "chunk=0").iterdir())
