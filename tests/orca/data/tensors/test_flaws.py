"""Cells that cannot be used: one error, with the column, how many rows, and what to do."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.sql import types as T

from zoo.errors import ColumnError
from zoo.orca.data.image import ImageDecoder
from zoo.orca.data.tensors.decode import CellError, decode_tensor
from zoo.orca.data.tensors.flaws import Flaw, raise_flaws
from zoo.orca.data.tensors.plan_columns import plan_columns

DOUBLE, ARRAY = T.DoubleType(), T.ArrayType(T.DoubleType())
BYTES = pa.array([str(k).encode() for k in range(8)])


def fails(data: bytes) -> Any:
    raise KeyError("of the user")


def cell_by_cell(data: bytes) -> np.ndarray:
    return np.zeros(1 + data[0] % 2)


def refused(
    kind: T.DataType, cells: pa.Array, says: str, decoder: Any = None, *, label: bool = False
) -> None:
    names = ("x", "a") if label else ("a", "y")
    schema = T.StructType([T.StructField(n, kind if n == "a" else DOUBLE) for n in names])
    decoders = {"a": decoder} if decoder else {}
    plan = plan_columns(schema, [names[0]], [names[1]], decoders=decoders)
    tensor = (plan.labels if label else plan.features)[0]
    with pytest.raises(CellError) as caught:
        decode_tensor(tensor, [cells], label=label)
    with pytest.raises(ColumnError, match=f"(?s)'a'.*{says}"):
        raise_flaws(caught.value.flaws)


@pytest.mark.parametrize(
    ("kind", "cells", "says"),
    [
        (DOUBLE, [1.0, None, 3.0], "null in 1 row.*drop"),
        (ARRAY, [[1.0, 2.0], [1.0, None]], "null in 1 row"),
        (ARRAY, [[1.0], None, None], "null in 2 rows"),
        (ARRAY, [[1.0, 2.0], [1.0, 2.0, 3.0]], "another shape"),
        (T.ArrayType(T.LongType()), [[16777217]], "16777217.*int64"),
    ],
    ids=["null", "null in an array", "null arrays", "ragged", "too large for float"],
)
def test_features(kind: T.DataType, cells: list[Any], says: str) -> None:
    refused(kind, pa.array(cells), says)


@pytest.mark.parametrize(
    ("cells", "says"),
    [([1.0, None, None], "null in 2 rows"), ([1.0, float("nan")], "NaN in 1 row.*dropna")],
    ids=["null", "NaN"],
)
def test_labels(cells: list[Any], says: str) -> None:
    refused(DOUBLE, pa.array(cells), says, label=True)


@pytest.mark.parametrize(
    ("decoder", "says"),
    [
        (fails, "8 rows.*KeyError: 'of the user'"),
        (cell_by_cell, "another shape"),
        (lambda data: "text", "str"),
        (ImageDecoder(size=(4, 4)), "8 rows"),
    ],
    ids=["raises", "odd shapes", "text", "corrupt image"],
)
def test_decoders(decoder: Any, says: str) -> None:
    refused(T.BinaryType(), BYTES, says, decoder)


def test_flaws_of_all_tasks_are_one_error() -> None:
    flaws = [Flaw("a", "null", 2), Flaw("b", "nan", 1), Flaw("a", "null", 3, "an example")]
    with pytest.raises(ColumnError, match=r"null in 5 rows \(an example\); also 'b': nan in 1"):
        raise_flaws(flaws)


def test_nothing_wrong_is_no_error() -> None:
    raise_flaws([])
