"""Arrays become what a model file takes, or an error names the input."""

import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from zoo.errors import InputError, NotYetError
from zoo.orca.data.tensors.plan import ColumnPlan, TensorPlan, TensorSpec
from zoo.orca.learn.score.ports import OpenModel, Port, numpy_dtype
from zoo.orca.learn.score.predict import Kind


def doubled(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    return [2 * arrays[0]]


def model(batch: int | None = None, run: Callable[..., Any] = doubled) -> OpenModel:
    return OpenModel([Port("pixels", "float32", (batch, 3))], run)


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(count).random((count, 3), dtype=np.float32)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 16, 17])
def test_a_fixed_batch_gets_its_number_and_gives_exact_rows(count: int) -> None:
    seen = []

    def run(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        seen.append(len(arrays[0]))
        return doubled(arrays)

    found = model(8, run)([rows(count)])
    assert set(seen) == {8}
    np.testing.assert_array_equal(found, 2 * rows(count))


def test_threads_that_share_a_fixed_batch_get_their_own_rows() -> None:
    shared, start = model(8), threading.Barrier(8)

    def call(number: int) -> bool:
        start.wait(10)
        given = [rows(1 + (number + k) % 17) + number for k in range(60)]
        return all(np.array_equal(shared([x]), 2 * x) for x in given)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(8)))


@pytest.mark.parametrize(
    ("dtype", "array"),
    [
        ("float32", np.array([[1, 2, 3]], np.int64)),
        ("float32", np.array([[1.5, np.nan, np.inf]])),
        ("float16", np.array([[1.5, 2, 3]], np.float32)),
        ("int32", np.array([[1, 2, -3]], np.int64)),
        ("uint8", np.array([[0, 255, 3]], np.int64)),
        ("bool", np.array([[0.0, 1.0, 1.0]])),
        ("float64", np.array([[True, False, True]])),
    ],
)
def test_numbers_stay_what_they_are(dtype: str, array: np.ndarray) -> None:
    made = Port("x", dtype, (None, 3)).fitted(array)
    assert made.dtype == dtype
    np.testing.assert_array_equal(made.astype(array.dtype), array)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("float32", 2**24 + 1), ("float32", 1e300), ("int32", 2**31), ("uint8", -1),
        ("uint64", -1), ("uint8", 256), ("bool", 2), ("float16", 70_000.0),
    ],
)  # fmt: skip
def test_numbers_that_would_change_are_refused(dtype: str, value: float) -> None:
    said = re.escape(f"{dtype} holds, for the input 'x'; received {value}")
    with pytest.raises(InputError, match=said):
        Port("x", dtype, (None, 1)).fitted(np.array([[1], [value]]))


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 4), np.float32), np.zeros(2), np.zeros((2, 3, 1)), np.array([["a"] * 3] * 2)],
)
def test_other_shapes_and_texts_are_refused(array: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"the input 'pixels' \(float32 of shape \(\?, 3\)\)"):
        model()([array])


def test_fractions_are_no_whole_numbers() -> None:
    with pytest.raises(InputError, match="the input 'ids'"):
        Port("ids", "int64", (None,)).fitted(np.array([1.0]))


def test_a_number_for_each_row_is_a_column() -> None:
    found = OpenModel([Port("x", "float32", (None, 1))], doubled)([np.arange(3.0)])
    np.testing.assert_array_equal(found, [[0], [2], [4]])


def test_the_input_that_lacks_is_named() -> None:
    two = OpenModel([Port("left", "int8", (None,)), Port("right", "int8", (None,))], doubled)
    with pytest.raises(InputError, match="none for 'right'"):
        two([np.zeros(2, np.int8)])
    with pytest.raises(InputError, match="received lengths"):
        two([np.zeros(2, np.int8), np.zeros(3, np.int8)])


@pytest.mark.parametrize("shapes", [[()], [], [(4, 1), (8, 1)], [(0, 3)]])
def test_inputs_without_rows_are_refused(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(InputError, match="a model whose inputs"):
        OpenModel([Port(f"x{k}", "float32", s) for k, s in enumerate(shapes)], doubled)


@pytest.mark.parametrize("batch", [None, 8])
def test_an_output_for_each_row_is_needed(batch: int | None) -> None:
    with pytest.raises(InputError, match="one output for each row"):
        model(batch, lambda arrays: [arrays[0].sum(0)])([rows(5)])


def plan(dtype: str | None, shape: tuple[int, ...] | None, names: int = 1) -> TensorPlan:
    column = ColumnPlan("c", "array", dtype)
    return TensorPlan((TensorSpec((column,), dtype, shape),) * names, ())


@pytest.mark.parametrize(
    "given", [("float32", (3,)), ("int64", (3,)), (None, None), ("float64", None)]
)
def test_layouts_that_fit_are_taken(given: tuple[Any, Any]) -> None:
    assert model().as_taken(plan(*given)) == plan(*given)


def test_layouts_that_do_not_fit_are_refused_before_any_job() -> None:
    with pytest.raises(InputError, match=r"the input 'pixels' .* received 'c' \(float32 of shape"):
        model().as_taken(plan("float32", (4,)))
    with pytest.raises(InputError, match="one column or array for each input: 'pixels'"):
        model().as_taken(plan("float32", (3,), names=2))


def test_batches_need_no_filling_up() -> None:
    assert [model(8).whole_calls(n) for n in (1, 8, 9)] == [8, 8, 16]
    assert model().whole_calls(9) == 9


def test_kinds_are_known_where_only_rows_are_open() -> None:
    assert model().kinds() == Kind("float32", 1)
    open_size = OpenModel([Port("x", "float32", (None, 3, None))], doubled)
    assert open_size.kinds() is None


def test_tensors_without_numbers_are_refused() -> None:
    with pytest.raises(NotYetError, match="output 'p' of type seq"):
        numpy_dtype("seq(map)", {"f32": "float32"}, "output 'p'")
