import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from pyspark.ml.linalg import VectorUDT
from pyspark.sql import types as T

from zoo.orca.data.tensors import decode
from zoo.orca.data.tensors.decode import CellError, PlanDecoder, decode_tensor
from zoo.orca.data.tensors.plan import TensorPlan
from zoo.orca.data.tensors.plan_columns import plan_columns

UTC = datetime.UTC
VECTOR = pa.struct(
    [
        ("type", pa.int8()),
        ("size", pa.int32()),
        ("indices", pa.list_(pa.int32())),
        ("values", pa.list_(pa.float64())),
    ]
)


def plan_of(kind, **options) -> TensorPlan:
    schema = T.StructType([T.StructField("c", kind), T.StructField("y", T.FloatType())])
    return plan_columns(schema, ["c"], ["y"], **options)


def spec_of(kind, **options):
    return plan_of(kind, **options).features[0]


def decoded(kind, array, **options):
    return decode_tensor(spec_of(kind, **options), [array])


def flaw_of(kind, array, *, label=False, **options):
    with pytest.raises(CellError) as caught:
        decode_tensor(spec_of(kind, **options), [array], label=label)
    (flaw,) = caught.value.flaws
    return flaw.kind, flaw.rows


def dense(*values):
    return {"type": 1, "size": None, "indices": None, "values": list(values)}


def sparse(size, cells):
    return {"type": 0, "size": size, "indices": list(cells), "values": list(cells.values())}


def seconds(*moment):
    return datetime.datetime(*moment, tzinfo=UTC).timestamp()


