"""Outputs of a model as columns: types, shapes, and nothing that is narrowed without a word."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from zoo.errors import InputError
from zoo.orca.data.tensors.decode import PlanDecoder
from zoo.orca.data.tensors.plan import ColumnPlan, TensorPlan, TensorSpec
from zoo.orca.learn.score.predict import (
    Kind,
    Kinds,
    Outputs,
    arrow_type,
    kinds_of,
    predict_arrow,
    prediction_kinds,
    with_prediction,
)

PLAN = TensorPlan((TensorSpec((ColumnPlan("x", "scalar", "float64"),), "float64", ()),), ())
TABLE = pa.table({"x": [1.0, 2.0, 3.0, 4.0, 5.0]})


def column(model: Any, batch_size: int = 2) -> pa.Array:
    kinds = prediction_kinds(model, PLAN, lambda: TABLE)
    batch = TABLE.to_batches()[0]
    made = predict_arrow(model, PlanDecoder(PLAN), batch, kinds, batch_size)
    assert made.type == arrow_type(kinds)
    return made


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("float64", pa.float64()),
        ("float32", pa.float32()),
        ("float16", pa.float32()),
        ("int64", pa.int64()),
        ("int32", pa.int32()),
        ("int8", pa.int8()),
        ("uint8", pa.int16()),
        ("bool", pa.bool_()),
    ],
)
def test_one_number_keeps_its_type(dtype: str, expected: pa.DataType) -> None:
    made = column(lambda given: (given[0] % 2).astype(dtype))
    assert made.type == expected
    assert [float(v) for v in made.to_pylist()] == [1, 0, 1, 0, 1]


def test_large_numbers_of_float64_are_not_rounded() -> None:
    made = column(lambda given: given[0] + 1717243201.0)
    assert made.to_pylist()[0] == 1717243202.0


def test_one_column_is_one_number() -> None:
    assert column(lambda given: given[0][:, None, None]).type == pa.float64()


def test_several_numbers_are_float64_for_a_vector() -> None:
    made = column(lambda given: np.stack([given[0], -given[0]], axis=1).astype("float32"))
    assert made.type == pa.list_(pa.float64())
    assert made.to_pylist()[1] == [2.0, -2.0]


@pytest.mark.parametrize("width", [0, 3])
def test_lists_of_any_width(width: int) -> None:
    made = column(lambda given: {"x": np.ones((len(given[0]), 2, width))})
    assert made.to_pylist() == [{"x": [[1.0] * width] * 2}] * 5
    made = column(lambda given: np.ones((len(given[0]), width)))
    assert made.to_pylist() == [[1.0] * width] * 5


def test_whole_numbers_that_a_vector_cannot_hold_are_refused() -> None:
    with pytest.raises(InputError, match="up to 2\\*\\*53"):
        column(lambda given: np.full((len(given[0]), 2), (1 << 53) + 1))


@pytest.mark.parametrize("dtype", ["float64", "int32"])
def test_arrays_keep_their_type(dtype: str) -> None:
    made = column(lambda given: np.ones((len(given[0]), 2, 3), dtype=dtype))
    assert made.type == pa.list_(pa.list_(pa.from_numpy_dtype(dtype)))
    assert made.to_pylist()[4] == [[1, 1, 1], [1, 1, 1]]


def test_several_outputs_are_vectors() -> None:
    made = column(lambda given: [given[0], np.stack([given[0], given[0]], axis=1)])
    assert made.to_pylist()[2] == [[3.0], [3.0, 3.0]]


def test_named_outputs_are_fields_of_their_own_types() -> None:
    def model(given: Any) -> Outputs:
        whole = given[0].astype("int64")
        return {"score": given[0], "pair": np.stack([whole, whole], axis=1)}

    made = column(model)
    fields = [("score", pa.float64()), ("pair", pa.list_(pa.int64()))]
    assert made.type == pa.struct(fields)
    assert made.to_pylist()[3] == {"score": 4.0, "pair": [4, 4]}


@pytest.mark.parametrize("dtype", ["complex64", "uint64", "S3"])
def test_what_no_column_holds_is_refused(dtype: str) -> None:
    with pytest.raises(InputError, match=f"of type {np.dtype(dtype)}"):
        kinds_of(np.zeros(3, dtype=dtype))


def test_output_without_rows_is_refused() -> None:
    with pytest.raises(InputError, match="with no dimension"):
        kinds_of(np.array(1.0))
    with pytest.raises(InputError, match="one output for each row"):
        column(lambda given: given[0][:1])


@pytest.mark.parametrize(
    "later",
    [
        lambda x: x.astype("float64"),
        lambda x: x[:, None] * np.ones(2, "float32"),
        lambda x: [x.astype("float32")],
    ],
)
def test_outputs_of_another_kind_than_announced_are_refused(later: Any) -> None:
    announced: Kinds = Kind("float32", 0)
    batch = TABLE.to_batches()[0]
    with pytest.raises(InputError, match="outputs of one kind for all rows"):
        predict_arrow(lambda given: later(given[0]), PlanDecoder(PLAN), batch, announced, 5)


def test_a_batch_without_rows_has_the_type_of_the_others() -> None:
    batch = TABLE.slice(0, 0).combine_chunks().to_batches()
    empty = batch[0] if batch else pa.RecordBatch.from_pydict({"x": pa.array([], pa.float64())})
    made = predict_arrow(lambda given: given[0], PlanDecoder(PLAN), empty, Kind("int64", 1), 2)
    assert (len(made), made.type) == (0, pa.list_(pa.float64()))


def test_a_frame_without_rows_needs_no_model() -> None:
    unknown = TensorPlan((TensorSpec((ColumnPlan("x", "array", "float32"),), "float32", None),), ())
    empty = TABLE.slice(0, 0)
    assert prediction_kinds(lambda given: given[0], unknown, lambda: empty) == Kind("float32", 0)


def test_shard_gets_its_outputs() -> None:
    outputs: list[Outputs] = [{"a": np.ones((2, 1))}, {"a": np.zeros((1, 1))}]
    made = with_prediction({"x": 1}, outputs, 3)
    assert made["prediction"]["a"].tolist() == [1.0, 1.0, 0.0]


def test_scoring_loads_neither_spark_nor_a_framework(fresh_python: Any) -> None:
    done = fresh_python(
        "import sys, zoo.orca.learn.score.predict, zoo.orca.learn.score.evaluate\n"
        "print({name.split('.')[0] for name in sys.modules} & {'pyspark', 'torch'})"
    )
    assert done.stdout == "set()\n", done.stderr
