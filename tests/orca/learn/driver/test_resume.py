"""Which state a training goes on from, and which data it may go on with."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from zoo.errors import InputError
from zoo.orca.data.tensors.tensor_shard import TensorShard
from zoo.orca.learn.driver.resume import (
    data_facts,
    newest_state,
    read_checkpoint,
    require_same_data,
)
from zoo.orca.learn.driver.snapshots import SnapshotStore
from zoo.orca.learn.pytorch.recipe import Recipe, build
from zoo.orca.learn.pytorch.state import read_state, save_state
from zoo.orca.learn.steps import Position


def state_at(epoch: int, step: int, iteration: int) -> bytes:
    model = nn.Linear(1, 1)
    recipe = Recipe(model, lambda m, c: torch.optim.SGD(m.parameters(), lr=0.1))
    return save_state(build(recipe), Position(epoch, step, iteration))


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    """Snapshots inside an epoch, between two, and inside the next one."""
    store = SnapshotStore(tmp_path, keep=None)
    for epoch, step, iteration in ((0, 4, 4), (1, 0, 6), (1, 2, 8)):
        store.write(iteration, state_at(epoch, step, iteration))
    return store


def damage(folder: Path, iteration: int) -> None:
    place = next(folder.glob(f"*/model.{iteration}"))
    place.write_bytes(place.read_bytes()[:-100])


# Which state


def test_newest_state_is_taken(store: SnapshotStore) -> None:
    state = newest_state(store, read_state)
    assert state is not None
    assert state.position == Position(1, 2, 8)


def test_newest_state_between_two_epochs(store: SnapshotStore) -> None:
    state = newest_state(store, read_state, between_epochs=True)
    assert state is not None
    assert state.position == Position(1, 0, 6)


@pytest.mark.parametrize(("between", "iteration"), [(False, 4), (True, None)])
def test_damaged_snapshots_are_passed_over_with_a_word(
    store: SnapshotStore,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    between: bool,
    iteration: int | None,
) -> None:
    damage(tmp_path, 8)
    damage(tmp_path, 6)
    with caplog.at_level(logging.WARNING):
        state = newest_state(store, read_state, between_epochs=between)
    assert (None if state is None else state.position.iteration) == iteration
    assert caplog.text.count("skipped the snapshot") == 2


@pytest.mark.parametrize("between", [False, True])
def test_no_snapshot_is_no_state(
    tmp_path: Path, between: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert (
            newest_state(SnapshotStore(tmp_path / "none"), read_state, between_epochs=between)
            is None
        )
    assert "to resume from: beginning from scratch" in caplog.text


def test_checkpoint_by_folder_run_file_and_version(store: SnapshotStore, tmp_path: Path) -> None:
    run = next(tmp_path.iterdir())
    read = [
        read_checkpoint(str(tmp_path), None, None),
        read_checkpoint(str(run), None, None),
        read_checkpoint(str(run / "model.8"), None, None),
        read_checkpoint(str(run), 8, "orca"),
    ]
    assert {read_state(blob).position.iteration for blob in read} == {8}
    old = read_checkpoint(str(run), 4, "orca")
    assert read_state(old).position == Position(0, 4, 4)


def test_checkpoint_that_is_damaged_is_passed_over(store: SnapshotStore, tmp_path: Path) -> None:
    damage(tmp_path, 8)
    blob = read_checkpoint(str(tmp_path), None, None)
    assert read_state(blob).position.iteration == 6


def test_no_whole_checkpoint_is_an_error(store: SnapshotStore, tmp_path: Path) -> None:
    for iteration in (4, 6, 8):
        damage(tmp_path, iteration)
    with pytest.raises(InputError, match="a whole snapshot in"):
        read_checkpoint(str(tmp_path), None, None)


# Which data


def shard(index: int, rows: int, checksum: Any = 1) -> TensorShard:
    return replace(SHARD, index=index, rows=rows, checksum=checksum)


SHARD = TensorShard(**dict.fromkeys(TensorShard.__dataclass_fields__, 0))  # type: ignore[arg-type]
SHARDS = [shard(0, 30), shard(1, 40)]
FACTS = data_facts(SHARDS, 16, 0)


def test_same_data_is_taken() -> None:
    require_same_data(FACTS, data_facts(SHARDS, 16, 0))
    require_same_data({**FACTS, "first_epoch": 3}, FACTS)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (data_facts(SHARDS, 32, 0), "batch_size 32 instead of 16"),
        (data_facts(SHARDS, 16, 4), "seed of the order 4 instead of 0"),
        (data_facts(SHARDS, 16, None), "seed of the order None instead of 0"),
        (data_facts([shard(0, 31), shard(1, 40)], 16, 0), "rows 71 instead of 70"),
        (data_facts([shard(0, 40), shard(1, 30)], 16, 0), "another sizes of partitions"),
        (data_facts([shard(0, 30), shard(1, 40, 2)], 16, 0), "another content of partitions"),
        (data_facts([shard(0, 70)], 16, 0), "partitions 1 instead of 2"),
    ],
    ids=["batch size", "seed", "no seed", "rows", "layout", "content", "partitions"],
)
def test_other_data_is_refused(now: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        require_same_data(FACTS, now)


def test_facts_are_plain_values() -> None:
    assert all(type(value) in (int, type(None)) for value in FACTS.values())
    assert FACTS["rows"] == 70


def test_state_without_facts_is_refused() -> None:
    with pytest.raises(InputError, match="batch_size 16 instead of None"):
        require_same_data({}, FACTS)
