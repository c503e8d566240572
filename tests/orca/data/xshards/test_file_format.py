import io
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
import pandas as pd
import pytest

from zoo.errors import InputError
from zoo.orca.data.xshards.file_format import decode_shard, encode_shard


def again(shard: Any) -> Any:
    return decode_shard(*encode_shard(shard))


FRAMES = {
    "dtypes": pd.DataFrame(
        {
            "i8": np.int8([1, 2]), "u64": np.uint64([1, 2**63]), "f32": np.float32([1.5, np.nan]),
            "b": [True, False], "t": ["ä", None], "when": pd.to_datetime(["2020-01-01", None]),
            "zoned": pd.to_datetime(["2020-01-01"] * 2).tz_localize("Europe/Berlin"),
            "took": pd.to_timedelta([1, 2], "s"), "c": pd.Categorical(["x", "y"], ordered=True),
            "n": pd.array([1, None], "Int64"), "bytes": [b"\x00", b""],
        }
    ),
    "objects": pd.DataFrame({"i": [1, None], "b": [True, False], "f": [1.5, 2.5]}, dtype=object),
    "index": pd.DataFrame({"a": [1, 2]}, index=pd.Index(["x", "y"], name="key")),
    "range": pd.DataFrame({"a": [1, 2]}, index=pd.RangeIndex(4, 8, 2)),
    "levels": pd.DataFrame(
        {"a": [1, 2]}, index=pd.MultiIndex.from_tuples([(1, "x"), (1, "y")], names=["n", None])
    ),
    "whole number labels": pd.DataFrame(np.ones((2, 2)), columns=[0, 1]),
    "odd names": pd.DataFrame({"a.b": [1], "c`d": [2], "": [3]}),
    "no rows": pd.DataFrame({"a": pd.Series([], dtype="int32"), "t": pd.Series([], dtype=object)}),
    "nothing": pd.DataFrame(),
}  # fmt: skip


@pytest.mark.parametrize("name", FRAMES)
def test_frames_come_back_with_dtypes_and_index(name: str) -> None:
    pd.testing.assert_frame_equal(again(FRAMES[name]), FRAMES[name], check_index_type=True)


@pytest.mark.parametrize("name", ["a", None, 3])
def test_series_come_back(name: Any) -> None:
    series = pd.Series([1.5, 2], index=["x", "y"], name=name)
    pd.testing.assert_series_equal(again(series), series)


NESTED = {
    "array": np.arange(6, dtype=np.float16).reshape(1, 2, 3),
    "no dimension": np.array(7),
    "no rows": np.empty((0, 3), dtype=np.int32),
    "text": np.array(["ä", "bc"]),
    "times": np.array(["2020-01-01", "NaT"], dtype="datetime64[D]"),
    "big endian": np.array([1, 2], dtype=">i4"),
    "dict": {"x": np.arange(3), 1: [np.ones(2), ("a", None, True, 2.5, 10**30)], (1, "k"): {}},
    "scalars": [np.float32(1.5), np.int64(-1), float("nan"), b"\x00\xff", "\ud800"],
    "number": 5,
    "nothing": [],
}


def same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, np.ndarray):
        return (
            one.dtype == other.dtype
            and one.shape == other.shape
            and one.tobytes() == other.tobytes()
        )
    return bool(one == other) or one != one


@pytest.mark.parametrize("name", NESTED)
def test_nested_arrays_come_back(name: str) -> None:
    assert same(again(NESTED[name]), NESTED[name])


@pytest.mark.parametrize(
    "shard",
    [
        np.array([1, "a"], dtype=object), {"x": object()}, [{1, 2}], OrderedDict(a=1),
        np.ma.masked_array([1, 2], [0, 1]), {np.int64(1): 2}, [pd.DataFrame({"a": [1]})],
        np.zeros(2, dtype=[("a", "O")]),
        pd.DataFrame({"a": [1, "x"]}), pd.DataFrame({"a": [object()]}),
        pd.DataFrame([[1, 2]], columns=["a", "a"]), pd.DataFrame([[1, 2]], columns=["a", 1]),
        pd.DataFrame({"a": [np.ones((2, 2))]}),
    ],
    ids=lambda shard: type(shard).__name__,
)  # fmt: skip
def test_what_only_pickle_can_hold_is_refused(shard: Any) -> None:
    with pytest.raises(InputError, match="save_pickle"):
        encode_shard(shard)


@pytest.mark.parametrize("suffix", ["npz", "parquet"])
def test_pickles_are_never_loaded(suffix: str) -> None:
    sink = io.BytesIO()
    np.savez(sink, structure=np.array([{"a": 1}], dtype=object))
    for content in (pickle.dumps([1]), sink.getvalue()):
        with pytest.raises(InputError, match=r"SparkXShards\.save"):
            decode_shard(suffix, content)


@pytest.mark.parametrize("name", ["dict", "dtypes"])
def test_cut_files_are_refused(name: str) -> None:
    suffix, content = encode_shard({**NESTED, **FRAMES}[name])
    for length in (0, 1, len(content) // 2, len(content) - 1):
        with pytest.raises(InputError, match="other content"):
            decode_shard(suffix, content[:length])
