import bz2
import gzip
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from zoo.errors import InputError
from zoo.orca.data.pandas import read_csv, read_parquet

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("spark")]

Write = Callable[..., str]
PLAIN = "name,price,number\nx,0.5,1\ny,1.5,2\n"


def read(path: object, **keywords: Any) -> Any:
    """Read one file, which is one shard."""
    shards = read_csv(path, **keywords).collect()  # type: ignore[arg-type]
    assert len(shards) == 1
    return shards[0]


def test_whole_numbers_are_int64_and_reals_float64(write: Write) -> None:
    frame = read(write(PLAIN))
    assert frame["number"].dtype == np.int64
    assert frame["price"].dtype == np.float64
    assert frame["name"].tolist() == ["x", "y"]


def test_the_same_frame_as_pandas_reads(write: Write) -> None:
    path = write(PLAIN + '"a ""b"", c",,3\n"C:\\",0.1,4\n')
    pd.testing.assert_frame_equal(read(path), pd.read_csv(path))


def test_header_none_names_columns_by_number_as_text(write: Write) -> None:
    frame = read(write("x,1\ny,2\n"), header=None)
    assert list(frame.columns) == ["0", "1"]
    assert len(frame) == 2


def test_names_as_a_list(write: Write) -> None:
    frame = read(write("x,1\ny,2\n"), names=["a", "b"])
    assert frame.to_dict("list") == {"a": ["x", "y"], "b": [1, 2]}


def test_names_with_header_0_replace_the_header(write: Write) -> None:
    frame = read(write(PLAIN), header=0, names=["a", "b", "c"])
    assert frame["c"].tolist() == [1, 2]


def test_names_as_a_ddl_string_are_the_schema(write: Write) -> None:
    frame = read(write("1,7\n2,\n"), names="a STRING, b INT")
    assert frame["a"].tolist() == ["1", "2"]
    assert frame["b"].dtype == np.float64
    assert read(write("1,7\n"), names="a STRING, b INT")["b"].dtype == np.int64


def test_names_as_a_wrong_ddl_string_are_an_error(write: Write) -> None:
    with pytest.raises(InputError, match="DDL"):
        read_csv(write(PLAIN), names="a NOSUCH")


def test_usecols_and_index_col_and_squeeze(write: Write) -> None:
    series = read(write(PLAIN), usecols=["number", "name"], index_col="name", squeeze=True)
    assert series.to_dict() == {"x": 1, "y": 2}


def test_sep_quotechar_escapechar_and_comment(write: Write) -> None:
    path = write("#said\na|b\n'1|!'2'|3\n#x\n4|5\n")
    frame = read(path, sep="|", quotechar="'", escapechar="!", comment="#")
    assert frame.to_dict("list") == {"a": ["1|'2", "4"], "b": [3, 5]}


def test_sep_of_several_characters(write: Write) -> None:
    assert read(write("a||b\n1||2\n"), sep="||").to_dict("list") == {"a": [1], "b": [2]}


def test_dtype_text_keeps_leading_zeros(write: Write) -> None:
    frame = read(write("a,b\n007,1\n"), dtype={"a": str, 1: np.float32})
    assert frame["a"].tolist() == ["007"]
    assert frame["b"].dtype == np.float32


def test_values_that_do_not_fit_dtype_arrive_as_value_error(write: Write) -> None:
    with pytest.raises(ValueError, match="values of column 'a' that fit int64"):
        read_csv(write("a\n1\nx\n"), dtype="int64")


def test_duplicate_and_empty_names_as_pandas_has_them(write: Write) -> None:
    path = write("a,A,a,\n1,2,3,4\n")
    frame = read(path)
    assert list(frame.columns) == list(pd.read_csv(path).columns) == ["a", "A", "a.1", "Unnamed: 3"]
    assert frame.iloc[0].tolist() == [1, 2, 3, 4]


def test_names_with_dots_and_ticks(write: Write) -> None:
    frame = read(write("a.b,`c`,_metadata\n1,2,3\n"), usecols=["`c`", "_metadata"])
    assert frame.to_dict("list") == {"`c`": [2], "_metadata": [3]}


def test_dates_are_datetime64(write: Write) -> None:
    frame = read(write("d,t\n2020-01-02,2020-01-02 03:04:05\n"))
    assert set(frame.dtypes) == {np.dtype("datetime64[ns]")}
    assert frame["t"][0] == pd.Timestamp("2020-01-02 03:04:05")


def test_a_line_break_in_quotes_is_part_of_the_value(write: Write) -> None:
    path = write('a,b\n"x\ny",1\n')
    for keywords in [{}, {"multiLine": True}]:
        assert read(path, **keywords)["a"].tolist() == ["x\ny"]


