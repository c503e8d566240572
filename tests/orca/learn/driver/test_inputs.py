"""Features of a later call, compared with those of the last fit before any job runs."""

from typing import Any

import pytest
from pyspark.sql import types as T
from torch import nn

from zoo.errors import InputError
from zoo.orca.data.tensors.plan import Columns, TensorPlan
from zoo.orca.learn.driver.inputs import Inputs
from zoo.orca.learn.order import LoaderSource

SCHEMA = T.StructType(
    [
        T.StructField("a", T.DoubleType()),
        T.StructField("b", T.DoubleType()),
        T.StructField("k", T.IntegerType()),
        T.StructField("v", T.ArrayType(T.DoubleType())),
        T.StructField("t", T.StringType()),
    ]
)


class Two(nn.Module):
    """Takes two inputs."""

    def forward(self, left: Any, right: Any) -> Any:
        return left + right


def planned(
    columns: Columns, seen: TensorPlan | None = None, model: nn.Module | None = None
) -> TensorPlan:
    inputs = Inputs("float32", not isinstance(model, Two), {}, {}, True, seen)
    return inputs.layout(SCHEMA, (columns, None), need_labels=False)


def test_whole_numbers_become_floats_where_the_fit_had_floats() -> None:
    (feature,) = planned(["k"], planned(["a"])).features
    assert (feature.dtype, feature.columns[0].dtype, feature.columns[0].exact) == (
        "float32",
        "float32",
        True,
    )


@pytest.mark.parametrize(
    ("fitted", "given"), [(["a", "b"], ["a"]), (["a", "b"], ["a", "b", "k"]), (["k"], ["a"])]
)
def test_features_of_another_shape_or_type_are_refused(fitted: Columns, given: Columns) -> None:
    seen = planned(fitted)
    with pytest.raises(InputError, match="features like those of the last fit"):
        planned(given, seen)


def test_another_number_of_inputs_is_refused() -> None:
    seen = planned(["a", "b"], model=Two())
    with pytest.raises(InputError, match="'a' .*'b' .*received 'a'"):
        planned(["a"], seen, model=Two())


def test_columns_of_other_names_are_taken() -> None:
    assert planned(["b", "a"], planned(["a", "b"])).columns == ["b", "a"]


def test_shape_of_arrays_is_known_from_the_fit() -> None:
    seen = planned(["v"]).resolved([("float32", (2,))])
    assert planned(["v"], seen).features[0].shape == (2,)


def test_decoder_for_a_column_that_is_not_there_is_refused_in_training() -> None:
    inputs = Inputs("float32", True, {}, {"aa": "float32"}, True, None)
    with pytest.raises(InputError, match="decoders for columns.*'aa'.*has a, b, k, v, t"):
        inputs.layout(SCHEMA, (["a"], ["b"]), use="train")
    assert inputs.layout(SCHEMA, (["a"], None), need_labels=False).columns == ["a"]


def test_columns_beside_a_data_creator_are_said_to_be_unused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    inputs = Inputs("float32", True, {}, {}, True, None)
    inputs.source(lambda config, size: None, (["a"], ["b"]), 8, "training")
    assert "feature_cols and label_cols: not used, as the data is a data creator" in caplog.text
    caplog.clear()
    inputs.source(lambda config, size: None, (None, None), 8, "training")
    assert not caplog.text


def test_texts_in_the_place_of_numbers_are_refused() -> None:
    inputs = Inputs("float32", True, {}, {}, True, planned(["a"]), text=True)
    with pytest.raises(InputError, match=r"'a' \(float32.*received 't' \(text"):
        inputs.layout(SCHEMA, (["t"], None), need_labels=False)


def test_steps_of_a_creator_go_to_its_source() -> None:
    inputs = Inputs("float32", True, {}, {}, True, None, steps={"train": 5, "validate": 2})
    train = inputs.source(print, (None, None), 8, "training", use="train")
    check = inputs.source(print, (None, None), 8, "validation", use="validate")
    assert isinstance(train, LoaderSource)
    assert isinstance(check, LoaderSource)
    assert (train.steps, train.part, check.steps, check.part) == (5, 0, 2, 1)