DAYS = [datetime.date(1969, 12, 31), datetime.date(1970, 1, 2), datetime.date(2024, 2, 29)]
MOMENTS = [
    datetime.datetime(1960, 1, 1, tzinfo=UTC),
    datetime.datetime(1970, 1, 1, 0, 0, 1, 500000, tzinfo=UTC),
    datetime.datetime(2024, 6, 1, 12, tzinfo=UTC),
]
EPOCHS = [seconds(1960, 1, 1), 1.5, seconds(2024, 6, 1, 12)]
NAIVE = [m.replace(tzinfo=None) for m in MOMENTS]
MATRICES = [[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [[7.0, 8.0], [9.0, 0.0], [1.0, 2.0]]] * 2

CASES = {
    "byte": (T.ByteType(), pa.array([1, -2, 3], pa.int8()), "int64", [1, -2, 3]),
    "short": (T.ShortType(), pa.array([1, -2, 3], pa.int16()), "int64", [1, -2, 3]),
    "int": (T.IntegerType(), pa.array([1, -2, 3], pa.int32()), "int64", [1, -2, 3]),
    "long": (T.LongType(), pa.array([2**62, -2, 3]), "int64", [2**62, -2, 3]),
    "float": (T.FloatType(), pa.array([0.5, -2, 3], pa.float32()), "float32", [0.5, -2, 3]),
    "double": (T.DoubleType(), pa.array([0.5, -2.0, np.inf]), "float32", [0.5, -2, np.inf]),
    "decimal": (
        T.DecimalType(10, 2),
        pa.array([Decimal("1.25"), Decimal("-3.50"), Decimal("0.00")], pa.decimal128(10, 2)),
        "float32",
        [1.25, -3.5, 0],
    ),
    "flag": (T.BooleanType(), pa.array([True, False, True]), "float32", [1, 0, 1]),
    "date": (T.DateType(), pa.array(DAYS), "int64", [-1, 1, 19782]),
    "time": (T.TimestampType(), pa.array(MOMENTS, pa.timestamp("us", "UTC")), "float64", EPOCHS),
    "elsewhere": (
        T.TimestampType(),
        pa.array(MOMENTS, pa.timestamp("us", "America/New_York")),
        "float64",
        EPOCHS,
    ),
    "ntz": (T.TimestampNTZType(), pa.array(NAIVE, pa.timestamp("us")), "float64", EPOCHS),
    "array": (
        T.ArrayType(T.DoubleType()),
        pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
        "float32",
        [[1, 2], [3, 4], [5, 6]],
    ),
    "large": (
        T.ArrayType(T.DoubleType()),
        pa.array([[1.0, 2.0], [3.0, 4.0]], pa.large_list(pa.float64())),
        "float32",
        [[1, 2], [3, 4]],
    ),
    "ids": (T.ArrayType(T.LongType()), pa.array([[1, 2], [3, 2**24]]), "float32", None),
    "flags": (T.ArrayType(T.BooleanType()), pa.array([[True], [False]]), "float32", [[1], [0]]),
    "money": (
        T.ArrayType(T.DecimalType(4, 1)),
        pa.array([[Decimal("1.5")], [Decimal("2.0")]], pa.list_(pa.decimal128(4, 1))),
        "float32",
        [[1.5], [2]],
    ),
    "matrix": (T.ArrayType(T.ArrayType(T.DoubleType())), pa.array(MATRICES), "float32", MATRICES),
    "empty": (
        T.ArrayType(T.DoubleType()),
        pa.array([[], []], pa.list_(pa.float64())),
        "float32",
        [[], []],
    ),
    "dense": (
        VectorUDT(),
        pa.array([dense(1, 2), dense(3, 4)], VECTOR),
        "float32",
        [[1, 2], [3, 4]],
    ),
    "sparse": (
        VectorUDT(),
        pa.array([sparse(3, {}), sparse(3, {0: 5.0, 2: 6.0})], VECTOR),
        "float32",
        [[0, 0, 0], [5, 0, 6]],
    ),
    "mixed": (
        VectorUDT(),
        pa.array([sparse(2, {1: 7.0}), dense(1, 2), sparse(2, {}), dense(3, 4)], VECTOR),
        "float32",
        [[0, 7], [1, 2], [0, 0], [3, 4]],
    ),
    "bytes": (
        T.BinaryType(),
        pa.array([b"ab", b"cd", b"ef"]),
        "uint8",
        [[97, 98], [99, 100], [101, 102]],
    ),
}
DECODERS = {"c": lambda cell: np.frombuffer(cell, np.uint8)}
each_case = pytest.mark.parametrize("name", CASES)


@each_case
def test_each_type_decodes(name):
    kind, array, dtype, expected = CASES[name]
    got = decoded(kind, array, decoders=DECODERS if name == "bytes" else None)
    expected = array.to_pylist() if expected is None else expected
    assert got.dtype == dtype
    assert got.tolist() == np.asarray(expected, dtype).tolist()
    assert got.flags.c_contiguous


@each_case
def test_slices_decode_as_the_rows_they_hold(name):
    kind, array, _, _ = CASES[name]
    options = {"decoders": DECODERS if name == "bytes" else None}
    whole = decoded(kind, array, **options)
    batch = pa.RecordBatch.from_arrays([pa.concat_arrays([array, array, array])], ["c"])
    for start in range(batch.num_rows):
        for length in range(1, batch.num_rows - start + 1):
            part = decoded(kind, batch.slice(start, length).column(0), **options)
            np.testing.assert_array_equal(part, np.concatenate([whole] * 3)[start : start + length])


@each_case
def test_no_rows_have_the_known_shape(name):
    kind, array, dtype, _ = CASES[name]
    plan = plan_of(kind, decoders=DECODERS if name == "bytes" else None)
    plan = plan.resolved([(dtype, (4,)), ("float32", ())])
    got = decode_tensor(plan.features[0], [array.slice(0, 0)])
    assert (got.shape, got.dtype) == ((0, 4), dtype)


@each_case
def test_nulls_are_counted_in_slices_too(name):
    kind, array, _, _ = CASES[name]
    options = {"decoders": DECODERS if name == "bytes" else None}
    holed = pa.concat_arrays([array, pa.nulls(3, array.type), array])
    assert flaw_of(kind, holed, **options) == ("null", 3)
    assert flaw_of(kind, holed.slice(len(array) + 1), **options) == ("null", 2)


@pytest.mark.parametrize("seed", range(20))
def test_nested_arrays_decode_in_any_shape(seed):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 4, rng.integers(1, 4)).tolist())
    values = rng.normal(size=(12, *shape))
    kind = T.DoubleType()
    for _ in shape:
        kind = T.ArrayType(kind)
    array = pa.array(values.tolist())
    start, stop = sorted(rng.integers(0, 13, 2).tolist())
    got = decoded(kind, array.slice(start, stop - start), float_dtype="float64")
    if stop > start:
        np.testing.assert_array_equal(got, values[start:stop])


