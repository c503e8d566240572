"""What rows weigh: numbers of a column, weights of classes, and what is no weight."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from zoo.errors import ColumnError, InputError
from zoo.orca.data.tensors.decode import PlanDecoder
from zoo.orca.data.tensors.flaws import raise_flaws, raise_weightless
from zoo.orca.data.tensors.plan import ColumnPlan, TensorPlan, TensorSpec
from zoo.orca.data.tensors.row_weights import ClassWeights, RowWeights, checked_classes, weigh

LABEL = TensorSpec((ColumnPlan("y", "scalar", "int64"),), "int64", ())
PLAN = TensorPlan((), (LABEL,))
CLASSES = ClassWeights((0.0, 2.0), (3.0, 0.5))


def decoded(weights: list[Any], classes: ClassWeights | None = CLASSES) -> tuple[Any, PlanDecoder]:
    """The factors of the weights, and what was found on the way."""
    plan = weigh(PLAN, RowWeights("w", classes))
    decoder = PlanDecoder(plan)
    columns = {"y": np.arange(len(weights)) % 3, "w": pa.array(weights, pa.float64())}
    batch = pa.RecordBatch.from_pydict({name: columns[name] for name in plan.columns})
    pieces = list(decoder.pieces(batch))
    return plan.split(pieces[0])[2] if pieces else None, decoder


def test_weight_of_a_row_is_that_of_its_column_times_that_of_its_class() -> None:
    factors, _ = decoded([1.0, 2.0, 4.0, 0.0])
    assert factors.prod(axis=1).tolist() == [3.0, 2.0, 2.0, 0.0]


def test_classes_without_a_weight_weigh_one() -> None:
    assert CLASSES(np.array([-1.0, 0.0, 1.0, 2.0, 7.0])).tolist() == [1.0, 3.0, 1.0, 0.5, 1.0]


@pytest.mark.parametrize("bad", [-1e-9, float("nan"), float("inf"), -float("inf")])
def test_what_is_no_weight_is_counted(bad: float) -> None:
    factors, decoder = decoded([1.0, bad, bad])
    assert factors is None
    with pytest.raises(ColumnError, match=r"weights of 0 or more in column 'w'.*others in 2 rows"):
        raise_flaws(list(decoder.flaws.values()))


def test_missing_weights_are_counted() -> None:
    _, decoder = decoded([1.0, None, 2.0])
    with pytest.raises(ColumnError, match="no nulls in column 'w'.*null in 1 row"):
        raise_flaws(list(decoder.flaws.values()))


def test_rows_of_which_none_weighs_anything_are_refused() -> None:
    for weights, rows in (([0.0, 0.0], 2), ([0.0, 0.0, 1.0], 3)):
        _, decoder = decoded(weights, None)
        remarks = list(decoder.remarks.values())
        if rows == 2:
            with pytest.raises(ColumnError, match="more than 0, in column 'w'.*0 in all 2 rows"):
                raise_weightless(remarks, rows)
        else:
            raise_weightless(remarks, rows)


@pytest.mark.parametrize(
    "given",
    [{}, {0: -1.0}, {0: float("nan")}, {"a": 1.0}, {0: 0.0, 1: 0}, "even", [1.0, 2.0], 3.0],
)
def test_class_weights_are_checked(given: Any) -> None:
    with pytest.raises(InputError, match="class_weight as 'balanced' or a dict"):
        checked_classes(given)


def test_class_weights_are_sorted() -> None:
    assert checked_classes({2: 1, 0: 5}) == ClassWeights((0.0, 2.0), (5.0, 1.0))
    assert checked_classes("balanced") == "balanced"
    assert checked_classes(None) is None


def test_class_weights_need_one_label_with_one_number() -> None:
    vector = TensorSpec((ColumnPlan("p", "array", "float32"),), "float32", None)
    for labels in ((), (LABEL, LABEL), (vector,)):
        with pytest.raises(ColumnError, match="one label, the class of the row, for class_weight"):
            weigh(TensorPlan((), labels), RowWeights(None, CLASSES))
