import itertools
import time
import tracemalloc

import numpy as np
import pytest

from zoo.orca.data.tensors.schedule import (
    RowOrder,
    epoch_batches,
    rank_share,
    step_bounds,
    step_count,
    window_rows,
)


def skewed(seed):
    """Shards of very different sizes, some of them empty."""
    rng = np.random.default_rng(seed)
    shards = int(rng.integers(1, 60))
    sizes = (rng.pareto(0.7, shards) * rng.integers(1, 40)).astype(int).clip(0, 3000)
    sizes[rng.random(shards) < 0.2] = 0
    if not sizes.sum():
        sizes[0] = 1
    return sizes.tolist(), int(rng.integers(1, 2 * sizes.sum() + 2))


each_skew = pytest.mark.parametrize("seed", range(40))


@pytest.mark.parametrize(("rows", "batch", "steps"), [(0, 4, 0), (1, 4, 1), (8, 4, 2), (9, 4, 3)])
def test_the_last_step_may_be_short(rows, batch, steps):
    assert step_count(rows, batch) == steps


@each_skew
def test_every_row_is_used_once_an_epoch(seed):
    sizes, batch = skewed(seed)
    used = [[] for _ in sizes]
    for step in epoch_batches(sizes, batch, seed=seed, epoch=1):
        for shard, rows in step:
            used[shard].extend(rows.tolist())
    assert [sorted(rows) for rows in used] == [list(range(n)) for n in sizes]