def test_nulls_inside_arrays_are_counted_by_row():
    kind, values = T.ArrayType(T.DoubleType()), [[1.0, None], [None, None], [1.0, 2.0], None]
    assert flaw_of(kind, pa.array(values)) == ("null", 3)
    assert flaw_of(kind, pa.array(values).slice(1, 2)) == ("null", 1)
    nested = T.ArrayType(kind)
    assert flaw_of(nested, pa.array([[[1.0], None], [[None], [1.0]], [[1.0], [2.0]]])) == (
        "null",
        2,
    )


def test_ragged_rows_are_counted():
    kind = T.ArrayType(T.DoubleType())
    assert flaw_of(kind, pa.array([[1.0], [1.0, 2.0], [1.0], []])) == ("ragged", 2)
    nested = pa.array([[[1.0], [2.0]], [[1.0], [2.0, 3.0]], [[1.0]], [[], []]])
    assert flaw_of(T.ArrayType(kind), nested) == ("ragged", 3)
    assert flaw_of(VectorUDT(), pa.array([dense(1), sparse(2, {}), dense(2)], VECTOR)) == (
        "ragged",
        1,
    )


def test_another_shape_than_the_known_one_is_ragged():
    plan = plan_of(T.ArrayType(T.DoubleType())).resolved([("float32", (3,)), ("float32", ())])
    with pytest.raises(CellError, match=r"shapes \(3,\) and \(2,\)"):
        decode_tensor(plan.features[0], [pa.array([[1.0, 2.0]])])


def test_whole_numbers_in_arrays_must_be_exact():
    kind, array = T.ArrayType(T.LongType()), pa.array([[1, 2**24 + 1], [-(2**24) - 1, 2], [3, 4]])
    assert flaw_of(kind, array) == ("inexact", 2)
    got = decoded(kind, array, decoders={"c": "int64"})
    assert got.tolist() == array.to_pylist()
    assert decoded(kind, array, float_dtype="float64").tolist() == array.to_pylist()
    assert flaw_of(kind, pa.array([[2**53 + 1]]), float_dtype="float64") == ("inexact", 1)


def test_even_numbers_may_be_larger():
    assert decoded(T.ArrayType(T.LongType()), pa.array([[2**40]])).tolist() == [[2.0**40]]


@pytest.mark.parametrize(
    ("array", "dtype", "bad"),
    [
        (pa.array([1.0, 2.5, -3.0]), "int64", 1),
        (pa.array([1.0, np.nan, np.inf]), "int32", 2),
        (pa.array([1.0, 256.0, -1.0]), "uint8", 2),
        (pa.array([0.0, 1.0, 2.0]), "bool", 1),
        (pa.array([1e30, 1.0]), "int64", 1),
    ],
)
def test_a_dtype_that_was_asked_for_must_hold_the_numbers(array, dtype, bad):
    assert flaw_of(T.DoubleType(), array, decoders={"c": dtype}) == ("inexact", bad)


def test_floats_that_are_whole_may_become_so():
    got = decoded(T.DoubleType(), pa.array([1.0, -2.0]), decoders={"c": "int32"})
    assert (got.dtype, got.tolist()) == ("int32", [1, -2])


