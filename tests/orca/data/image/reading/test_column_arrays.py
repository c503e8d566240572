from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from zoo.errors import InputError
from zoo.orca.data.image.dataset_schema import DType, FeatureType, SchemaField
from zoo.orca.data.image.ndarray_codec import decode_ndarray, encode_ndarray
from zoo.orca.data.image.reading.column_arrays import TEXT, ColumnArrays, plan_arrays

INT = np.dtype(np.int32)


def archives(*arrays: Any) -> pa.ChunkedArray:
    return pa.chunked_array([[encode_ndarray(array) for array in arrays]])


@pytest.mark.parametrize("values", [["a", "ü"], [b"a", "ü".encode()]])
def test_texts_become_bytes(values: list[Any]) -> None:
    read = ColumnArrays("x", TEXT).read(pa.chunked_array([values]))
    assert read.tolist() == [b"a", "ü".encode()]


def test_numbers_keep_their_values() -> None:
    read = ColumnArrays("x", INT).read(pa.chunked_array([[1], [2]], pa.int64()))
    assert read.dtype == INT
    assert read.tolist() == [1, 2]


@pytest.mark.parametrize("value", [2**31, 1.5, float("nan")])
def test_numbers_that_do_not_fit(value: float) -> None:
    with pytest.raises(InputError, match="fit int32 in column 'x'"):
        ColumnArrays("x", INT).read(pa.chunked_array([[value]]))


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("float32", 2**24 + 1), ("float64", 2**60 + 1), ("float16", 70_000), ("float32", 1e39)]
    + [("bool", 2), ("bool", 0.5)],
)
def test_numbers_that_would_change(dtype: str, value: float) -> None:
    with pytest.raises(InputError, match=f"fit {dtype} in column 'x'"):
        ColumnArrays("x", np.dtype(dtype)).read(pa.chunked_array([[value]]))


@pytest.mark.parametrize(
    ("dtype", "value"), [("float32", 0.1), ("float32", float("inf")), ("float32", 7), ("bool", 1)]
)
def test_numbers_that_lose_digits_or_nothing(dtype: str, value: float) -> None:
    read = ColumnArrays("x", np.dtype(dtype)).read(pa.chunked_array([[value]]))
    assert read.tolist() == pytest.approx([value])


def test_arrays_of_one_shape_are_stacked() -> None:
    plan = ColumnArrays("x", INT, (2,), decode_ndarray)
    read = plan.read(archives([1, 2], [3, 4]))
    assert plan.stacks
    assert read.tolist() == [[1, 2], [3, 4]]


def test_arrays_of_several_shapes_stay_apart() -> None:
    plan = ColumnArrays("x", INT, (None,), decode_ndarray)
    with ThreadPoolExecutor(2) as pool:
        read = plan.read(archives([1], [2, 3]), pool)
    assert [array.tolist() for array in read] == [[1], [2, 3]]


@pytest.mark.parametrize("shape", [(2,), (None, None), ()])
def test_array_of_another_shape(shape: Any) -> None:
    with pytest.raises(InputError, match="column 'x'"):
        ColumnArrays("x", INT, shape, decode_ndarray).read(archives([1, 2, 3]))


def test_bytes_that_are_no_array() -> None:
    plan = ColumnArrays("x", INT, None, decode_ndarray)
    with pytest.raises(InputError, match="NumPy archive.*column 'x'"):
        plan.read(pa.chunked_array([[b"no archive"]]))


def test_plan_follows_the_schema() -> None:
    schema = {
        "image": SchemaField(FeatureType.IMAGE, DType.FLOAT32, ()),
        "box": SchemaField(FeatureType.NDARRAY, DType.FLOAT32, (-1, 5)),
    }
    image, box = plan_arrays(schema, ["image", "box"])
    assert (image.dtype, image.shape, image.decode) == (TEXT, (), None)
    assert (box.dtype, box.shape, box.decode) == (np.float32, (None, 5), decode_ndarray)
