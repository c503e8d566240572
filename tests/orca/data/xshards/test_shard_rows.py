import dataclasses
import datetime

import numpy as np
import pandas as pd
import pytest

from zoo.errors import ColumnError, ContractError, InputError
from zoo.orca.data.tensors.ingest import ingest
from zoo.orca.data.tensors.plan import TEXT
from zoo.orca.data.tensors.plan_columns import plan_columns
from zoo.orca.data.tensors.row_weights import ClassWeights, RowWeights, weigh
from zoo.orca.data.tensors.tensor_shard import open_tensors
from zoo.orca.data.xshards.jobs import map_shards
from zoo.orca.data.xshards.shard_rows import (
    ArrayPieces,
    dict_arrays,
    plan_dicts,
    shard_length,
    shard_rows,
)

FLOATS = np.arange(6, dtype=np.float64).reshape(3, 2)
SHARD = {"x": [FLOATS, np.arange(3)], "y": np.arange(3.0)}


@pytest.fixture
def parts(spark):
    """Shards as an RDD, one to a partition."""

    def make(*shards):
        return spark.sparkContext.parallelize(list(shards), len(shards))

    return make


def layout_of(shard):
    x, y = dict_arrays(shard)
    facts = [
        [(n, a.dtype.name if a.dtype.kind in "iufb" else TEXT, a.shape[1:]) for n, a in part]
        for part in (x, y)
    ]
    return facts[0], facts[1] or None, [key for key in shard if key not in ("x", "y")]


def pieces_of(*shards, like=SHARD, float_dtype="float32", text=False):
    plan = plan_dicts(layout_of(like), float_dtype, need_labels="y" in like, text=text)
    pieces = ArrayPieces(plan, shards)
    return list(pieces), {flaw.kind: flaw for flaw in pieces.flaws.values()}


# Dicts of arrays, without Spark.

WORDS = {"x": [np.array(["ä", "b"]), np.arange(2)]}


@pytest.mark.parametrize(
    "words", [np.array(["ä", "b"]), np.array(["ä", b"b"], object), np.array([b"\xc3\xa4", b"b"])]
)
def test_texts_become_bytes(words):
    ((texts, _),), flaws = pieces_of({"x": [words, np.arange(2)]}, like=WORDS, text=True)
    assert not flaws
    assert texts.dtype == object
    assert texts.tolist() == ["ä".encode(), b"b"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["a", None, float("nan")], {"null": 2}),
        (["a", 1, ["b"]], {"text": 2}),
        ([1.5, 2.5], {"ragged": 2}),
    ],
)
def test_what_is_no_text_is_counted(words, found):
    array = np.empty(len(words), object)
    array[:] = words
    array = array if isinstance(words[0], str) else np.array(words)
    shard = {"x": [array, np.arange(len(words))]}
    _, flaws = pieces_of(shard, like=WORDS, text=True)
    assert {kind: flaw.rows for kind, flaw in flaws.items()} == found


def test_texts_are_refused_where_nobody_takes_them():
    with pytest.raises(ColumnError, match=r"x\[0\] as an array of numbers.*encode"):
        plan_dicts(layout_of(WORDS), "float32", need_labels=False)
    labels = {"x": np.arange(2), "y": np.array(["a", "b"])}
    with pytest.raises(ColumnError, match="y as an array of numbers"):
        plan_dicts(layout_of(labels), "float32", need_labels=True, text=True)


def test_arrays_become_tensors_in_the_order_of_x_then_y():
    ((first, second, label),), flaws = pieces_of(SHARD)
    assert not flaws
    np.testing.assert_array_equal(first, FLOATS.astype(np.float32))
    assert [a.dtype.name for a in (first, second, label)] == ["float32", "int64", "float32"]


@pytest.mark.parametrize(
    ("given", "made"),
    [
        ("float16", "float32"),
        ("float64", "float32"),
        ("bool", "float32"),
        ("int32", "int64"),
        ("uint16", "int64"),
        ("uint8", "uint8"),
    ],
)
def test_dtypes_of_arrays(given, made):
    shard = {"x": np.ones((2, 3), dtype=given)}
    (((array,),), _) = pieces_of(shard, like=shard)
    assert array.dtype.name == made


def test_models_in_double_precision_get_doubles():
    ((first, _, label),), _ = pieces_of(SHARD, float_dtype="float64")
    assert first.dtype == label.dtype == np.float64


