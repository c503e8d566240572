"""Shards go where the ranks are: which ones, and that every byte arrives."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark import cloudpickle

from zoo.cluster.ranks.carried import pickled
from zoo.cluster.ranks.launcher import Launcher
from zoo.cluster.ranks.member import Member
from zoo.cluster.ranks.round import launch
from zoo.errors import ShardsLostError
from zoo.orca.data.tensors.tensor_shard import Place, TensorShard, TensorWriter
from zoo.orca.learn.rank.moving import Move, move_shards, plan_moves

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def shard(index: int, rows: int, host: str, path: str = "") -> TensorShard:
    return TensorShard(index, rows, host, path, 0)


def after(shards: list[TensorShard], moves: list[Move]) -> Counter[str]:
    target = {m.index: m.target for m in moves}
    held: Counter[str] = Counter()
    for s in shards:
        held[target.get(s.index, s.host)] += s.rows
    return held


def test_equal_hosts_are_left_alone() -> None:
    shards = [shard(k, 100, f"h{k % 2}") for k in range(8)]
    assert plan_moves(shards, {"h0": 2, "h1": 2}) == []


def test_a_new_host_gets_its_share() -> None:
    shards = [shard(k, 100, f"h{k % 2}") for k in range(12)]
    moves = plan_moves(shards, {"h0": 1, "h1": 1, "h2": 1})
    assert after(shards, moves) == {"h0": 400, "h1": 400, "h2": 400}
    assert {m.target for m in moves} == {"h2"}


def test_shares_go_by_ranks() -> None:
    shards = [shard(k, 10, "h0") for k in range(30)]
    held = after(shards, plan_moves(shards, {"h0": 1, "h1": 2}))
    assert held == {"h0": 100, "h1": 200}


def test_one_huge_shard_stays() -> None:
    shards = [shard(0, 1000, "h0"), shard(1, 1, "h1")]
    assert plan_moves(shards, {"h0": 1, "h1": 1}) == []


@pytest.mark.parametrize("seed", range(20))
def test_moves_never_make_the_fullest_host_fuller(seed: int) -> None:
    draw = np.random.default_rng(seed)
    hosts = {f"h{k}": int(draw.integers(1, 4)) for k in range(int(draw.integers(1, 6)))}
    names = list(hosts)
    shards = [
        shard(k, int(draw.integers(0, 1000)), names[int(draw.integers(len(names)))])
        for k in range(int(draw.integers(0, 40)))
    ]
    before, moved = after(shards, []), after(shards, plan_moves(shards, hosts))
    assert sum(moved.values()) == sum(before.values())
    fullest = max((before[h] / n for h, n in hosts.items()), default=0)
    assert all(moved[h] / n <= fullest for h, n in hosts.items())


def written(folder: Path, count: int) -> list[TensorShard]:
    """Shards of two tensors, all on the first host; the first is large enough for many chunks."""
    shards = []
    for k in range(count):
        place = folder / f"zoo-shards-0123-{k}-0"
        with TensorWriter(place, 2) as writer:
            rows = 300_000 if k == 0 else 300_000 + k
            writer.append([np.full((rows, 4), k, np.float32), np.arange(rows)])
        shards.append(TensorShard(k, writer.rows, "h0", str(place), writer.bytes, writer.checksum))
    return shards


def test_every_byte_arrives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hosts: Launcher
) -> None:
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))
    shards = written(tmp_path, 3)
    before = {s.index: content(s) for s in shards}

    def body(member: Member) -> tuple[bytes, dict[str, Any]]:
        moved = move_shards(member, shards)
        return b"", {"places": [[s.index, s.host, s.path] for s in moved]}

    results = launch(pickled(body, "it"), launcher=hosts, ranks=3, per_executor=1)
    places = results[0].body["places"]
    assert all(r.body["places"] == places for r in results)
    assert sorted(host for _, host, _ in places) == ["h0", "h1", "h2"]
    for index, host, path in places:
        assert content(shard(index, 0, host, path)) == before[index]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(Path(p).name for _, _, p in places)


def test_a_shard_whose_copy_is_there_does_not_travel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hosts: Launcher
) -> None:
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))
    shards = written(tmp_path, 3)
    targets = {m.index: m.target for m in plan_moves(shards, {"h0": 1, "h1": 1, "h2": 1})}
    copied = [
        replace(s, copy=Place(targets[s.index], "there")) if s.index in targets else s
        for s in shards
    ]

    def body(member: Member) -> tuple[bytes, dict[str, Any]]:
        moved = move_shards(member, copied)
        return b"", {"places": [[s.path, s.copy and s.copy.host] for s in moved]}

    results = launch(pickled(body, "it"), launcher=hosts, ranks=3, per_executor=1)
    places = results[0].body["places"]
    assert sorted(places) == sorted(
        ["there", "h0"] if s.index in targets else [s.path, None] for s in shards
    )
    assert len(list(tmp_path.iterdir())) == 3


def test_a_shard_that_moves_may_stay_as_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hosts: Launcher
) -> None:
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))
    shards = written(tmp_path, 3)

    def body(member: Member) -> tuple[bytes, dict[str, Any]]:
        moved = move_shards(member, shards, keep=True)
        return b"", {"copies": [s.copy and s.copy.path for s in moved]}

    results = launch(pickled(body, "it"), launcher=hosts, ranks=3, per_executor=1)
    copies = [c for c in results[0].body["copies"] if c]
    assert len(copies) == 2
    assert all(Path(c).exists() for c in copies)


def test_a_shard_that_is_gone_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hosts: Launcher
) -> None:
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))
    shards = written(tmp_path, 3)

    def body(member: Member) -> tuple[bytes, dict[str, Any]]:
        there = [TensorShard(s.index, s.rows, s.host, s.path + "x", s.bytes) for s in shards]
        return b"", {"places": len(move_shards(member, there))}

    with pytest.raises(ShardsLostError) as caught:
        launch(pickled(body, "it"), launcher=hosts, ranks=3, per_executor=1)
    assert [part for part, _ in caught.value.shards] == [0, 0]
    assert len(list(tmp_path.iterdir())) == 3


def content(one: TensorShard) -> bytes:
    return Path(one.path).read_bytes()