def test_signed_and_unsigned_are_told_apart():
    array = pa.array([-1, 5], pa.int64())
    assert flaw_of(T.LongType(), array, decoders={"c": "uint64"}) == ("inexact", 1)


@pytest.mark.parametrize("kind", [T.TimestampType(), T.DateType()])
def test_moments_honour_a_dtype(kind):
    array = pa.array(DAYS) if kind == T.DateType() else pa.array(MOMENTS, pa.timestamp("us", "UTC"))
    assert decoded(kind, array, decoders={"c": "float32"}).dtype == "float32"


def test_numbers_too_large_for_float32_are_counted():
    assert flaw_of(T.DoubleType(), pa.array([1e300, 1.0, -1e300, np.inf])) == ("overflow", 2)
    kind = T.ArrayType(T.DoubleType())
    assert flaw_of(kind, pa.array([[1.0, 1e39], [1.0, 2.0]])) == ("overflow", 1)


def test_nan_is_refused_in_labels_only():
    array = pa.array([1.0, np.nan, np.nan])
    assert np.isnan(decoded(T.DoubleType(), array)).sum() == 2
    assert flaw_of(T.DoubleType(), array, label=True) == ("nan", 2)
    kind = T.ArrayType(T.DoubleType())
    assert flaw_of(kind, pa.array([[1.0, np.nan], [np.nan, np.nan]]), label=True) == ("nan", 2)


# Columns side by side


def matrix(kinds, arrays, **options):
    schema = T.StructType([T.StructField(n, k) for n, k in kinds.items()])
    plan = plan_columns(schema, [list(kinds)], None, need_labels=False, **options)
    return decode_tensor(plan.features[0], arrays)