@pytest.mark.parametrize(
    ("shard", "kind"),
    [
        ({**SHARD, "x": [FLOATS[:, :1], np.arange(3)]}, "ragged"),
        ({**SHARD, "x": [FLOATS, np.arange(3) + 0.5]}, "ragged"),
        ({**SHARD, "y": np.array([0.0, np.nan, 1.0])}, "nan"),
        ({**SHARD, "x": [FLOATS + 1e300, np.arange(3)]}, "overflow"),
        ({**SHARD, "x": FLOATS}, "layout"),
        ({"x": SHARD["x"]}, "layout"),
        ([FLOATS], "layout"),
    ],
)
def test_shards_unlike_the_first_are_flaws(shard, kind):
    pieces, flaws = pieces_of(SHARD, shard, SHARD)
    assert len(pieces) == 1
    assert set(flaws) == {kind}


def test_empty_shards_are_passed_over():
    empty = {"x": [FLOATS[:0], np.arange(0)], "y": np.arange(0.0)}
    pieces, flaws = pieces_of(empty, SHARD)
    assert len(pieces) == 1
    assert not flaws


def test_each_shard_should_be_an_dict():
    with pytest.raises(ContractError, match="each shard should be an dict"):
        dict_arrays([FLOATS])


def test_key_x_should_in_each_shard():
    with pytest.raises(ContractError, match="key x should in each shard"):
        dict_arrays({"y": FLOATS})


@pytest.mark.parametrize("value", [[1, 2], "text", np.array([1j]), np.float64(1), [FLOATS, 3]])
def test_x_that_is_no_array_is_a_value_error(value):
    with pytest.raises(ValueError, match="numpy array"):
        dict_arrays({"x": value})


def test_arrays_of_other_lengths_are_refused():
    with pytest.raises(ContractError, match=r"\[2, 3\]"):
        dict_arrays({"x": FLOATS, "y": np.arange(2)})


def test_y_must_be_there_for_a_loss():
    with pytest.raises(ContractError, match="key y"):
        plan_dicts(layout_of({"x": FLOATS}), "float32", need_labels=True)


def test_length_of_shards():
    assert shard_length(SHARD) == shard_length(pd.DataFrame({"a": [1, 2, 3]})) == 3


# In Spark.


def taken(rows, plan):
    result = ingest(rows, plan)
    found = [[a.copy() for a in open_tensors(s, result.plan)] for s in result.shards]
    result.release()
    return [np.concatenate(tensor) for tensor in zip(*found, strict=True)]


def taken_frames(rdd, features, labels):
    rows, facts = shard_rows(rdd, (features, labels))
    assert facts is None
    return taken(rows, plan_columns(rows.spark_schema, features, labels))


@pytest.mark.spark
def test_dict_shards_are_ingested_in_order(parts):
    shards = [{"x": np.full((n, 2), n), "y": np.arange(n)} for n in (3, 0, 5)]
    rows, facts = shard_rows(parts(*shards), (None, None))
    x, y = taken(rows, plan_dicts(facts, "float32", need_labels=True))
    assert x[:, 0].tolist() == [3] * 3 + [5] * 5
    assert y.tolist() == [0, 1, 2, 0, 1, 2, 3, 4]


@pytest.mark.spark
def test_pandas_shards_are_ingested_like_a_frame(parts):
    day = datetime.datetime(2020, 1, 1)
    frames = [
        pd.DataFrame({"a": [1, 2], "t": ["x", "y"], "v": [np.ones(2), np.zeros(2)], "d": day}),
        pd.DataFrame({"a": [], "t": [], "v": [], "d": []}),
        pd.DataFrame({"d": day, "v": [np.ones(2)], "t": None, "a": [3.0]}),
    ]
    a, v, d = taken_frames(parts(*frames), ["a", "v"], ["d"])
    assert (a.tolist(), a.dtype.name) == ([1, 2, 3], "int64")
    assert v.tolist() == [[1, 1], [0, 0], [1, 1]]
    assert d.tolist() == [day.replace(tzinfo=datetime.UTC).timestamp()] * 3


@pytest.mark.spark
def test_nulls_of_pandas_shards_are_counted(parts):
    frames = [pd.DataFrame({"a": [1.0, None], "y": 0}), pd.DataFrame({"a": [None], "y": 0})]
    with pytest.raises(ColumnError, match=r"'a'; received null in 2 rows"):
        taken_frames(parts(*frames), ["a"], ["y"])


