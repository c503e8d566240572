"""Parts of the data, scored and put together, with an evaluator of numpy."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from zoo.errors import ColumnError, InputError
from zoo.orca.data.tensors.flaws import Flaw
from zoo.orca.learn.score.evaluate import score_part, sums_of


class Part:
    """Pieces of a partition."""

    tensors: list[Any] = []
    remarks: dict[tuple[str, str], Flaw] = {}

    def __init__(self, rows: int, flaw: Flaw | None = None) -> None:
        self.rows, self.flaws = rows, {} if flaw is None else {("a", "null"): flaw}

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        if self.rows:
            yield [np.arange(self.rows)]


class Total:
    """Adds up the first array."""

    def __init__(self) -> None:
        self.rows, self.total, self.largest = 0, 0, 0

    def run(self, batches: Iterable[Sequence[np.ndarray]]) -> None:
        for (array,) in batches:
            self.rows, self.total = self.rows + len(array), self.total + int(array.sum())
            self.largest = max(self.largest, len(array))

    def sums(self) -> Any:
        return [[self.rows, self.total, self.largest]]


def scored(*parts: Part, evaluator: Any = Total) -> list[Any]:
    found = [score_part(part, evaluator, 4, f"part {k}") for k, part in enumerate(parts)]
    return sums_of([row for batch in found for row in batch.to_pylist()])


def test_parts_give_their_sums_batch_by_batch() -> None:
    assert scored(Part(10), Part(0), Part(3)) == [[[10, 45, 4]], [[0, 0, 0]], [[3, 3, 3]]]


def test_no_rows_are_an_error() -> None:
    with pytest.raises(InputError, match="rows to evaluate"):
        scored(Part(0), Part(0))


def test_flaws_of_all_parts_are_one_error() -> None:
    with pytest.raises(ColumnError, match="null in 5 rows"):
        scored(Part(1, Flaw("a", "null", 2)), Part(1, Flaw("a", "null", 3)))


def test_error_of_the_user_comes_back_as_its_own_type() -> None:
    class Broken(Total):
        def run(self, batches: Iterable[Sequence[np.ndarray]]) -> None:
            raise ArithmeticError("in a metric")

    with pytest.raises(ArithmeticError, match="in a metric") as caught:
        scored(Part(2), evaluator=Broken)
    (note,) = caught.value.__notes__
    assert note.startswith("Raised by part 0:\n  File ")


def test_rows_of_which_none_weighs_anything_are_refused() -> None:
    parts = [Part(3), Part(2)]
    for part, weightless in zip(parts, (3, 2), strict=True):
        part.remarks = {("w", "weightless"): Flaw("w", "weightless", weightless)}
    with pytest.raises(ColumnError, match="more than 0, in column 'w'.*0 in all 5 rows"):
        scored(*parts)
