"""Copies of shards on other hosts, and what a rank says of shards that are gone."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyspark import cloudpickle

from zoo.cluster.ranks.carried import pickled
from zoo.cluster.ranks.launcher import Launcher
from zoo.cluster.ranks.member import Member
from zoo.cluster.ranks.messages import Kind, Message
from zoo.cluster.ranks.round import RoundHooks, launch
from zoo.errors import ShardsLostError
from zoo.orca.data.tensors.array_rows import plan_arrays
from zoo.orca.data.tensors.tensor_shard import Place, TensorShard, TensorWriter
from zoo.orca.learn.order import TensorSource
from zoo.orca.learn.rank import copying
from zoo.orca.learn.rank.copying import plan_copies, start_copies
from zoo.orca.learn.rank.opening import open_feed

cloudpickle.register_pickle_by_value(sys.modules[__name__])
PLAN = plan_arrays({"x": np.zeros((1, 4), np.float32)}, {"y": np.zeros(1, np.int64)})


def shard(index: int, host: str, copy: str = "", size: int = 100) -> TensorShard:
    place = Place(copy, "there") if copy else None
    return TensorShard(index, 10, host, f"s{index}", size, copy=place)


def test_one_host_has_nothing_to_copy() -> None:
    assert plan_copies([shard(0, "a"), shard(1, "a")], {"a"}) == {}


def test_every_shard_gets_one_copy_elsewhere() -> None:
    shards = [shard(k, "abc"[k % 3]) for k in range(9)]
    targets = plan_copies(shards, {"a", "b", "c"})
    assert all(targets[s.index] != s.host for s in shards)
    held = [list(targets.values()).count(host) for host in "abc"]
    assert max(held) - min(held) <= 2


def test_a_copy_counts_while_its_host_has_ranks() -> None:
    shards = [shard(0, "a", copy="b"), shard(1, "a", copy="gone"), shard(2, "b", copy="b")]
    assert plan_copies(shards, {"a", "b"}) == {1: "b", 2: "a"}


def test_copies_go_where_the_fewest_bytes_are() -> None:
    shards = [shard(0, "a", copy="b", size=1000), shard(1, "a"), shard(2, "a")]
    assert plan_copies(shards, {"a", "b", "c"}) == {1: "c", 2: "c"}


def written(folder: Path, count: int) -> list[TensorShard]:
    shards = []
    for k in range(count):
        path = folder / f"zoo-shards-0123-{k}-0"
        with TensorWriter(path, 2) as writer:
            writer.append([np.full((1000, 4), k, np.float32), np.arange(1000)])
        shards.append(TensorShard(k, 1000, f"h{k % 3}", str(path), writer.bytes, writer.checksum))
    return shards


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))
    return tmp_path


def test_shards_are_copied_while_ranks_work(scratch: Path, hosts: Launcher) -> None:
    shards, told = written(scratch, 6), list[list[str]]()

    def body(member: Member) -> tuple[bytes, dict[str, Any]]:
        start_copies(member, shards, 1)
        deadline = time.monotonic() + 10
        while len(list(scratch.iterdir())) < 12 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)
        return b"", {}

    class Listener(RoundHooks):
        def on_report(self, message: Message) -> None:
            assert (message.kind, message.body["part"]) == (Kind.COPIED, 1)
            told.extend(message.body["places"])

    launch(pickled(body, "it"), launcher=hosts, ranks=3, per_executor=1, hooks=Listener())
    before = {s.path: s for s in shards}
    assert sorted(path for path, _, _ in told) == sorted(before)
    for source, host, copy in told:
        assert host != before[source].host
        assert Path(copy).read_bytes() == Path(source).read_bytes()


def test_a_round_that_ends_leaves_no_half_copy(scratch: Path, hosts: Launcher) -> None:
    shards = written(scratch, 3)

    def body(member: Member) -> tuple[bytes, dict[str, Any]]:
        copying._PAUSE = 1e9
        start_copies(member, shards, 0)
        time.sleep(0.3)
        return b"", {}

    launch(pickled(body, "it"), launcher=hosts, ranks=3, per_executor=1)
    deadline = time.monotonic() + 10
    while len(list(scratch.iterdir())) > 3 and time.monotonic() < deadline:
        time.sleep(0.01)  # who copies sees the end of the round a moment later
    assert len(list(scratch.iterdir())) == 3


def test_a_full_disk_gets_no_copies(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(copying, "_FREE_SHARE", 2.0)
    assert not copying._has_room(1)


def opened(shards: list[TensorShard], hosts: Launcher) -> None:
    source = TensorSource(PLAN, tuple(shards), 100, 0, part=1)

    def body(member: Member) -> tuple[bytes, dict[str, Any]]:
        open_feed(source, member)
        return b"", {}

    launch(pickled(body, "it"), launcher=hosts, ranks=3, per_executor=1)


@pytest.mark.parametrize("size", [None, 0, 500])
def test_a_shard_that_is_gone_or_cut_off_is_named(
    scratch: Path, hosts: Launcher, size: int | None
) -> None:
    shards = written(scratch, 6)
    path = Path(shards[4].path)
    if size is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ShardsLostError, match="1 missing or cut off") as caught:
        opened(shards, hosts)
    assert caught.value.shards == ((1, 4),)
