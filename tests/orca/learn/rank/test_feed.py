import threading
import time
import tracemalloc
import warnings

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import types as T

from zoo.errors import ColumnError
from zoo.orca.data.tensors.plan import ColumnPlan, TensorPlan, TensorSpec
from zoo.orca.data.tensors.plan_columns import plan_columns
from zoo.orca.data.tensors.schedule import epoch_batches
from zoo.orca.data.tensors.tensor_shard import Blobs, TensorShard, TensorWriter
from zoo.orca.learn.rank import feed as module
from zoo.orca.learn.rank.feed import TensorFeed

SCHEMA = T.StructType(
    [T.StructField("x", T.ArrayType(T.FloatType())), T.StructField("y", T.LongType())]
)
PLAN = plan_columns(SCHEMA, ["x"], ["y"]).resolved([("float32", (3,)), ("int64", ())])
SIZES = {
    "one": [50],
    "even": [20, 20, 20],
    "skewed": [1, 90, 3, 0, 17],
    "tiny": [1] * 37,
    "fewer than ranks": [1, 1],
}


def shards_of(folder, sizes, hosts=("here",)):
    """Row i of shard s holds 1000 s + i in its label, and thrice in its feature."""
    shards = []
    for s, rows in enumerate(sizes):
        y = 1000 * s + np.arange(rows, dtype=np.int64)
        with TensorWriter(folder / str(s), 2) as writer:
            writer.append([np.repeat(y[:, None], 3, axis=1).astype(np.float32), y])
        path = str(folder / str(s)) if rows else ""
        shards.append(TensorShard(s, rows, hosts[s % len(hosts)], path, writer.bytes))
    return shards


def steps_of(feed, epoch, start=0):
    """Labels of every step."""
    found = []
    for starts, (x, y) in feed.epoch(epoch, start):
        np.testing.assert_array_equal(x, np.repeat(y[:, None], 3, axis=1))
        found += [y[a:b].tolist() for a, b in zip(starts[:-1], starts[1:], strict=True)]
    return found


def feeds_of(shards, batch, places, *, seed=5, host="here"):
    return [
        TensorFeed(PLAN, shards, host=host, place=(r, places), batch_size=batch, seed=seed)
        for r in range(places)
    ]


def reference(sizes, batch, epoch, seed=5):
    batches = epoch_batches(sizes, batch, seed=seed or 0, epoch=epoch, shuffle=seed is not None)
    return [[1000 * s + int(i) for s, rows in step for i in rows] for step in batches]


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("places", [1, 2, 4])
@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_places_together_make_the_batches_of_the_epoch(tmp_path, sizes, places, batch):
    shards = shards_of(tmp_path, sizes)
    feeds = feeds_of(shards, batch, places)
    for epoch in (0, 3):
        parts = [steps_of(feed, epoch) for feed in feeds]
        together = [sum(step, []) for step in zip(*parts, strict=True)]
        assert together == reference(sizes, batch, epoch)


@pytest.mark.parametrize("stretch", [1, 100, 1 << 20])
def test_stretches_do_not_matter(tmp_path, monkeypatch, stretch):
    monkeypatch.setattr(module, "_STRETCH_BYTES", stretch)
    monkeypatch.setattr(module, "_SHARD_BYTES", 1)
    sizes = SIZES["skewed"]
    (feed,) = feeds_of(shards_of(tmp_path, sizes), 9, 1)
    assert steps_of(feed, 1) == reference(sizes, 9, 1)


def test_hosts_together_make_the_batches_of_the_epoch(tmp_path):
    sizes = [30, 5, 0, 44, 8]
    shards = shards_of(tmp_path, sizes, hosts=("a", "b"))
    parts = [
        steps_of(feed, 2)
        for host, places in (("a", 2), ("b", 1))
        for feed in feeds_of(shards, 10, places, host=host)
    ]
    together = [sorted(sum(step, [])) for step in zip(*parts, strict=True)]
    assert together == [sorted(step) for step in reference(sizes, 10, 2)]


def test_a_host_without_shards_has_empty_batches(tmp_path):
    shards = shards_of(tmp_path, [10, 10])
    (feed,) = feeds_of(shards, 5, 1, host="elsewhere")
    assert steps_of(feed, 0) == [[]] * 4


