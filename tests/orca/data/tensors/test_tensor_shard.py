import errno
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import types as T

from zoo.errors import ClusterError
from zoo.orca.data.tensors.plan import ColumnPlan, TensorPlan, TensorSpec
from zoo.orca.data.tensors.plan_columns import plan_columns
from zoo.orca.data.tensors.tensor_shard import (
    Blobs,
    TensorShard,
    TensorWriter,
    is_whole,
    open_tensors,
    remove_tensors,
    same_content,
)

SCHEMA = T.StructType(
    [T.StructField("x", T.ArrayType(T.FloatType())), T.StructField("y", T.LongType())]
)
PLAN = plan_columns(SCHEMA, ["x"], ["y"])


def write(folder: Path, *parts) -> TensorShard:
    with TensorWriter(folder, len(parts[0])) as writer:
        for arrays in parts:
            writer.append(arrays)
    return TensorShard(0, writer.rows, "here", str(folder), writer.bytes)


def test_rows_come_back_as_they_were_written(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.random((100, 2, 3), dtype=np.float32), rng.integers(0, 9, 100)
    shard = write(tmp_path / "s", [x[:1], y[:1]], [x[1:60], y[1:60]], [x[60:], y[60:]])
    got = open_tensors(shard, PLAN.resolved([("float32", (2, 3)), ("int64", ())]))
    np.testing.assert_array_equal(got[0], x)
    np.testing.assert_array_equal(got[1], y)
    assert shard.rows == 100
    assert shard.bytes == Path(shard.path).stat().st_size >= x.nbytes + y.nbytes


def test_columns_of_a_larger_array_are_written_in_order(tmp_path):
    wide = np.arange(12, dtype=np.float32).reshape(3, 4)
    shard = write(tmp_path / "s", [wide[:, 1:3], np.arange(6)[::2]])
    got = open_tensors(shard, PLAN.resolved([("float32", (2,)), ("int64", ())]))
    assert got[0].tolist() == [[1, 2], [5, 6], [9, 10]]
    assert got[1].tolist() == [0, 2, 4]


def test_mappings_are_read_only(tmp_path):
    shard = write(tmp_path / "s", [np.ones((2, 1), np.float32), np.ones(2, np.int64)])
    for array in open_tensors(shard, PLAN.resolved([("float32", (1,)), ("int64", ())])):
        assert not array.flags.writeable


def test_rows_may_be_empty(tmp_path):
    shard = write(tmp_path / "s", [np.ones((2, 0), np.float32), np.ones(2, np.int64)])
    got = open_tensors(shard, PLAN.resolved([("float32", (0,)), ("int64", ())]))
    assert [a.shape for a in got] == [(2, 0), (2,)]


def test_a_shard_without_rows_leaves_nothing(tmp_path):
    shard = write(tmp_path / "s", [np.ones((0, 2), np.float32), np.ones(0, np.int64)])
    assert not list(tmp_path.iterdir())
    got = open_tensors(shard, PLAN.resolved([("float32", (2,)), ("int64", ())]))
    assert [a.shape for a in got] == [(0, 2), (0,)]


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), TensorWriter(tmp_path / "s", 1) as writer:  # noqa: PT012
        writer.append([np.ones(10)])
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_only_the_owner_may_read_a_shard(tmp_path):
    shard = write(tmp_path / "s", [np.ones((1, 1), np.float32), np.ones(1, np.int64)])
    assert Path(shard.path).stat().st_mode & 0o777 == 0o600


def test_a_lost_shard_is_named(tmp_path):
    shard = TensorShard(0, 3, "here", str(tmp_path / "gone"), 60)
    with pytest.raises(FileNotFoundError) as caught:
        open_tensors(shard, PLAN.resolved([("float32", (4,)), ("int64", ())]))
    assert "gone" in str(caught.value.filename)


def test_a_shard_may_be_removed_twice(tmp_path):
    shard = write(tmp_path / "s", [np.ones((1, 1), np.float32), np.ones(1, np.int64)])
    remove_tensors(shard.path)
    remove_tensors(shard.path)
    assert not list(tmp_path.iterdir())


def test_open_shards_hold_no_file_descriptors(tmp_path):
    shard = write(tmp_path / "s", [np.ones((1, 1), np.float32), np.ones(1, np.int64)])
    plan = PLAN.resolved([("float32", (1,)), ("int64", ())])
    before = len(list(Path("/proc/self/fd").iterdir()))
    arrays = [open_tensors(shard, plan) for _ in range(50)]
    assert len(list(Path("/proc/self/fd").iterdir())) <= before
    assert len(arrays) == 50


def test_a_mapping_outlives_its_file(tmp_path):
    shard = write(tmp_path / "s", [np.ones((1, 1), np.float32), np.ones(1, np.int64)])
    arrays = open_tensors(shard, PLAN.resolved([("float32", (1,)), ("int64", ())]))
    remove_tensors(shard.path)
    assert arrays[1].tolist() == [1]


