from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from zoo.errors import ContractError, InputError
from zoo.orca.data.xshards.content import (
    class_name,
    concatenate,
    content_kind,
    even_cuts,
    select,
    shard_length,
    split_nested,
    take_rows,
)


class Pair(NamedTuple):
    x: Any
    y: Any


def test_split_is_that_of_array_split() -> None:
    parts = split_nested(np.arange(10), 4)
    assert [p.tolist() for p in parts] == [p.tolist() for p in np.array_split(np.arange(10), 4)]


@pytest.mark.parametrize(
    "data",
    [
        np.arange(6),
        [np.arange(6), np.ones((6, 2))],
        (np.arange(6), [np.zeros(6)]),
        {"x": np.arange(6), "y": {"z": (np.ones((6, 1)),)}},
        Pair(np.arange(6), np.ones(6)),
    ],
)
def test_split_keeps_the_nesting(data: Any) -> None:
    def shape_of(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: shape_of(value) for key, value in part.items()}
        if isinstance(part, list | tuple):
            return type(part).__name__, [shape_of(value) for value in part]
        return part.shape[1:]

    parts = split_nested(data, 3)
    assert len(parts) == 3
    assert all(shape_of(part) == shape_of(data) for part in parts)


def test_split_keeps_leaves_together() -> None:
    part = split_nested({"x": np.arange(7), "y": [np.arange(7) * 10]}, 3)[1]
    assert (part["x"] * 10).tolist() == part["y"][0].tolist()


def test_more_shards_than_rows_names_the_number_of_shards() -> None:
    with pytest.raises(ValueError, match=r"number of shards \(5\).* 3 rows"):
        split_nested(np.arange(3), 5)


def test_leaves_of_different_length_are_an_assertion_error() -> None:
    with pytest.raises(AssertionError, match=r"same first dimension.*\[3, 4\]"):
        split_nested({"x": np.arange(3), "y": np.arange(4)}, 2)


@pytest.mark.parametrize("data", [5, "text", pd.DataFrame({"a": [1]}), [1, 2], np.array(3), {}, []])
def test_other_types_are_an_assertion_error_that_lists_the_types(data: Any) -> None:
    with pytest.raises(AssertionError, match="ndarray, or lists, tuples and dicts"):
        split_nested(data, 1)


@pytest.mark.parametrize(
    ("shard", "name"),
    [
        (pd.DataFrame(), "pandas.core.frame.DataFrame"),
        (pd.Series([1]), "pandas.core.series.Series"),
        (np.ones(2), "numpy.ndarray"),
        ([1], "list"),
        ((1,), "tuple"),
        ({}, "dict"),
        (1.5, "float"),
        (Pair(1, 2), f"{__name__}.Pair"),
    ],
)
def test_class_names_are_the_old_ones(shard: Any, name: str) -> None:
    assert class_name(shard) == name


def test_length_of_a_dict_is_its_keys_and_of_a_number_is_one() -> None:
    shards = [{"x": np.arange(5), "y": 1}, 7, np.array(3), [1, 2, 3], pd.DataFrame({"a": [1, 2]})]
    assert [shard_length(shard) for shard in shards] == [2, 1, 1, 3, 2]


def test_arrays_without_dimensions_are_not_cut() -> None:
    assert [content_kind(s) for s in (np.array(1), np.ones(1), "text")] == [
        "other",
        "array",
        "other",
    ]


@pytest.mark.parametrize(("shard", "key"), [({"x": 1}, "x"), ([5, 6], 1), (np.arange(3), 2)])
def test_select(shard: Any, key: Any) -> None:
    assert select(shard, key) == shard[key]


@pytest.mark.parametrize(
    ("shard", "key"),
    [({"x": 1}, "y"), ([5], 3), ([5], "x"), (pd.DataFrame({"a": [1]}), "b"), (pd.Series([1]), 9)],
)
def test_select_without_the_key(shard: Any, key: Any) -> None:
    with pytest.raises(InputError, match="Invalid key for this XShards"):
        select(shard, key)


def test_select_names_keys_that_are_there() -> None:
    with pytest.raises(InputError, match=r"'age', 'name'.*'nmae'"):
        select(pd.DataFrame({"age": [1], "name": ["a"]}), "nmae")


def test_select_from_what_has_no_keys() -> None:
    with pytest.raises(ContractError, match="No selection operation available for this XShards"):
        select(7, "x")


@pytest.mark.parametrize(
    ("lengths", "count"), [([10], 3), ([0, 5, 0, 7], 4), ([3, 3], 9), ([1] * 8, 2), ([0, 0], 2)]
)
def test_cuts_are_even_and_keep_the_order(lengths: list[int], count: int) -> None:
    rows = [(source, row) for source, length in enumerate(lengths) for row in range(length)]
    parts: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    for source, pieces in enumerate(even_cuts(lengths, count)):
        for part, start, stop in pieces:
            parts[part] += [(source, row) for row in range(start, stop)]
    assert [row for part in parts for row in part] == rows
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_frames_join_with_columns_dtypes_and_index() -> None:
    frame = pd.DataFrame(
        {"i": np.arange(3, dtype=np.int16), "f": np.float32([1, 2, 3]), "t": ["a", None, "c"]},
        index=[7, 8, 9],
    )
    joined = concatenate([frame.iloc[:1], frame.iloc[1:]])
    pd.testing.assert_frame_equal(joined, frame)


def test_frames_without_rows_have_no_say_in_dtypes() -> None:
    empty = pd.DataFrame({"a": pd.Series([], dtype=object)})
    joined = concatenate([empty, pd.DataFrame({"a": [1, 2]}), empty])
    assert joined["a"].dtype == np.int64


def test_frames_with_only_nulls_join_without_a_warning() -> None:
    nulls = pd.DataFrame({"a": [None], "b": [np.nan]}, dtype=object)
    joined = concatenate([nulls, pd.DataFrame({"a": [1.5], "b": [pd.Timestamp("2020")]})])
    assert joined["a"].isna().tolist() == [True, False]


def test_categories_are_united() -> None:
    parts = [pd.DataFrame({"c": pd.Categorical(values)}) for values in (["a"], ["b", None])]
    joined = concatenate(parts)
    assert isinstance(joined["c"].dtype, pd.CategoricalDtype)
    assert joined["c"].astype(object).tolist()[:2] == ["a", "b"]
    series = concatenate([part["c"] for part in parts])
    assert isinstance(series.dtype, pd.CategoricalDtype)


def test_lists_and_arrays_join() -> None:
    assert concatenate([[1], [], [2, 3]]) == [1, 2, 3]
    assert concatenate([np.ones((1, 2)), np.zeros((2, 2))]).shape == (3, 2)


def test_arrays_of_other_shapes_do_not_join() -> None:
    with pytest.raises(InputError, match=r"\(2,\), \(3,\)"):
        concatenate([np.ones((1, 2)), np.ones((1, 3))])


@pytest.mark.parametrize("shards", [[[1], np.ones(1)], [{"x": 1}], []])
def test_other_kinds_do_not_join(shards: list[Any]) -> None:
    with pytest.raises(InputError, match="all of one kind"):
        concatenate(shards)


@pytest.mark.parametrize("shard", [[1, 2, 3], np.arange(3), pd.Series([1, 2, 3])])
def test_rows_are_taken_by_position(shard: Any) -> None:
    assert list(take_rows(shard, 1, 3)) == list(shard)[1:3]