def test_an_epoch_may_start_later(tmp_path):
    sizes = SIZES["skewed"]
    (feed,) = feeds_of(shards_of(tmp_path, sizes), 7, 1)
    assert steps_of(feed, 1, start=5) == reference(sizes, 7, 1)[5:]
    assert steps_of(feed, 1, start=feed.steps) == []


def test_epochs_differ_and_repeat(tmp_path):
    (feed,) = feeds_of(shards_of(tmp_path, [200]), 10, 1)
    assert steps_of(feed, 0) != steps_of(feed, 1)
    assert steps_of(feed, 0) == steps_of(feed, 0)


def test_without_a_seed_rows_stay_in_order(tmp_path):
    (feed,) = feeds_of(shards_of(tmp_path, [10]), 4, 1, seed=None)
    assert sum(steps_of(feed, 3), []) == list(range(10))


def test_batches_are_fresh_and_writable(tmp_path):
    sizes = [40, 2]
    (feed,) = feeds_of(shards_of(tmp_path, sizes), 10, 1, seed=None)
    for _, arrays in feed.epoch(0):
        assert all(a.flags.writeable and a.flags.c_contiguous for a in arrays)
        for a in arrays:
            a[...] = 0
    assert steps_of(feed, 0) == reference(sizes, 10, 0, seed=None)