@pytest.mark.spark
@pytest.mark.parametrize(
    ("later", "kind", "message"),
    [
        (pd.DataFrame({"y": [1]}), ColumnError, r"a shard without \['a'\]"),
        (pd.DataFrame({"a": ["x"], "y": 1}), ColumnError, "types of the first shard"),
        ({"x": FLOATS}, ContractError, "received dict"),
    ],
)
def test_a_later_frame_unlike_the_first_ends_the_job_at_once(spark, parts, later, kind, message):
    spark.sparkContext.setJobGroup("unlike", "")
    try:
        with pytest.raises(kind, match=message) as caught:
            taken_frames(parts(pd.DataFrame({"a": [1], "y": 0}), later), ["a"], ["y"])
    finally:
        spark.sparkContext.setLocalProperty("spark.jobGroup.id", None)
    assert "Raised by shard 0 of partition 1" in caught.value.__notes__[0]
    # No task has failed, which Spark would have tried again.
    tracker = spark.sparkContext.statusTracker()
    jobs = map(tracker.getJobInfo, tracker.getJobIdsForGroup("unlike"))
    assert {job.status for job in jobs} == {"SUCCEEDED"}


@pytest.mark.spark
def test_an_error_while_rows_are_made_arrives_as_itself(parts):
    def fail(frame):
        raise ZeroDivisionError("why")

    frame = pd.DataFrame({"a": [1], "y": 0})
    rows, _ = shard_rows(parts(frame), (["a"], ["y"]))
    plan = plan_columns(rows.spark_schema, ["a"], ["y"])
    with pytest.raises(ZeroDivisionError, match="why"):
        taken(dataclasses.replace(rows, rdd=map_shards(rows.rdd, fail)), plan)
    with pytest.raises(ZeroDivisionError, match="why"):
        shard_rows(map_shards(rows.rdd, fail), (["a"], ["y"]))


@pytest.mark.spark
def test_columns_are_checked_before_the_job(parts):
    with pytest.raises(ColumnError, match="'nope'"):
        taken_frames(parts(pd.DataFrame({"a": [1]})), ["nope"], ["a"])
    with pytest.raises(ColumnError, match="unsupported field"):
        taken_frames(parts(pd.DataFrame({"a": [1], "t": ["x"]})), ["t"], ["a"])


@pytest.mark.spark
@pytest.mark.parametrize("shards", [(pd.DataFrame({"a": []}),), ({"x": FLOATS[:0]},)])
def test_no_rows_are_an_error(parts, shards):
    with pytest.raises(InputError, match="zero rows"):
        shard_rows(parts(*shards), (["a"], None))


@pytest.mark.spark
def test_first_rows_of_shards(parts):
    shards = [{"x": np.arange(n) + 10 * n} for n in (2, 3, 4)]
    rows, facts = shard_rows(parts(*shards), (None, None))
    plan = plan_dicts(facts, "float32", need_labels=False)
    (x,) = taken(rows.first(4), plan)
    assert x.tolist() == [20, 21, 30, 31]


@pytest.mark.spark
def test_cached_shards_are_ingested_once(parts):
    rdd = parts({"x": FLOATS}).cache()
    rows, facts = shard_rows(rdd, (None, None))
    plan = plan_dicts(facts, "float32", need_labels=False)
    first = ingest(rows, plan)
    assert ingest(rows, plan) is first
    rdd.unpersist()
    again = ingest(rows, plan)
    assert again is not first
    again.release()


# Weights


def weights_of(*shards, classes=None):
    facts, weights = layout_of(shards[0]), RowWeights("w", classes)
    plan = weigh(plan_dicts(facts, "float32", need_labels=True, weight="w"), weights)
    pieces = ArrayPieces(plan, shards)
    found = [plan.split(arrays)[2].prod(axis=1).tolist() for arrays in pieces]
    return found, {flaw.kind: flaw.rows for flaw in pieces.flaws.values()}


def test_weights_are_an_array_of_the_dict_times_those_of_classes():
    shard = {"x": np.ones((3, 2)), "y": np.arange(3), "w": np.array([[1], [0], [2]])}
    assert weights_of(shard, classes=ClassWeights((2.0,), (5.0,))) == ([[1.0, 0.0, 10.0]], {})


@pytest.mark.parametrize(
    ("weights", "kind"),
    [
        (np.array([1.0, -1.0, np.nan]), {"weight": 2}),
        (np.ones(2), {"layout": 3}),
        (np.ones((3, 2)), {"layout": 3}),
        ([1.0, 1.0, 1.0], {"layout": 3}),
        (None, {"layout": 3}),
    ],
)
def test_what_is_no_weight_is_counted(weights, kind):
    good = {"x": np.ones((3, 2)), "y": np.arange(3), "w": np.ones(3)}
    found, flaws = weights_of(good, {**good, "w": weights})
    assert (found, flaws) == ([[1.0] * 3], kind)


def test_weights_have_to_be_there():
    with pytest.raises(ContractError, match=r"under 'v'; received the other keys \['w'\]"):
        plan_dicts(layout_of({**SHARD, "w": FLOATS}), "float32", need_labels=False, weight="v")