@each_skew
def test_steps_are_as_even_as_they_can_be(seed):
    sizes, batch = skewed(seed)
    rows, steps = sum(sizes), step_count(sum(sizes), batch)
    taken = np.diff(step_bounds(sizes, steps, range(steps)).sum(axis=1))
    assert taken.sum() == rows
    assert taken.min() >= rows // steps
    assert taken.max() <= -(-rows // steps) <= batch


@each_skew
def test_bounds_run_from_nothing_to_all_and_never_back(seed):
    sizes, batch = skewed(seed)
    steps = step_count(sum(sizes), batch)
    bounds = step_bounds(sizes, steps, range(steps))
    assert bounds[0].tolist() == [0] * len(sizes)
    assert bounds[-1].tolist() == sizes
    assert (np.diff(bounds, axis=0) >= 0).all()


@each_skew
def test_every_shard_gives_in_proportion(seed):
    sizes, batch = skewed(seed)
    steps = step_count(sum(sizes), batch)
    bounds = step_bounds(sizes, steps, range(steps))
    even = np.arange(steps + 1)[:, None] / steps * np.asarray(sizes)
    # The time at which a step ends differs from its share of the rows by a row of each shard at
    # most, all shards together.
    slack = 1 + np.asarray(sizes) * len(sizes) / sum(sizes)
    assert (np.abs(bounds - even) <= slack).all()


@each_skew
def test_a_stretch_agrees_with_the_whole(seed):
    sizes, batch = skewed(seed)
    steps = step_count(sum(sizes), batch)
    whole = step_bounds(sizes, steps, range(steps))
    rng = np.random.default_rng(seed)
    for _ in range(5):
        start, stop = sorted(rng.integers(0, steps + 1, 2).tolist())
        part = step_bounds(sizes, steps, range(start, stop))
        np.testing.assert_array_equal(part, whole[start : stop + 1])


def test_many_small_shards_fill_every_step():
    taken = np.diff(step_bounds([3] * 4000, 120, range(120)).sum(axis=1))
    assert set(taken.tolist()) == {100}


def test_huge_counts_take_neither_rows_nor_time():
    sizes, rng = [], np.random.default_rng(1)
    sizes = rng.integers(1, 2 * 10**9, 1000).tolist()
    steps = step_count(sum(sizes), 512)
    tracemalloc.start()
    bounds = step_bounds(sizes, steps, range(steps - 20, steps))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
    assert bounds[-1].tolist() == sizes
    taken = np.diff(bounds.sum(axis=1))
    assert set(taken.tolist()) <= {sum(sizes) // steps, -(-sum(sizes) // steps)}


def test_steps_of_one_row_do_not_overflow():
    sizes = [10**10, 3 * 10**10]
    bounds = step_bounds(sizes, sum(sizes), range(sum(sizes) - 3, sum(sizes)))
    assert np.diff(bounds.sum(axis=1)).tolist() == [1, 1, 1]
    assert bounds[-1].tolist() == sizes


def test_no_rows_give_no_bounds():
    assert step_bounds([0, 0], 0, range(0)).tolist() == [[0, 0]]
    assert step_bounds([], 0, range(0)).shape == (1, 0)


def test_bounds_of_many_shards_come_quickly():
    sizes = np.random.default_rng(0).integers(1, 10_000, 2000).tolist()
    steps = step_count(sum(sizes), 1024)
    times = []
    for _ in range(5):
        start = time.thread_time()
        step_bounds(sizes, steps, range(100, 164))
        times.append(time.thread_time() - start)
    assert min(times) < 0.05


# Shares of ranks


def placed(share):
    """(shard, position in its order) for each row of the buffer."""
    rows = np.full((int(share.starts[-1]), 2), -1)
    begin = 0
    for shard, ((low, _), end) in enumerate(zip(share.spans.tolist(), share.ends, strict=True)):
        rows[share.places[begin:end], 0] = shard
        rows[share.places[begin:end], 1] = low + share.picks[begin:end]
        begin = end
    return [tuple(r) for r in rows.tolist()]


@each_skew
@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_shares_split_every_step(seed, ranks):
    sizes, batch = skewed(seed)
    steps = step_count(sum(sizes), batch)
    stretch = range(steps // 3, min(steps, steps // 3 + 9))
    bounds = step_bounds(sizes, steps, stretch)
    shares = [rank_share(bounds, r, ranks) for r in range(ranks)]
    rows = [placed(share) for share in shares]
    for t, (low, high) in enumerate(itertools.pairwise(bounds.tolist())):
        parts = [r[s.starts[t] : s.starts[t + 1]] for r, s in zip(rows, shares, strict=True)]
        expected = [
            (shard, i) for shard in range(len(sizes)) for i in range(low[shard], high[shard])
        ]
        assert list(itertools.chain(*parts)) == expected
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_host_without_shards_has_empty_steps():
    share = rank_share(np.zeros((4, 0), dtype=np.int64), 0, 2)
    assert share.starts.tolist() == [0, 0, 0, 0]
    assert len(share.picks) == len(share.ends) == 0


# Order inside a shard


@pytest.mark.parametrize("rows", [0, 1, 2, 99, 1000])
@pytest.mark.parametrize("window", [1, 7, 64, 1 << 20])
def test_an_order_is_a_permutation(rows, window):
    order = RowOrder(rows, (1, 2, 3), window=window)
    assert sorted(order.take(0, rows).tolist()) == list(range(rows))


@pytest.mark.parametrize("seed", range(10))
def test_an_order_does_not_depend_on_how_it_is_taken(seed):
    rng = np.random.default_rng(seed)
    whole = RowOrder(500, (seed, 0, 0), window=60).take(0, 500)
    cuts = [0, *sorted(rng.integers(0, 501, 9).tolist()), 500]
    order = RowOrder(500, (seed, 0, 0), window=60)
    parts = [order.take(a, b) for a, b in itertools.pairwise(cuts)]
    assert np.concatenate(parts).tolist() == whole.tolist()
    assert order.take(100, 130).tolist() == whole[100:130].tolist()


def test_orders_differ_by_every_part_of_their_key():
    keys = [(0, 0, 1), (0, 1, 1), (1, 0, 1), (0, 0, 2), (-1, 0, 1), (2**40, 0, 1)]
    taken = {tuple(RowOrder(50, key).take(0, 50).tolist()) for key in keys}
    assert len(taken) == len(keys)


def test_windows_bound_what_is_read_at_once():
    order = RowOrder(10_000, (5, 0, 0), window=100).take(0, 10_000).reshape(-1, 100)
    assert (order.max(axis=1) - order.min(axis=1) < 100).all()
    starts = order.min(axis=1).tolist()
    assert starts != sorted(starts)


def test_without_shuffle_rows_stay():
    order = RowOrder(10, (0, 0, 0), window=3, shuffle=False)
    assert order.take(2, 9).tolist() == list(range(2, 9))


def test_an_order_is_shuffled_well():
    order = RowOrder(100_000, (0, 0, 0)).take(0, 100_000)
    assert abs(np.corrcoef(order, np.arange(100_000))[0, 1]) < 0.02


@pytest.mark.parametrize("shards", [0, 1, 40, 2000, 100_000])
def test_windows_of_all_shards_fit_in_memory(shards):
    assert (1 << 10) <= window_rows(shards) <= (1 << 20)
    assert window_rows(shards) * shards <= max(1 << 24, shards << 10)


def test_rows_of_an_epoch_without_shuffle_are_in_order():
    steps = list(epoch_batches([4, 2], 3, seed=0, epoch=0, shuffle=False))
    assert [[(s, r.tolist()) for s, r in step] for step in steps] == [
        [(0, [0, 1]), (1, [0])],
        [(0, [2, 3]), (1, [1])],
    ]
