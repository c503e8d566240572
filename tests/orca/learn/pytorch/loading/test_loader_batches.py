"""Batches of a loader on one rank, without ranks."""

import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset, get_worker_info

from zoo.orca.learn.order import LoaderSource
from zoo.orca.learn.pytorch.batches import Batch
from zoo.orca.learn.pytorch.loading.loader_batches import LoaderBatches


class Alone:
    """A rank among others that hold the same."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    def share(self, value: Any) -> list[Any]:
        return [value] * self.size


class Numbers(Dataset[Any]):
    """Each row is its number, and the seed of the process that read it."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, row: int) -> tuple[int, int]:
        info = get_worker_info()
        return row, info.seed if info else 0


def batches(rows: int, batch_size: int, member: Any = None, **options: Any) -> LoaderBatches:
    def create(config: dict[str, Any], size: int) -> DataLoader[Any]:
        return DataLoader(Numbers(rows), batch_size=size, **options)

    return LoaderBatches(LoaderSource(create, {}, batch_size, 0), member or Alone())


def rows_of(found: Iterator[Batch | None]) -> list[list[int]]:
    return [[] if batch is None else batch.features[0].tolist() for batch in found]


def test_rows_of_an_epoch_are_told_one_batch_at_a_time() -> None:
    many = batches(4_000_000, 1_000, shuffle=True)
    tracemalloc.start()
    try:
        assert next(many.epoch(0)) is not None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40e6


def test_ranks_share_the_rows_of_each_step() -> None:
    parts = [rows_of(batches(7, 4, Alone(rank, 2)).epoch(0)) for rank in range(2)]
    assert [a + b for a, b in zip(*parts, strict=True)] == [[0, 1, 2], [3, 4, 5, 6]]


def test_a_rank_without_rows_in_a_step_has_none() -> None:
    assert rows_of(batches(3, 3, Alone(0, 4)).epoch(0)) == [[]]


def test_an_epoch_begins_at_a_step() -> None:
    made = batches(60, 8, shuffle=True)
    assert rows_of(made.epoch(1, 3)) == rows_of(made.epoch(1))[3:]


def workers(made: LoaderBatches, epoch: int) -> set[int]:
    return {int(s) for batch in made.epoch(epoch) if batch for s in batch.targets[0]}


@pytest.mark.parametrize("stay", [True, False])
def test_workers_that_are_to_persist_are_not_started_again(stay: bool) -> None:
    made = batches(8, 4, num_workers=1, persistent_workers=stay)
    assert (workers(made, 0) == workers(made, 1)) is stay


def test_memory_is_pinned_where_the_loader_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []
    init = DataLoader.__init__

    def seen(self: Any, *args: Any, **named: Any) -> None:
        made.append(named)
        init(self, *args, **named)

    monkeypatch.setattr(DataLoader, "__init__", seen)
    batches(8, 4, pin_memory=True)
    assert [one["pin_memory"] for one in made] == [True, True]


class Twice(DataLoader[Any]):
    """Goes through its data in a way of its own."""

    def __iter__(self) -> Any:
        yield from super().__iter__()
        yield from super().__iter__()


def test_a_loader_with_a_way_of_its_own_is_left_to_it() -> None:
    data = TensorDataset(torch.arange(4), torch.arange(4))
    source = LoaderSource(lambda config, size: Twice(data, batch_size=size), {}, 2, 0)
    made = LoaderBatches(source, Alone())  # type: ignore[arg-type]
    assert made.steps is None
    assert rows_of(made.epoch(0)) == [[0, 1], [2, 3], [0, 1], [2, 3]]