def test_columns_stand_side_by_side():
    kinds = {
        "a": T.DoubleType(),
        "b": T.ArrayType(T.FloatType()),
        "c": T.BooleanType(),
        "v": VectorUDT(),
    }
    arrays = [
        pa.array([1.0, 2.0]),
        pa.array([[3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32())),
        pa.array([True, False]),
        pa.array([dense(7, 8), sparse(2, {1: 9.0})], VECTOR),
    ]
    got = matrix(kinds, arrays)
    assert got.tolist() == [[1, 3, 4, 1, 7, 8], [2, 5, 6, 0, 0, 9]]
    assert got.dtype == "float32"


def test_whole_columns_stay_whole():
    got = matrix(
        {"a": T.IntegerType(), "b": T.LongType()}, [pa.array([1, 2]), pa.array([2**60, 4])]
    )
    assert got.tolist() == [[1, 2**60], [2, 4]]


def test_a_single_column_in_a_list_is_a_matrix():
    assert matrix({"a": T.DoubleType()}, [pa.array([1.0, 2.0])]).tolist() == [[1], [2]]


def test_whole_numbers_among_floats_must_be_exact():
    kinds, arrays = (
        {"a": T.LongType(), "b": T.FloatType()},
        [pa.array([2**24 + 1]), pa.array([1.0])],
    )
    with pytest.raises(CellError, match="inexact"):
        matrix(kinds, arrays)
    assert matrix(kinds, arrays, decoders={"a": "float32"}).tolist() == [[2.0**24, 1]]


def test_every_bad_column_is_named():
    kinds = {"a": T.DoubleType(), "b": T.DoubleType(), "c": T.DoubleType()}
    arrays = [pa.array([None, 1.0]), pa.array([1.0, 2.0]), pa.array([None, None], pa.float64())]
    with pytest.raises(CellError) as caught:
        matrix(kinds, arrays)
    assert [(f.column, f.rows) for f in caught.value.flaws] == [("a", 1), ("c", 2)]


def test_overflow_is_found_in_a_matrix():
    with pytest.raises(CellError, match="overflow"):
        matrix({"a": T.DoubleType(), "b": T.DoubleType()}, [pa.array([1e300]), pa.array([1.0])])


# Bytes


def bytes_flaw(decoder, *cells):
    return flaw_of(T.BinaryType(), pa.array(cells, pa.binary()), decoders={"c": decoder})


def test_a_decoder_that_raises_is_counted():
    def decoder(cell):
        if cell == b"bad":
            raise KeyError("broken")
        return np.zeros(2)

    assert bytes_flaw(decoder, b"bad", b"good", b"bad") == ("undecodable", 2)


def test_a_decoder_must_keep_to_one_shape_and_dtype():
    assert bytes_flaw(lambda cell: np.zeros(len(cell)), b"a", b"bb", b"c") == ("ragged", 1)
    dtypes = {b"a": "uint8", b"b": "float32"}
    assert bytes_flaw(lambda cell: np.zeros(2, dtypes[cell]), b"a", b"b") == ("ragged", 1)


@pytest.mark.parametrize(
    "made", [None, "text", np.array(["x"]), np.zeros(2, complex), [[1], [2, 3]]]
)
def test_a_decoder_must_return_numbers(made):
    assert bytes_flaw(lambda cell: made, b"a", b"b") == ("undecodable", 2)


def test_bytes_of_another_machine_are_turned_round():
    decoders = {"c": lambda cell: np.frombuffer(cell, ">i4")}
    got = decoded(T.BinaryType(), pa.array([b"\0\0\0\1"]), decoders=decoders)
    assert (got.dtype, got.tolist()) == (np.dtype("int32"), [[1]])


def test_a_decoder_may_return_one_number():
    got = decoded(T.BinaryType(), pa.array([b"a", b"bc"]), decoders={"c": len})
    assert got.tolist() == [1, 2]


# Pieces


def batch_of(rows, width=4):
    values = np.arange(rows * width, dtype=np.float64).reshape(rows, width)
    return values, pa.RecordBatch.from_arrays(
        [pa.array(values.tolist()), pa.array(np.arange(rows), pa.float32())], ["c", "y"]
    )


def test_pieces_together_are_the_batch(monkeypatch):
    values, batch = batch_of(100)
    monkeypatch.setattr(decode, "_PIECE_BYTES", 20 * 7)
    decoder = PlanDecoder(plan_of(T.ArrayType(T.DoubleType())))
    pieces = list(decoder.pieces(batch))
    assert [len(p[0]) for p in pieces] == [32, *[7] * 9, 5]
    np.testing.assert_array_equal(np.concatenate([p[0] for p in pieces]), values)
    assert [(t.dtype, t.shape) for t in decoder.tensors] == [("float32", (4,)), ("float32", ())]


def test_pieces_hold_whole_batches_where_they_are_larger(monkeypatch):
    values, batch = batch_of(100)
    monkeypatch.setattr(decode, "_PIECE_BYTES", 20 * 7)
    for size, wanted in ((3, [32, *[6] * 11, 2]), (7, [32, *[7] * 9, 5]), (8, [32, *[7] * 9, 5])):
        pieces = list(PlanDecoder(plan_of(T.ArrayType(T.DoubleType())), size).pieces(batch))
        assert [len(p[0]) for p in pieces] == wanted
        np.testing.assert_array_equal(np.concatenate([p[0] for p in pieces]), values)


def test_large_rows_come_one_by_one(monkeypatch):
    monkeypatch.setattr(decode, "_PIECE_BYTES", 1)
    decoder = PlanDecoder(plan_of(T.DoubleType()))
    batch = pa.RecordBatch.from_arrays([pa.array([1.0, 2.0]), pa.array([1.0, 2.0])], ["c", "y"])
    assert [len(a) for a, _ in decoder.pieces(batch)] == [1, 1]


def test_after_a_flaw_rows_are_only_counted():
    decoder = PlanDecoder(plan_of(T.DoubleType()))
    rows = pa.RecordBatch.from_arrays([pa.array([None, 1.0]), pa.array([1.0, np.nan])], ["c", "y"])
    good = pa.RecordBatch.from_arrays([pa.array([1.0]), pa.array([2.0])], ["c", "y"])
    assert not [*decoder.pieces(rows), *decoder.pieces(good), *decoder.pieces(rows)]
    assert {k: f.rows for k, f in decoder.flaws.items()} == {("c", "null"): 2, ("y", "nan"): 2}


def test_a_column_used_twice_is_counted_once():
    schema = T.StructType([T.StructField("c", T.DoubleType())])
    decoder = PlanDecoder(plan_columns(schema, ["c", ["c", "c"]], ["c"]))
    assert not list(
        decoder.pieces(pa.RecordBatch.from_arrays([pa.array([None, 1.0, None])], ["c"]))
    )
    assert [f.rows for f in decoder.flaws.values()] == [2]


def test_a_batch_of_another_dtype_is_refused():
    decoders = {"c": lambda cell: np.zeros(2, "uint8" if cell == b"a" else "float32")}
    decoder = PlanDecoder(plan_of(T.BinaryType(), decoders=decoders))
    for cell in (b"a", b"b"):
        row = pa.RecordBatch.from_arrays([pa.array([cell]), pa.array([1.0])], ["c", "y"])
        list(decoder.pieces(row))
    assert [f.kind for f in decoder.flaws.values()] == ["ragged"]


def test_wide_decimals_become_the_nearest_floats():
    cells = [Decimal(n).scaleb(-10) for n in (1, -5 * 10**9, 10**37, 123456789 * 10**5)]
    array = pa.array(cells, pa.decimal128(38, 10))
    got = decoded(T.DecimalType(38, 10), array, float_dtype="float64")
    assert got.tolist() == [float(cell) for cell in cells]


def test_numbers_that_are_none_are_remarked_column_by_column():
    schema = T.StructType([T.StructField(name, T.DoubleType()) for name in "abcy"])
    plan = plan_columns(schema, [["a", "b"], "c"], ["y"])
    decoder = PlanDecoder(plan)
    values = [[1.0, np.nan, np.inf], [1.0, 2.0, -np.inf], [1.0, 2.0, 3.0], [1.0, np.inf, 2.0]]
    batch = pa.RecordBatch.from_arrays([pa.array(v) for v in values], names=list("abcy"))
    assert len(list(decoder.pieces(batch))) == 1
    assert {f.column: f.rows for f in decoder.remarks.values()} == {"a": 2, "b": 1, "y": 1}
    assert not decoder.flaws


WORDS = ["ä", "", "a\0b", "long " * 9]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_texts_become_bytes(kind):
    array = pa.array(["cut off", *WORDS], kind)[1:]
    found = decoded(T.StringType(), array, text=True)
    assert found.dtype == object
    assert found.tolist() == [word.encode() for word in WORDS]


def test_arrays_of_texts_have_one_shape():
    kind, arrow = T.ArrayType(T.StringType()), pa.list_(pa.string())
    found = decoded(kind, pa.array([["a", "b"], ["c", ""]], arrow), text=True)
    assert found.tolist() == [[b"a", b"b"], [b"c", b""]]
    assert flaw_of(kind, pa.array([["a"], ["b", "c"]], arrow), text=True) == ("ragged", 1)


def test_texts_that_are_null_are_counted():
    assert flaw_of(T.StringType(), pa.array(["a", None, None]), text=True) == ("null", 2)
    inside = pa.array([["a", None], ["b", "c"]], pa.list_(pa.string()))
    assert flaw_of(T.ArrayType(T.StringType()), inside, text=True) == ("null", 1)


def test_texts_lie_side_by_side():
    schema = T.StructType([T.StructField(name, T.StringType()) for name in "ab"])
    (spec,) = plan_columns(schema, [["a", "b"]], None, need_labels=False, text=True).features
    found = decode_tensor(spec, [pa.array(["x", "y"]), pa.array(["z", ""])])
    assert found.tolist() == [[b"x", b"z"], [b"y", b""]]
