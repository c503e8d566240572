import pandas as pd
import pytest
from pyspark.sql import types as T

from zoo.errors import InputError
from zoo.orca.data.pandas.kinds import Kind, finished, kind_of, schema_kinds, settle, unite


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([], Kind.NO_ROWS),
        ([None, float("nan")], Kind.MISSING),
        ([True, False], Kind.BOOLS),
        (pd.Series([True, None], dtype=object), Kind.SOME_BOOLS),
        ([0, 1], Kind.NATURALS),
        ([-1, 1], Kind.INTS),
        ([2**64 - 1], Kind.LARGE),
        ([1, None], Kind.WHOLES),
        ([0.5, None], Kind.REALS),
        (["2020-01-02", None], Kind.DATES),
        (["2020-01-02", "x"], Kind.OBJECTS),
        (pd.Series([1, "x"], dtype=object), Kind.OBJECTS),
    ],
)
def test_what_a_column_holds(values: object, kind: Kind) -> None:
    assert kind_of(pd.Series(values)) is kind  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ([Kind.NO_ROWS], Kind.OBJECTS),
        ([Kind.NO_ROWS, Kind.INTS], Kind.INTS),
        ([Kind.MISSING], Kind.REALS),
        ([Kind.NATURALS, Kind.INTS], Kind.INTS),
        ([Kind.NATURALS, Kind.MISSING], Kind.REALS),
        ([Kind.NATURALS, Kind.WHOLES], Kind.REALS),
        ([Kind.NATURALS, Kind.LARGE], Kind.LARGE),
        ([Kind.INTS, Kind.LARGE], Kind.OBJECTS),
        ([Kind.LARGE, Kind.MISSING], Kind.OBJECTS),
        ([Kind.LARGE, Kind.REALS], Kind.REALS),
        ([Kind.INTS, Kind.BOOLS], Kind.OBJECTS),
        ([Kind.BOOLS, Kind.MISSING], Kind.SOME_BOOLS),
        ([Kind.BOOLS, Kind.BOOLS], Kind.BOOLS),
        ([Kind.DATES, Kind.MISSING], Kind.DATES),
        ([Kind.DATES, Kind.OBJECTS], Kind.OBJECTS),
        ([Kind.DATES, Kind.INTS], Kind.OBJECTS),
    ],
)
def test_what_all_pieces_make_of_a_column(kinds: list[Kind], expected: Kind) -> None:
    assert unite(kinds) is expected


def test_an_empty_piece_gets_the_type_of_the_others() -> None:
    empty = pd.Series([], dtype=object)
    dtypes = [str(finished(empty, unite([kind])).dtype) for kind in Kind]
    assert dtypes == [
        *("object", "float64", "bool", "object", "int64", "int64", "uint64", "float64", "float64"),
        *("datetime64[ns]", "object"),
    ]


def schema_of(**kinds: T.DataType) -> T.StructType:
    return T.StructType([T.StructField(name, kind) for name, kind in kinds.items()])


def test_a_schema_says_what_a_column_is() -> None:
    kinds = schema_kinds(
        schema_of(
            a=T.IntegerType(), b=T.FloatType(), c=T.StringType(), d=T.DateType(), e=T.BooleanType()
        )
    )
    assert settle("a", {Kind.WHOLES, Kind.INTS}, kinds["a"]) is Kind.REALS
    assert settle("b", {Kind.NATURALS}, kinds["b"]) is Kind.REALS
    assert settle("c", {Kind.NATURALS, Kind.DATES}, kinds["c"]) is Kind.OBJECTS
    assert settle("d", {Kind.MISSING}, kinds["d"]) is Kind.DATES
    assert settle("e", {Kind.BOOLS, Kind.MISSING}, kinds["e"]) is Kind.SOME_BOOLS


@pytest.mark.parametrize(
    ("found", "wanted"),
    [(Kind.REALS, Kind.INTS), (Kind.OBJECTS, Kind.REALS), (Kind.INTS, Kind.DATES)],
)
def test_values_that_a_schema_does_not_fit_are_an_error(found: Kind, wanted: Kind) -> None:
    with pytest.raises(InputError, match="values of column 'a' that fit"):
        settle("a", {found, Kind.MISSING}, wanted)


def test_schemas_that_cannot_be_used() -> None:
    with pytest.raises(InputError, match="duplicates: a"):
        schema_kinds(schema_of(a=T.LongType()).add("a", T.LongType()))
    with pytest.raises(InputError, match="other types for b"):
        schema_kinds(schema_of(a=T.LongType(), b=T.ArrayType(T.LongType())))