def test_torch_takes_batches_without_a_word(tmp_path):
    torch = pytest.importorskip("torch")
    (feed,) = feeds_of(shards_of(tmp_path, [40]), 40, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ((_, arrays),) = feed.epoch(0)
        assert [tuple(torch.from_numpy(a).shape) for a in arrays] == [(40, 3), (40,)]


def test_memory_is_that_of_a_stretch(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_STRETCH_BYTES", 1 << 16)
    shards = shards_of(tmp_path, [50_000, 70_000])
    (feed,) = feeds_of(shards, 64, 1, seed=None)
    tracemalloc.start()
    for _ in feed.epoch(0):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(s.bytes for s in shards) > 2 << 20
    assert peak < 1 << 20


def test_wide_rows_do_not_make_long_stretches(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_STRETCH_BYTES", 1 << 16)
    width, sizes = 1 << 14, [3] * 20
    shards = []
    for s, rows in enumerate(sizes):
        with TensorWriter(tmp_path / str(s), 2) as writer:
            writer.append([np.zeros((rows, width), np.float32), np.zeros(rows, np.int64)])
        shards.append(TensorShard(s, rows, "here", str(tmp_path / str(s)), writer.bytes))
    plan = PLAN.resolved([("float32", (width,)), ("int64", ())])
    feed = TensorFeed(plan, shards, host="here", place=(0, 1), batch_size=2, seed=0)
    assert max(x.nbytes for _, (x, _) in feed.epoch(0)) <= module._SHARD_BYTES * len(sizes)


def test_rows_without_width_are_fed(tmp_path):
    with TensorWriter(tmp_path / "0", 2) as writer:
        writer.append([np.empty((6, 0), np.float32), np.arange(6)])
    shard = TensorShard(0, 6, "here", str(tmp_path / "0"), writer.bytes)
    plan = PLAN.resolved([("float32", (0,)), ("int64", ())])
    feed = TensorFeed(plan, [shard], host="here", place=(0, 1), batch_size=4, seed=None)
    ((starts, (x, y)),) = feed.epoch(0)
    assert (starts.tolist(), x.shape, y.tolist()) == ([0, 3, 6], (6, 0), [0, 1, 2, 3, 4, 5])


# Cells that are decoded for each batch.


def drawn(data, key=None):
    """Cell `b"12"` becomes [12, what its key draws]."""
    extra = 0 if key is None else np.random.default_rng(key).integers(1 << 30)
    return np.array([int(data), extra], dtype=np.int64)


def live_feeds(folder, sizes, places, *, decode=drawn, threads=2, seed=5):
    column = ColumnPlan("image", "live", None, decode=decode)
    label = PLAN.labels[0]
    plan = TensorPlan((TensorSpec((column,), "int64", (2,)),), (label,))
    shards = []
    for s, rows in enumerate(sizes):
        y = 1000 * s + np.arange(rows, dtype=np.int64)
        with TensorWriter(folder / str(s), 2) as writer:
            if rows:
                writer.append([Blobs.from_arrow(pa.array([b"%d" % v for v in y])), y])
        shards.append(
            TensorShard(s, rows, "here", str(folder / str(s)) if rows else "", writer.bytes)
        )
    return [
        TensorFeed(
            plan, shards, host="here", place=(r, places), batch_size=9, seed=seed, threads=threads
        )
        for r in range(places)
    ]


def live_steps(feed, epoch):
    """Label and draw of each row, step by step."""
    found = []
    for starts, (x, y) in feed.epoch(epoch):
        np.testing.assert_array_equal(x[:, 0], y)
        pairs = list(zip(y.tolist(), x[:, 1].tolist(), strict=True))
        found += [pairs[a:b] for a, b in zip(starts[:-1], starts[1:], strict=True)]
    return found


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_decoded_cells_come_in_the_order_of_the_epoch(tmp_path, sizes):
    (feed,) = live_feeds(tmp_path, sizes, 1)
    steps = [[label for label, _ in step] for step in live_steps(feed, 2)]
    assert steps == reference(sizes, 9, 2)


def test_draws_do_not_depend_on_ranks_or_threads(tmp_path):
    sizes = SIZES["skewed"]
    (alone,) = live_feeds(tmp_path / "1", sizes, 1, threads=1)
    several = live_feeds(tmp_path / "3", sizes, 3, threads=4)
    parts = [live_steps(feed, 1) for feed in several]
    assert [sum(step, []) for step in zip(*parts, strict=True)] == live_steps(alone, 1)


def test_every_epoch_draws_anew_and_repeats(tmp_path):
    (feed,) = live_feeds(tmp_path, [40], 1)
    first, again, other = (dict(sum(live_steps(feed, e), [])) for e in (0, 0, 1))
    assert first == again
    assert all(first[row] != other[row] for row in first)


def test_a_cell_that_cannot_be_decoded_is_named(tmp_path):
    def broken(data, key=None):
        if data == b"1003":
            raise OSError("torn")
        return drawn(data)

    (feed,) = live_feeds(tmp_path, [5, 5], 1, decode=broken)
    with pytest.raises(ColumnError, match=r"'image'.*torn in row 3 of partition 1"):
        live_steps(feed, 0)


def test_a_cell_of_another_shape_is_named(tmp_path):
    (feed,) = live_feeds(tmp_path, [5], 1, decode=lambda data, key: np.zeros(3, np.int64))
    with pytest.raises(ColumnError, match=r"int64 of shape \(3,\) in row"):
        live_steps(feed, 0)


def test_decoding_runs_ahead_and_not_far(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_STRETCH_BYTES", 1)
    monkeypatch.setattr(module, "_SHARD_BYTES", 1)
    seen = []
    (feed,) = live_feeds(
        tmp_path, [90], 1, decode=lambda data, key: (seen.append(1), drawn(data))[1]
    )
    batches = feed.epoch(0)
    next(batches)
    time.sleep(0.3)
    assert 9 < len(seen) <= 9 * (module._AHEAD + 2)
    batches.close()
    left = [t for t in threading.enumerate() if t.name.startswith("decode")]
    for thread in left:
        thread.join(5)
    assert not [t for t in left if t.is_alive()]


@pytest.mark.parametrize("shape", [(), (2,)])
def test_texts_stay_with_their_rows(tmp_path, shape):
    plan = PLAN.resolved([("object", shape), ("int64", ())])
    shards = []
    for s, rows in enumerate((7, 0, 30)):
        y = 100 * s + np.arange(rows)
        texts = np.empty((rows, *shape), object)
        texts.T[...] = [str(n).encode() * (n % 3) for n in y]
        with TensorWriter(tmp_path / str(s), 2) as writer:
            writer.append([texts, y])
        shards.append(TensorShard(s, rows, "here", writer.path if rows else "", writer.bytes))
    seen = []
    for rank in range(2):
        feed = TensorFeed(plan, shards, host="here", place=(rank, 2), batch_size=8, seed=1)
        for _, (texts, y) in feed.epoch(2):
            expected = [str(n).encode() * (n % 3) for n in y.tolist()]
            assert texts.reshape(len(y), -1)[:, -1].tolist() == expected
            seen += y.tolist()
    assert sorted(seen) == [*range(7), *range(200, 230)]
