from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import types as T

from zoo.orca.data.plan import ColumnPlan, TensorPlan, TensorSpec, plan_columns
from zoo.orca.data.shard import Blobs, Shard, ShardWriter, open_shard, remove_shard

SCHEMA = T.StructType(
    [T.StructField("x", T.ArrayType(T.FloatType())), T.StructField("y", T.LongType())]
)
PLAN = plan_columns(SCHEMA, ["x"], ["y"])


def write(folder: Path, *parts) -> Shard:
    with ShardWriter(folder, len(parts[0])) as writer:
        for arrays in parts:
            writer.append(arrays)
    return Shard(0, writer.rows, "here", str(folder), writer.bytes)


def test_rows_come_back_as_they_were_written(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.random((100, 2, 3), dtype=np.float32), rng.integers(0, 9, 100)
    shard = write(tmp_path / "s", [x[:1], y[:1]], [x[1:60], y[1:60]], [x[60:], y[60:]])
    got = open_shard(shard, PLAN.resolved([("float32", (2, 3)), ("int64", ())]))
    np.testing.assert_array_equal(got[0], x)
    np.testing.assert_array_equal(got[1], y)
    assert (shard.rows, shard.bytes) == (100, x.nbytes + y.nbytes)


def test_columns_of_a_larger_array_are_written_in_order(tmp_path):
    wide = np.arange(12, dtype=np.float32).reshape(3, 4)
    shard = write(tmp_path / "s", [wide[:, 1:3], np.arange(6)[::2]])
    got = open_shard(shard, PLAN.resolved([("float32", (2,)), ("int64", ())]))
    assert got[0].tolist() == [[1, 2], [5, 6], [9, 10]]
    assert got[1].tolist() == [0, 2, 4]


def test_mappings_are_read_only(tmp_path):
    shard = write(tmp_path / "s", [np.ones((2, 1), np.float32), np.ones(2, np.int64)])
    for array in open_shard(shard, PLAN.resolved([("float32", (1,)), ("int64", ())])):
        assert not array.flags.writeable


def test_rows_may_be_empty(tmp_path):
    shard = write(tmp_path / "s", [np.ones((2, 0), np.float32), np.ones(2, np.int64)])
    got = open_shard(shard, PLAN.resolved([("float32", (0,)), ("int64", ())]))
    assert [a.shape for a in got] == [(2, 0), (2,)]


def test_a_shard_without_rows_leaves_nothing(tmp_path):
    shard = write(tmp_path / "s", [np.ones((0, 2), np.float32), np.ones(0, np.int64)])
    assert not list(tmp_path.iterdir())
    got = open_shard(shard, PLAN.resolved([("float32", (2,)), ("int64", ())]))
    assert [a.shape for a in got] == [(0, 2), (0,)]


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), ShardWriter(tmp_path / "s", 1) as writer:  # noqa: PT012
        writer.append([np.ones(10)])
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_only_the_owner_may_read_a_shard(tmp_path):
    shard = write(tmp_path / "s", [np.ones((1, 1), np.float32), np.ones(1, np.int64)])
    assert Path(shard.path).stat().st_mode & 0o777 == 0o700


def test_a_lost_shard_is_named(tmp_path):
    shard = Shard(0, 3, "here", str(tmp_path / "gone"), 60)
    with pytest.raises(FileNotFoundError) as caught:
        open_shard(shard, PLAN.resolved([("float32", (4,)), ("int64", ())]))
    assert "gone" in str(caught.value.filename)


def test_a_shard_may_be_removed_twice(tmp_path):
    shard = write(tmp_path / "s", [np.ones((1, 1), np.float32), np.ones(1, np.int64)])
    remove_shard(shard)
    remove_shard(shard)
    remove_shard(Shard(0, 0, "here", "", 0))
    assert not list(tmp_path.iterdir())


def test_open_shards_hold_no_file_descriptors(tmp_path):
    shard = write(tmp_path / "s", [np.ones((1, 1), np.float32), np.ones(1, np.int64)])
    plan = PLAN.resolved([("float32", (1,)), ("int64", ())])
    before = len(list(Path("/proc/self/fd").iterdir()))
    arrays = [open_shard(shard, plan) for _ in range(50)]
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert len(arrays) == 50


def test_a_mapping_outlives_its_file(tmp_path):
    shard = write(tmp_path / "s", [np.ones((1, 1), np.float32), np.ones(1, np.int64)])
    arrays = open_shard(shard, PLAN.resolved([("float32", (1,)), ("int64", ())]))
    remove_shard(shard)
    assert arrays[1].tolist() == [1]


def test_blobs_of_a_slice_are_those_of_its_cells():
    cells = [b"a", b"", b"ccc", b"dd"]
    for kind in (pa.binary(), pa.large_binary()):
        blobs = Blobs.from_arrow(pa.array(cells, kind).slice(1, 3))
        assert [blobs[i] for i in range(len(blobs))] == cells[1:]
        assert blobs.data.size == 5


def test_blobs_are_written_and_mapped(tmp_path):
    cells = [b"first", b"2", b"three"]
    with ShardWriter(tmp_path / "s", 2) as writer:
        for part in (cells[:2], cells[2:]):
            writer.append([Blobs.from_arrow(pa.array(part)), np.arange(len(part))])
    shard = Shard(0, writer.rows, "here", str(tmp_path / "s"), writer.bytes)
    column = ColumnPlan("x", "live", None, decode=len)
    spec = TensorSpec((column,), "int64", ())
    blobs, labels = open_shard(shard, TensorPlan((spec,), (PLAN.labels[0],)))
    assert [blobs[i] for i in range(3)] == cells
    assert labels.tolist() == [0, 1, 0]
