import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from zoo.errors import InputError
from zoo.orca.data.pandas.columns import ColumnChoice, choose_columns
from zoo.orca.data.pandas.keywords import column_keywords

HEADER = ["a", "b", "c"]


def choice(**keywords: Any) -> ColumnChoice:
    return choose_columns(HEADER, column_keywords(keywords))


def finished(frame: pd.DataFrame, **keywords: Any) -> Any:
    return choose_columns(list(frame.columns), column_keywords(keywords))(frame)


def starts_with_c(name: str) -> bool:
    return name == "c"


@pytest.mark.parametrize(
    ("usecols", "positions"),
    [([2, 0], (0, 2)), (["c", "a"], (0, 2)), (starts_with_c, (2,)), ([1, 1], (1,))],
)
def test_usecols_keeps_the_order_of_the_file(
    usecols: list[int] | list[str] | Callable[[str], bool], positions: tuple[int, ...]
) -> None:
    assert choice(usecols=usecols).positions == positions


@pytest.mark.parametrize("usecols", [["a", "x", "y"], [0, 7, -1]])
def test_missing_usecols_are_listed(usecols: list[Any]) -> None:
    shown = ", ".join(str(one) for one in usecols[1:])
    with pytest.raises(ValueError, match=f"missing columns: {shown}"):
        choice(usecols=usecols)


def test_usecols_that_take_nothing_are_an_error() -> None:
    with pytest.raises(InputError, match="at least one column"):
        choice(usecols=lambda name: False)


def test_names_without_usecols_must_match_the_file() -> None:
    assert choice(names=["x", "y", "z"]).names == ("x", "y", "z")
    with pytest.raises(ValueError, match="3 columns of the file"):
        choice(names=["x", "y"])


def test_names_as_many_as_usecols_name_the_columns_used() -> None:
    found = choice(names=["x", "y"], usecols=["c", "a"])
    assert (found.positions, found.names) == ((0, 2), ("x", "y"))


def test_names_that_cover_all_columns_come_first_and_usecols_may_use_them() -> None:
    found = choice(names=["x", "y", "z"], usecols=["z"])
    assert (found.positions, found.names) == ((2,), ("z",))


def test_names_that_fit_neither_usecols_nor_file_are_an_error() -> None:
    with pytest.raises(ValueError, match="Passed names did not match usecols"):
        choice(names=["x", "y"], usecols=[0])


def test_dtype_for_all_columns() -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": [0.5, 1.0]})
    assert set(finished(frame, dtype="float32").dtypes) == {np.dtype("float32")}


def test_dtype_by_name_or_by_position_in_the_file() -> None:
    found = choice(usecols=["b", "c"], dtype={"b": "int8", 2: float})
    assert found.dtypes == {0: np.dtype("int8"), 1: np.dtype("float64")}


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("x", "column to be set type is not in current dataframe"),
        ("a", "column to be set type is not in current dataframe"),
        (0, "column index to be set type is not in current dataframe"),
        (9, "column index to be set type is not in current dataframe"),
    ],
)
def test_dtype_of_a_column_not_in_the_result_is_an_error(key: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choice(usecols=["b", "c"], dtype={key: "int64"})


@pytest.mark.parametrize("dtype", [str, "str", object, "string", np.dtype(object), np.str_])
def test_dtype_of_text_keeps_what_is_in_the_file(dtype: object) -> None:
    found = choice(dtype={"b": dtype, "a": "int64"})
    assert found.texts == {1}
    assert set(found.dtypes) == {0}


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [("bigint", "int64"), ("double", "float64"), ("timestamp", "datetime64[ns]"), (int, "int64")],
)
def test_dtype_may_be_named_as_spark_does(dtype: object, kind: str) -> None:
    assert choice(dtype={"a": dtype}).dtypes[0] == np.dtype(kind)


def test_dtype_that_is_none_is_an_error() -> None:
    with pytest.raises(InputError, match="dtype as pandas names it"):
        choice(dtype="nosuch")


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1.5, 2.0], "int64"),
        ([1.0, np.nan], "int64"),
        ([1, 300], "int8"),
        ([-1, 3], "uint8"),
        (["x", "1"], "float64"),
        ([True, None], "bool"),
    ],
)
def test_values_that_do_not_fit_dtype_are_an_error(values: list[Any], dtype: str) -> None:
    with pytest.raises(ValueError, match=f"values of column 'a' that fit {dtype}"):
        finished(pd.DataFrame({"a": values}), dtype=dtype)


@pytest.mark.parametrize("dtype", ["Int64", "category", "float32"])
def test_types_of_pandas_itself(dtype: str) -> None:
    assert str(finished(pd.DataFrame({"a": [1.0, np.nan]}), dtype=dtype)["a"].dtype) == dtype


def test_large_whole_numbers_stay_exact() -> None:
    frame = pd.DataFrame({"a": [2**62 + 1, 2**53 + 1]})
    assert finished(frame, dtype="int64")["a"].tolist() == [2**62 + 1, 2**53 + 1]


@pytest.mark.parametrize("index_col", ["b", 1, -1, ["b"]])
def test_index_col_is_set_as_index(index_col: object) -> None:
    frame = finished(pd.DataFrame({"a": [1, 2], "b": [3, 4]}), index_col=index_col)
    assert frame.index.name == "b" or frame.index.names == ["b"]
    assert list(frame.columns) == ["a"]


@pytest.mark.parametrize("index_col", ["x", 3])
def test_index_col_that_is_not_there_is_an_error(index_col: object) -> None:
    with pytest.raises(InputError, match="index_col among the columns a, b, c"):
        choice(index_col=index_col)


def test_squeeze_makes_a_series_of_one_remaining_column() -> None:
    two = pd.DataFrame({"a": [1], "b": [3]})
    series = finished(two.copy(), squeeze=True, index_col="b")
    assert isinstance(series, pd.Series)
    assert series.name == "a"
    assert isinstance(finished(two, squeeze=True), pd.DataFrame)


def test_the_choice_travels_to_tasks() -> None:
    found = choice(dtype={"a": "Int64"})
    assert pickle.loads(pickle.dumps(found)) == found
