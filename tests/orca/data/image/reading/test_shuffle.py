import numpy as np
import pytest

from zoo.errors import InputError
from zoo.orca.data.image.reading.shuffle import RowPlan, Run


def runs(rows: int, step: int = 10, nbytes: int = 0) -> tuple[Run, ...]:
    return tuple(Run(at, min(at + step, rows), nbytes) for at in range(0, rows, step))


def order(plan: RowPlan, epoch: int = 0) -> list[int]:
    return np.concatenate(list(plan.batches(epoch))).tolist()


def test_without_shuffle_the_order_is_the_datas() -> None:
    plan = RowPlan(runs(97), batch_size=8)
    assert order(plan) == list(range(97))
    assert [len(batch) for batch in plan.batches(0)] == [8] * 12 + [1]


@pytest.mark.parametrize("batch_size", [1, 7, 32, 500])
@pytest.mark.parametrize("rows", [0, 1, 9, 97])
def test_each_row_once_in_batches_of_one_size(rows: int, batch_size: int) -> None:
    plan = RowPlan(runs(rows), batch_size, shuffle=True, buffer=30)
    batches = list(plan.batches(3))
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(rows))
    assert len(batches) == len(plan)
    assert all(len(batch) == batch_size for batch in batches[:-1])


def test_a_short_batch_can_be_left_out() -> None:
    plan = RowPlan(runs(97), 10, shuffle=True, buffer=20, drop_last=True)
    assert [len(batch) for batch in plan.batches(0)] == [10] * 9
    assert len(plan) == 9


def test_order_follows_from_seed_and_epoch() -> None:
    plan = RowPlan(runs(200), shuffle=True, buffer=50, seed=1)
    assert order(plan, 2) == order(RowPlan(runs(200), 7, shuffle=True, buffer=50, seed=1), 2)
    others = [order(plan, 3), order(RowPlan(runs(200), shuffle=True, buffer=50, seed=2), 2)]
    assert order(plan, 2) not in others


def test_blocks_and_rows_are_shuffled() -> None:
    drawn = order(RowPlan(runs(1000), shuffle=True, buffer=100))
    first = drawn[:100]
    assert max(first) - min(first) > 500  # from all over the data
    assert sum(abs(a - b) == 1 for a, b in zip(first, first[1:], strict=False)) < 20


def test_a_buffer_holds_few_blocks() -> None:
    drawn = order(RowPlan(runs(1000), shuffle=True, buffer=100))
    assert len({row // 10 for row in drawn[:100]}) == 10


def test_blocks_that_cost_memory_fill_a_buffer_early() -> None:
    plan = RowPlan(runs(100, nbytes=2**26), shuffle=True, buffer=100)
    assert len({row // 10 for row in order(plan)[:20]}) == 2


@pytest.mark.parametrize(
    "settings",
    [{"batch_size": 0}, {"buffer": 0}, {"seed": -1}, {"batch_size": 2.5}, {"batch_size": True}],
)
def test_settings_out_of_range(settings: dict[str, int]) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        RowPlan(runs(10), **settings)