def test_blobs_of_a_slice_are_those_of_its_cells():
    cells = [b"a", b"", b"ccc", b"dd"]
    for kind in (pa.binary(), pa.large_binary()):
        blobs = Blobs.from_arrow(pa.array(cells, kind).slice(1, 3))
        assert [blobs[i] for i in range(len(blobs))] == cells[1:]
        assert blobs.data.size == 5


def test_blobs_are_written_and_mapped(tmp_path):
    cells = [b"first", b"2", b"three"]
    with TensorWriter(tmp_path / "s", 2) as writer:
        for part in (cells[:2], cells[2:]):
            writer.append([Blobs.from_arrow(pa.array(part)), np.arange(len(part))])
    shard = TensorShard(0, writer.rows, "here", str(tmp_path / "s"), writer.bytes)
    column = ColumnPlan("x", "live", None, decode=len)
    spec = TensorSpec((column,), "int64", ())
    blobs, labels = open_tensors(shard, TensorPlan((spec,), (PLAN.labels[0],)))
    assert [blobs[i] for i in range(3)] == cells
    assert labels.tolist() == [0, 1, 0]


def two_tensors(path: Path) -> TensorShard:
    x, y = np.random.default_rng(0).random((50, 3), dtype=np.float32), np.arange(50)
    with TensorWriter(path, 2) as writer:
        writer.append([x, y])
    return TensorShard(0, 50, "here", str(path), writer.bytes, writer.checksum)


def test_a_shard_of_many_tensors_is_one_file_and_one_map(tmp_path):
    with TensorWriter(tmp_path / "s", 14) as writer:
        writer.append([np.full(10, k) for k in range(14)])
    assert [p.name for p in tmp_path.iterdir()] == ["s"]
    shard = TensorShard(0, 10, "here", str(tmp_path / "s"), writer.bytes)
    column = ColumnPlan("x", "scalar", "int64")
    plan = TensorPlan(tuple(TensorSpec((column,), "int64", ()) for _ in range(14)), ())
    arrays = open_tensors(shard, plan)
    assert [a[0] for a in arrays] == list(range(14))
    maps = Path("/proc/self/maps").read_text().splitlines()
    assert sum(str(tmp_path / "s") in line for line in maps) == 1


def test_a_shard_that_is_cut_off_is_not_whole(tmp_path):
    shard = two_tensors(tmp_path / "s")
    assert is_whole(shard.path, shard.bytes)
    data = Path(shard.path).read_bytes()
    for size in (0, 7, 100, len(data) - 1):
        Path(shard.path).write_bytes(data[:size])
        assert not is_whole(shard.path, shard.bytes)
        with pytest.raises(FileNotFoundError):
            open_tensors(shard, PLAN.resolved([("float32", (3,)), ("int64", ())]))
    remove_tensors(shard.path)
    assert not is_whole(shard.path, shard.bytes)


@pytest.mark.parametrize("at", [0, 300, 700])
def test_a_damaged_byte_shows(tmp_path, at):
    shard = two_tensors(tmp_path / "s")
    assert same_content(shard.path, shard.checksum)
    data = bytearray(Path(shard.path).read_bytes())
    data[at] ^= 1
    Path(shard.path).write_bytes(data)
    assert not same_content(shard.path, shard.checksum)


def test_the_checksum_is_that_of_the_rows_in_order(tmp_path):
    x, y = np.arange(6, dtype=np.float32).reshape(3, 2), np.arange(3)
    sums = []
    for name, order in (("a", [0, 1, 2]), ("b", [0, 1, 2]), ("c", [1, 0, 2])):
        with TensorWriter(tmp_path / name, 2) as writer:
            writer.append([x[order], y[order]])
        sums.append(writer.checksum)
    assert sums[0] == sums[1] != sums[2]


def test_too_many_maps_are_told(tmp_path, monkeypatch):
    shard = two_tensors(tmp_path / "s")

    def refused(*_):
        raise OSError(errno.ENOMEM, "Memory mapping file failed: Cannot allocate memory")

    monkeypatch.setattr(pa, "memory_map", refused)
    with pytest.raises(ClusterError, match=r"memory maps.*vm.max_map_count.*coalesce"):
        open_tensors(shard, PLAN.resolved([("float32", (3,)), ("int64", ())]))


@pytest.mark.parametrize("shape", [(), (2,), (2, 1)])
def test_texts_come_back_in_any_order(tmp_path, shape):
    words = np.array([b"a", b"", "ü".encode(), b"\0" * 300, b"b", b"c\0"] * 4, object)
    words = words.reshape(-1, *shape)
    shard = write(tmp_path / "s", [words[:1], np.arange(1)], [words[1:], np.arange(1, len(words))])
    got = open_tensors(shard, PLAN.resolved([("object", shape), ("int64", ())]))[0]
    rows = np.array([3, 0, 3, len(words) - 1])
    np.testing.assert_array_equal(got.take(rows, shape), words[rows])
    assert shard.rows == len(words)


def test_texts_may_all_be_empty(tmp_path):
    shard = write(tmp_path / "s", [np.array([b"", b""], object), np.arange(2)])
    got = open_tensors(shard, PLAN.resolved([("object", ()), ("int64", ())]))[0]
    assert got.take(np.array([1]), ()).tolist() == [b""]
