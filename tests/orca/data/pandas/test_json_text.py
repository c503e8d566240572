import gzip
import io
import json
import lzma
from typing import Any

import numpy as np
import pandas as pd
import pytest

from zoo.errors import InputError
from zoo.orca.data.pandas.json_keywords import json_keywords
from zoo.orca.data.pandas.json_text import JsonRecords, JsonText
from zoo.orca.data.pandas.kinds import unite
from zoo.orca.data.pandas.pieces import Lead, Piece


def read(text: str | bytes, name: str = "a.json", **keywords: Any) -> Any:
    found = JsonText(json_keywords(keywords))
    pieces = [Piece(name, data=text if isinstance(text, bytes) else text.encode())]
    looks = found.look(pieces)
    kinds = {
        name: unite([kind]) for name, kind in zip(looks[0].header, looks[0].kinds, strict=True)
    }
    return found.read(pieces, kinds, ())


RECORDS = [{"b": 1, "a": "x"}, {"b": 2, "a": "y\nz"}]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(RECORDS),
        json.dumps(RECORDS, indent=1),
        "".join(json.dumps(one) + "\n" for one in RECORDS),
        "\ufeff" + "\r\n".join(json.dumps(one) for one in RECORDS),
        "\n\n" + "\n\n".join(json.dumps(one) for one in RECORDS),
    ],
)
def test_a_list_or_lines_are_told_apart(text: str) -> None:
    frame = read(text)
    assert list(frame.columns) == ["b", "a"]
    assert frame.to_dict("list") == {"b": [1, 2], "a": ["x", "y\nz"]}


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 2], "int64"),
        ([1, None], "float64"),
        ([1, 0.5], "float64"),
        ([2**64 - 1, 0], "uint64"),
        ([2**64, 1], "object"),
        ([True, False], "bool"),
        ([True, None], "object"),
        ([None, None], "float64"),
        (["12:30", "1D"], "object"),
        (["1", "007"], "object"),
        (["2020-01-02", "2020-01-03"], "object"),
        ([{"x": 1}, [2]], "object"),
        ([1, "a"], "object"),
    ],
)
def test_values_keep_their_type(values: list[Any], dtype: str) -> None:
    frame = read(json.dumps([{"v": value} for value in values]))
    assert frame["v"].dtype == dtype
    known = [value for value in values if value is not None]
    assert frame["v"].dropna().tolist() == known


def test_a_value_that_is_not_there_is_missing() -> None:
    frame = read('{"a": 1}\n{"b": "x"}\n{}\n')
    assert frame["a"].isna().tolist() == [False, True, True]
    assert frame["b"].tolist() == [None, "x", None]


def test_names_usecols_dtype_index_col_and_squeeze() -> None:
    text = '{"a": 1, "b": "x", "c": 2}\n{"a": 3, "b": null, "c": 4}\n'
    assert read(text, names=["x", "y", "z"]).columns.tolist() == ["x", "y", "z"]
    assert read(text, usecols=["c", "a"]).to_dict("list") == {"a": [1, 3], "c": [2, 4]}
    assert read(text, usecols=[1])["b"].tolist() == ["x", None]
    frame = read(text, dtype={"a": "float32", "c": str})
    assert frame["a"].dtype == np.float32
    assert frame["c"].tolist() == ["2", "4"]
    series = read(text, usecols=["a", "c"], index_col="a", squeeze=True)
    assert series.to_dict() == {1: 2, 3: 4}


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"names": ["x"]}, "names for the 1 columns|2 names|columns of the file"),
        ({"usecols": ["nosuch"]}, "missing columns: nosuch"),
        ({"dtype": {"b": "int64"}}, "values of column 'b' that fit int64"),
        ({"dtype": {"q": "int64"}}, "not in current dataframe"),
    ],
)
def test_keywords_that_do_not_fit_are_refused(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read('{"a": 1, "b": "x"}\n', **keywords)


@pytest.mark.parametrize(
    ("text", "keywords", "message"),
    [
        ('{"a": 1}\n{"a": \n', {}, "a JSON object on each line"),
        ('{\n "a": 1\n}\n', {}, "a JSON object on each line"),
        ("1\n2\n", {}, "a JSON object on each line.*other values"),
        ("[[1], [2]]", {}, "one list of JSON objects"),
        ('[{"a": 1}]\n[{"a": 2}]\n', {}, "one list of JSON objects.*Extra data"),
        ('{"a": 1}\n{"a": 2}\n', {"lines": False}, "one list of JSON objects.*lines=True"),
        ('{"a": {"0": 1}}', {"lines": False}, "one list of JSON objects"),
        ('[\n{"a": 1}\n]', {"lines": True}, "a JSON object on each line.*lines=False"),
        (b'{"a": "\xe9"}', {}, "text in utf-8"),
        (b"x", {"compression": "gzip"}, "a packed file"),
        (b"x", {"compression": "zstd"}, "compression as one of"),
    ],
)
def test_what_holds_no_records_is_an_error(
    text: str | bytes, keywords: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read(text, **keywords)


@pytest.mark.parametrize(
    ("data", "name", "keywords"),
    [
        (gzip.compress(b'{"a": 1}', mtime=0), "a.json.gz", {}),
        (lzma.compress(b'{"a": 1}'), "a.xz", {}),
        ('{"a": 1}\n'.encode("utf-16"), "a.json", {"encoding": "utf-16"}),
    ],
)
def test_forms_of_a_file(data: bytes, name: str, keywords: dict[str, Any]) -> None:
    assert read(data, name, **keywords)["a"].tolist() == [1]


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"orient": "split"}, "orient='records'"),
        ({"orient": "columns"}, "orient='records'"),
        ({"lines": "yes"}, "lines True or False"),
        ({"nrows": 1}, "nrows.*pandas_read_backend"),
        ({"convert_dates": True}, "convert_dates.*pandas_read_backend"),
        ({"line": True}, "line -> lines"),
        ({"multiLine": True}, "multiLine -> lines"),
        ({"encoding": "nosuch"}, "an encoding that Python knows"),
    ],
)
def test_keywords_that_cannot_be_used(keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        json_keywords(keywords)


def test_keywords_that_ask_for_nothing() -> None:
    given = {"orient": "columns", "lines": True, "nrows": None, "convert_dates": False}
    assert json_keywords({**given, "dtype": False}) == json_keywords({"lines": True})


def test_only_lines_are_cut() -> None:
    assert JsonRecords(None).lead(b'{"a": 1}\n') == Lead()
    assert JsonRecords(None).lead(b'\xef\xbb\xbf\n [{"a"') is None
    assert JsonRecords(True).lead(b"[") == Lead()
    assert not json_keywords({"encoding": "utf-16"}).cuttable
    assert not json_keywords({"lines": False}).cuttable


def test_the_frame_that_pandas_reads() -> None:
    text = '{"b": 1, "a": "x", "c": 0.5}\n{"b": 2, "a": "y", "c": 2}\n'
    pd.testing.assert_frame_equal(read(text), pd.read_json(io.StringIO(text), lines=True))
