"""Where the shards of a fit are, and how lost ones come back."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from zoo.cluster.host import host_key
from zoo.cluster.ranks.messages import Peer
from zoo.errors import InputError, ShardsLostError
from zoo.orca.data.tensors.array_rows import ArrayRows, plan_arrays
from zoo.orca.data.tensors.ingest import with_shards
from zoo.orca.data.tensors.tensor_shard import Place, is_whole, open_tensors
from zoo.orca.learn.driver.sources import Opened, TableData, open_sources
from zoo.orca.learn.recovery import Recovery

ARRAYS = {"x": np.arange(24, dtype=np.float32), "y": np.arange(24)}
PLAN = plan_arrays({"x": ARRAYS["x"]}, {"y": ARRAYS["y"]})


def peers(*hosts: str) -> list[Peer]:
    return [Peer(str(k), host, host, host, k, rank=k) for k, host in enumerate(hosts)]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))
    return tmp_path


def table() -> TableData:
    return TableData(ArrayRows.split({n: a.copy() for n, a in ARRAYS.items()}, 4), PLAN)


@pytest.fixture
def opened(scratch: Path) -> Iterator[Opened]:
    recovery = Recovery()
    with open_sources(table(), table(), batch_size=4, seed=0, recovery=recovery) as found:
        yield found


def values(opened: Opened, part: int) -> list[int]:
    result = opened.ingested[part]
    return [int(v) for s in result.shards for v in open_tensors(s, result.plan)[1]]


def test_all_shards_go_at_the_end(scratch: Path) -> None:
    with open_sources(table(), table(), batch_size=4, seed=0, recovery=Recovery()) as opened:
        opened.require_placed(peers(host_key()))
        assert len(list(scratch.iterdir())) == 8
    assert list(scratch.iterdir()) == []


def test_only_the_lost_shards_of_the_right_data_are_written(opened: Opened) -> None:
    before = [i.shards for i in opened.ingested]
    Path(before[1][2].path).unlink()
    opened.restore([(1, 2)])
    assert opened.shards == before[0]
    assert [a == b for a, b in zip(opened.ingested[1].shards, before[1], strict=True)] == [
        True, True, False, True,
    ]  # fmt: skip
    assert values(opened, 1) == list(range(24))
    assert opened.validation.shards == opened.ingested[1].shards


def place(opened: Opened, part: int, host: str, *, copies: bool) -> None:
    """Say that some shards are on a host, with their real files as copies on this one."""
    result = opened.ingested[part]
    shards = tuple(
        replace(
            s, host=host, path=f"/gone/{s.index}",
            copy=Place(host_key(), s.path) if copies else None,
        ) if s.index < 2 else s
        for s in result.shards
    )  # fmt: skip
    opened.ingested[part] = with_shards(result, shards)


def test_all_strays_are_named_at_once(opened: Opened) -> None:
    place(opened, 0, "lost", copies=True)
    place(opened, 1, "lost", copies=False)
    with pytest.raises(ShardsLostError, match="24 rows on other hosts") as caught:
        opened.require_placed(peers(host_key()))
    assert caught.value.shards == ((0, 0), (0, 1), (1, 0), (1, 1))


def test_a_copy_takes_the_place_of_a_lost_shard(opened: Opened) -> None:
    paths = [s.path for s in opened.shards]
    place(opened, 0, "lost", copies=True)
    opened.rows[0].partitions[0]["y"][:] = 99  # it could not be computed again
    with pytest.raises(ShardsLostError) as caught:
        opened.require_placed(peers(host_key()))
    opened.restore(caught.value.shards)
    assert [s.path for s in opened.shards] == paths
    assert values(opened, 0) == list(range(24))
    opened.require_placed(peers(host_key()))


def test_a_copy_on_a_host_without_ranks_does_not_help(opened: Opened) -> None:
    shards = tuple(replace(s, copy=Place("gone", "/gone/copy")) for s in opened.shards)
    opened.ingested[0] = with_shards(opened.ingested[0], shards)
    opened.require_placed(peers(host_key()))
    Path(opened.shards[3].path).unlink()
    opened.restore([(0, 3)])
    assert all(is_whole(s.path, s.bytes) for s in opened.shards)


def test_rows_that_changed_end_the_fit_unless_told_otherwise(scratch: Path) -> None:
    for recomputed in ("exact", "any"):
        data = table()
        recovery = Recovery(recomputed=recomputed)
        with open_sources(data, None, batch_size=4, seed=0, recovery=recovery) as opened:
            opened.fixed = True
            data.rows.partitions[1]["y"][:] = 7
            if recomputed == "any":
                opened.restore([(0, 1)])
                assert values(opened, 0)[6:12] == [7] * 6
                continue
            with pytest.raises(InputError, match="same rows in the same order"):
                opened.restore([(0, 1)])


def test_before_the_first_step_all_rows_are_made_anew(opened: Opened) -> None:
    paths = [s.path for s in opened.shards]
    opened.rows[0].partitions[0]["y"][:] = 7
    opened.restore([(0, 0)])
    assert values(opened, 0) == [7] * 6 + list(range(6, 24))
    assert not any(Path(path).exists() for path in paths)
    assert opened.source.shards == opened.shards


def test_word_of_copies_is_taken_for_shards_that_are_still_the_same(opened: Opened) -> None:
    old = opened.shards[1].path
    opened.restore([(0, 1)])
    opened.copied(0, [[old, "b", "/b/1"], [opened.shards[2].path, "b", "/b/2"]])
    assert [s.copy for s in opened.shards] == [None, None, Place("b", "/b/2"), None]
    assert opened.source.shards == opened.shards


def test_word_of_moves_brings_the_copies_along(opened: Opened) -> None:
    opened.moved(0, [[k, "b", f"/b/{k}", ["a", f"/a/{k}"] if k else None] for k in range(4)])
    assert [s.host for s in opened.shards] == ["b"] * 4
    assert [s.copy for s in opened.shards] == [None] + [Place("a", f"/a/{k}") for k in (1, 2, 3)]


def test_copies_are_a_choice(scratch: Path) -> None:
    for choice in (True, False):
        recovery = Recovery(copies=choice)
        with open_sources(table(), table(), batch_size=4, seed=0, recovery=recovery) as opened:
            assert (opened.source.copies, opened.validation.copies) == (choice, choice)
