import datetime

import numpy as np
import pytest
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import types as T

from zoo.errors import ColumnError, ContractError
from zoo.orca.data.tensors.plan_columns import plan_columns, quoted

TYPES = {
    "byte": T.ByteType(),
    "short": T.ShortType(),
    "int": T.IntegerType(),
    "long": T.LongType(),
    "float": T.FloatType(),
    "double": T.DoubleType(),
    "decimal": T.DecimalType(20, 4),
    "flag": T.BooleanType(),
    "date": T.DateType(),
    "time": T.TimestampType(),
    "ntz": T.TimestampNTZType(),
    "array": T.ArrayType(T.DoubleType()),
    "ids": T.ArrayType(T.LongType()),
    "matrix": T.ArrayType(T.ArrayType(T.FloatType())),
    "vector": VectorUDT(),
    "image": T.BinaryType(),
    "text": T.StringType(),
    "fields": T.StructType([T.StructField("a", T.IntegerType())]),
    "pairs": T.MapType(T.StringType(), T.IntegerType()),
    "texts": T.ArrayType(T.StringType()),
    "clock": T.DayTimeIntervalType(),
    "nothing": T.NullType(),
}
SCHEMA = T.StructType([T.StructField(name, kind) for name, kind in TYPES.items()])


def plan(features, labels=("long",), **options):
    return plan_columns(SCHEMA, features, labels, **options)


def layout(features, **options):
    return [(t.dtype, t.shape) for t in plan(features, **options).features]


@pytest.mark.parametrize(
    ("column", "dtype", "shape"),
    [
        ("byte", "int64", ()),
        ("short", "int64", ()),
        ("int", "int64", ()),
        ("long", "int64", ()),
        ("float", "float32", ()),
        ("double", "float32", ()),
        ("decimal", "float32", ()),
        ("flag", "float32", ()),
        ("date", "int64", ()),
        ("time", "float64", ()),
        ("ntz", "float64", ()),
        ("array", "float32", None),
        ("matrix", "float32", None),
        ("vector", "float32", None),
    ],
)
def test_each_type_has_its_tensor(column, dtype, shape):
    assert layout([column]) == [(dtype, shape)]


def test_float_dtype_is_that_of_the_model():
    assert layout(["float", "flag", "int"], float_dtype="float64") == [
        ("float64", ()),
        ("float64", ()),
        ("int64", ()),
    ]


def test_one_name_will_do():
    assert layout("float") == layout(["float"])


def test_a_list_in_the_list_is_a_matrix():
    assert layout([["float", "int"], "long"]) == [("float32", (2,)), ("int64", ())]


def test_a_list_of_one_is_a_matrix_of_one_column():
    assert layout([["float"]]) == [("float32", (1,))]


def test_a_list_of_one_array_keeps_its_shape():
    assert plan([["matrix"]]).features == plan(["matrix"]).features


def test_whole_columns_make_a_whole_matrix():
    assert layout([["int", "date", "byte"]]) == [("int64", (3,))]


def test_a_matrix_with_an_array_learns_its_width_from_the_data():
    assert layout([["float", "array"]]) == [("float32", None)]


def test_whole_columns_among_floats_must_be_exact():
    (tensor,) = plan([["long", "float"]]).features
    assert [(c.dtype, c.exact) for c in tensor.columns] == [("float32", True), ("float32", False)]


def test_assemble_joins_all_features():
    assert layout(["float", "int", "array"], assemble=True) == [("float32", None)]
    assert layout(["float", ["int", "long"]], assemble=True) == [("float32", (3,))]


def test_assemble_leaves_one_feature_as_it_is():
    assert layout(["float"], assemble=True) == [("float32", ())]


def test_assemble_leaves_images_apart():
    decoders = {"image": np.frombuffer}
    assert len(plan(["image", "float"], assemble=True, decoders=decoders).features) == 2


def test_labels_are_not_assembled():
    assert len(plan(["float"], ["int", "long"], assemble=True).labels) == 2


def test_labels_may_be_absent_when_predicting():
    assert plan(["float"], None, need_labels=False).labels == ()


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "float16", "float64", "bool"])
def test_a_decoder_may_be_a_dtype(dtype):
    assert layout(["float"], decoders={"float": dtype}) == [(dtype, ())]


def test_a_matrix_honours_the_dtypes_asked_for():
    assert layout([["float", "int"]], decoders={"float": "float64"}) == [("float64", (2,))]
    same = {"int": "int32", "long": "int32"}
    assert layout([["int", "long"]], decoders=same) == [("int32", (2,))]


def test_a_column_may_be_feature_and_label():
    both = plan(["float", "long"], ["long"])
    assert both.columns == ["float", "long"]
    assert len(both.tensors) == 3


def test_a_plan_learns_layouts():
    found = plan(["array"], ["long"]).resolved([("float32", (5,)), ("int64", ())])
    assert found.features[0].shape == (5,)
    assert found.labels[0].shape == ()