@pytest.mark.parametrize(
    ("data", "name", "keywords"),
    [
        ("\ufeffa,b\n1,2\n", "bom.csv", {}),
        ("a,b\r\n1,2\r\n", "crlf.csv", {}),
        ("\n \n\na,b\n1,2\n\n", "blank.csv", {}),
        ("a,b\n1,2", "open.csv", {}),
        (gzip.compress(b"a,b\n1,2\n", mtime=0), "x.csv.gz", {}),
        (bz2.compress(b"a,b\n1,2\n"), "x.csv.bz2", {}),
        ("a,b\n1,2\n".encode("utf-16"), "utf16.csv", {"encoding": "UTF-16"}),
    ],
)
def test_forms_of_a_text_file(
    write: Write, data: str | bytes, name: str, keywords: dict[str, Any]
) -> None:
    assert read(write(data, name), **keywords).to_dict("list") == {"a": [1], "b": [2]}


def test_a_file_with_nothing_but_a_header(write: Write) -> None:
    frame = read(write("a,b\n"))
    assert (list(frame.columns), len(frame)) == (["a", "b"], 0)


def test_empty_files_are_passed_over(write: Write, tmp_path: Path) -> None:
    write("", "1.csv")
    write("a\n1\n", "2.csv")
    assert read(tmp_path)["a"].tolist() == [1]


@pytest.mark.parametrize("text", ["", "\n\n", "#x\n"])
def test_files_without_any_line_are_an_error(write: Write, text: str) -> None:
    with pytest.raises(InputError, match="a file with a line of values"):
        read_csv(write(text), comment="#")


@pytest.mark.parametrize("data", [b"\x89PNG\r\n\x1a\n\0\0\0", b"a,b\n\xff\xfe,1\n"])
def test_a_binary_file_is_an_error_that_names_it(write: Write, data: bytes) -> None:
    with pytest.raises(InputError, match=r"text.*odd\.csv"):
        read_csv(write(data, "odd.csv"))


def test_a_missing_path_says_path_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="Path does not exist"):
        read_csv(str(tmp_path / "nosuch.csv"))


@pytest.mark.parametrize(
    "path",
    ["memory://a/b.csv", "local:///a/b.csv", "zip://a::/b.zip", "https://a/b.csv", "s3://a/b.csv"],
)
def test_a_scheme_that_spark_cannot_read_names_the_pandas_backend(path: str) -> None:
    with pytest.raises(InputError, match="pandas_read_backend = 'pandas'"):
        read_csv(path)


def test_a_name_that_hadoop_cannot_parse_is_an_error(write: Write) -> None:
    with pytest.raises(InputError, match="a:b.csv.*Rename it"):
        read_csv(write(PLAIN, "a:b.csv"))


@pytest.mark.parametrize(
    "name", ["n\nl.csv", " sp .csv", "q'\".csv", "back\\slash.csv", "{[*].csv"]
)
def test_names_of_files_may_hold_all_else(write: Write, name: str) -> None:
    assert len(read(write("a\n1\n", name))) == 1


def test_failures_of_spark_come_with_a_hint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pd.DataFrame({"a": ["x"]}).to_parquet(tmp_path / "a.parquet")
    with caplog.at_level(logging.WARNING, "zoo"), pytest.raises(Exception, match="parquet"):
        read_parquet(tmp_path / "a.parquet", schema="a INT")
    assert "OrcaContext.pandas_read_backend = 'pandas'" in caplog.text


def test_an_error_of_a_task_arrives_as_it_is(write: Write) -> None:
    with pytest.raises(InputError, match=r"saw 3.*on_bad_lines='skip'"):
        read_csv(write("a,b\n1,2\n1,2,3\n"))


def test_a_schema_that_the_values_do_not_fit_is_an_error(write: Write) -> None:
    with pytest.raises(InputError, match="values of column 'b' that fit int64"):
        read_csv(write("1,7\n2,x\n"), names="a INT, b INT")


def test_files_with_other_columns_are_an_error_that_names_the_file(write: Write) -> None:
    paths = [write("a,b\n1,2\n", "1.csv"), write("b,a\n1,2\n", "2.csv")]
    with pytest.raises(InputError, match=r"2 columns \(b, a\) in .*2\.csv"):
        read_csv(paths)


def test_files_without_header_must_agree_in_the_number_of_columns(write: Write) -> None:
    paths = [write("1,2\n", "1.csv"), write("1,2,3\n", "2.csv")]
    with pytest.raises(InputError, match=r"3 columns .*2\.csv"):
        read_csv(paths, header=None)


def test_headers_that_differ_in_form_only_are_the_same(write: Write) -> None:
    paths = [write("a,b\n1,2\n", "1.csv"), write('"a","b"\n3,0.5\n', "2.csv")]
    frame = pd.concat(read_csv(paths).collect())
    assert frame["a"].tolist() == [1, 3]
    assert frame["b"].tolist() == [2, 0.5]