def test_tensors_are_named_for_their_columns():
    assert plan([["float", "int", "long"]]).features[0].name == "float and 2 more"


@pytest.mark.parametrize(
    ("column", "kind", "remedy"),
    [
        ("text", "string", "encode(index=['text'])"),
        ("fields", "struct<a:int>", "df.select('fields.*')"),
        ("pairs", "map<string,int>", "['key']"),
        ("texts", "array<string>", "Cast or drop"),
        ("clock", "interval", "Cast or drop"),
        ("nothing", "void", "Cast or drop"),
    ],
)
def test_other_types_are_refused_with_name_type_and_remedy(column, kind, remedy):
    with pytest.raises(ColumnError, match="unsupported field") as caught:
        plan([column])
    assert all(part in str(caught.value) for part in (f"'{column}'", kind, remedy))


def test_a_binary_column_needs_a_decoder():
    with pytest.raises(ColumnError, match="decoder for the binary column 'image'"):
        plan(["image"])
    with pytest.raises(ColumnError, match="decoder for the binary column 'image'"):
        plan(["image"], decoders={"image": "float32"})


def test_only_a_binary_column_takes_a_function():
    with pytest.raises(ColumnError, match="binary column for the decoder of 'float'"):
        plan(["float"], decoders={"float": np.frombuffer})


@pytest.mark.parametrize("dtype", ["text", "object", "datetime64[s]", "complex64", "longdouble"])
def test_other_dtypes_are_refused(dtype):
    with pytest.raises(ColumnError, match="numeric dtype for column 'float'"):
        plan(["float"], decoders={"float": dtype})


def test_an_image_is_not_put_beside_numbers():
    with pytest.raises(ColumnError, match="binary column among float, image"):
        plan([["float", "image"]], decoders={"image": np.frombuffer})


def test_a_timestamp_is_not_rounded_in_a_matrix():
    with pytest.raises(ColumnError, match="timestamp column 'time'"):
        plan([["time", "float"]])
    assert layout([["time", "float"]], float_dtype="float64") == [("float64", (2,))]
    assert layout([["time", "float"]], decoders={"time": "float32"}) == [("float32", (2,))]


def test_missing_columns_are_all_named():
    with pytest.raises(ColumnError, match="'nope', 'nada'"):
        plan(["nope", "float"], ["nada"])


def test_a_wide_frame_is_not_listed_in_full():
    wide = T.StructType([T.StructField(f"c{i}", T.FloatType()) for i in range(3000)])
    with pytest.raises(ColumnError, match="and 2980 more"):
        plan_columns(wide, ["nope"], ["c1"])


def test_names_must_be_unique_where_they_are_used():
    twins = T.StructType([T.StructField(n, T.FloatType()) for n in ("a", "b", "a")])
    with pytest.raises(ColumnError, match="one column 'a'.*2 of that name"):
        plan_columns(twins, ["a"], ["b"])
    assert plan_columns(twins, ["b"], ["b"]).columns == ["b"]


@pytest.mark.parametrize("missing", [None, [], ()])
def test_columns_must_be_given(missing):
    with pytest.raises(AssertionError, match="feature_cols must be provided"):
        plan(missing)
    with pytest.raises(AssertionError, match="label_cols must be provided"):
        plan(["float"], missing)


@pytest.mark.parametrize("wrong", [[1], [["float", 2]], [[]], [datetime.date], [None]])
def test_columns_must_be_names(wrong):
    with pytest.raises(ContractError, match="feature_cols as names"):
        plan(wrong)


def test_a_thousand_columns_are_planned_in_no_time():
    wide = T.StructType([T.StructField(f"c{i}", T.FloatType()) for i in range(1000)])
    names = [f"c{i}" for i in range(1000)]
    assert plan_columns(wide, names, ["c1"], assemble=True).features[0].shape == (1000,)


def test_quoted_names_hold_anything():
    assert quoted("a.b`c d") == "`a.b``c d`"


def test_texts_are_features_where_they_are_taken():
    assert layout(["text", "texts"], text=True) == [("object", ()), ("object", None)]
    assert layout([["text", "text"]], text=True) == [("object", (2,))]


def test_texts_lie_beside_no_numbers():
    assert layout(["text", "long"], text=True, assemble=True) == [("object", ()), ("int64", ())]
    with pytest.raises(ColumnError, match="both among text, long.*Give 'text' its own entry"):
        plan([["text", "long"]], text=True)


@pytest.mark.parametrize(
    ("features", "options"), [(["long"], {}), (["text"], {"decoders": {"text": "int64"}})]
)
def test_texts_are_no_labels_and_have_no_other_type(features, options):
    with pytest.raises(ColumnError, match="'text'.*encode.*StringIndexer"):
        plan(features, ["text"], text=True, **options)
