import gzip
import logging
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from zoo.errors import InputError
from zoo.orca.data.pandas import read_csv, read_json, read_parquet

pytestmark = [pytest.mark.spark, pytest.mark.usefixtures("spark", "pandas_backend")]

Write = Callable[..., str]


def test_partitions_are_the_smaller_of_files_and_cores(write: Write, tmp_path: Path) -> None:
    for i in range(11):
        write(f"n\n{i}\n", f"{i}.csv")
    shards = read_csv(str(tmp_path))
    assert shards.num_partitions() == 4
    assert read_csv([f"{tmp_path}/{i}.csv" for i in range(2)]).num_partitions() == 2
    assert pd.concat(shards.collect())["n"].tolist() == list(range(11))


def test_files_of_one_partition_are_one_frame(write: Write, tmp_path: Path) -> None:
    for i in range(9):
        write(f"n\n{i}\n", f"{i}.csv")
    frames = read_csv(str(tmp_path)).collect()
    assert len(frames) == 4
    assert all(frame.index.tolist() == list(range(len(frame))) for frame in frames)


def test_keywords_reach_pandas_untouched(write: Write) -> None:
    path = write("junk\n#a;b\n1,5;x\nNA;y\n2,5;z\n")
    keywords = {"sep": ";", "skiprows": 1, "decimal": ",", "nrows": 2, "parse_dates": False}
    (frame,) = read_csv(path, **keywords).collect()
    pd.testing.assert_frame_equal(frame, pd.read_csv(path, **keywords))


def test_squeeze_and_mangle_dupe_cols_are_still_honoured(write: Write) -> None:
    (series,) = read_csv(write("a\n1\n"), squeeze=True, mangle_dupe_cols=True).collect()
    assert isinstance(series, pd.Series)


@pytest.mark.parametrize("name", ["a.csv", "a b[1].csv"])
def test_any_file_system_of_fsspec(write: Write, name: str) -> None:
    path = write("a\n1\n", name)
    (frame,) = read_csv(f"local://{path}").collect()
    assert frame["a"].tolist() == [1]
    (frame,) = read_csv(f"local://{Path(path).parent}/*.csv").collect()
    assert frame["a"].tolist() == [1]


def test_files_in_an_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for i in range(3):
            archive.writestr(f"in/{i}.csv", f"n\n{i}\n")
    for inside in ["in", "in/*.csv"]:
        frames = read_csv(f"zip://{inside}::{tmp_path}/x.zip").collect()
        assert pd.concat(frames)["n"].tolist() == [0, 1, 2]


def test_packed_files(write: Write) -> None:
    for name in ["a.csv.gz", "a.CSV.GZ"]:
        (frame,) = read_csv(write(gzip.compress(b"a\n1\n"), name)).collect()
        assert frame["a"].tolist() == [1]


def test_a_missing_path_says_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="No such file or directory"):
        read_csv(f"local://{tmp_path}/nosuch.csv")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"\x89PNG\r\n\x1a\n\xff\xfe", UnicodeDecodeError),
        (b"a,b\n1,2,3,4\n1\n1,2,3,4,5\n", pd.errors.ParserError),
        (b"", pd.errors.EmptyDataError),
    ],
)
def test_errors_of_pandas_surface_with_file_and_hint(
    write: Write, data: bytes, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    path = write(data, "odd.csv")
    with caplog.at_level(logging.WARNING, "zoo"), pytest.raises(error) as caught:
        read_csv(path)
    assert any("odd.csv" in note for note in caught.value.__notes__)
    assert "OrcaContext.pandas_read_backend = 'spark'" in caplog.text


@pytest.mark.parametrize("read", [read_csv, read_json, read_parquet])
def test_an_unknown_keyword_is_refused_before_the_path_is_looked_at(
    read: Callable[..., object],
) -> None:
    with pytest.raises(InputError, match="keywords of .*engine.*unknown ones: colums"):
        read("nowhere", colums=["a"])


@pytest.mark.parametrize("keyword", ["chunksize", "iterator"])
def test_keywords_that_give_no_frame_are_an_error(write: Write, keyword: str) -> None:
    with pytest.raises(InputError, match=keyword):
        read_csv(write("a\n1\n"), **{keyword: 1})


def test_json(write: Write) -> None:
    lines = write('{"b": 1, "a": "x"}\n', "lines.json")
    (frame,) = read_json(lines, orient="records", lines=True).collect()
    assert list(frame.columns) == ["b", "a"]
    (frame,) = read_json(write('{"a": {"0": 1}}', "columns.json")).collect()
    assert frame["a"].tolist() == [1]


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pd.DataFrame({"a": [1], "b": ["x"]}).to_parquet(path)
    (frame,) = read_parquet(f"local://{path}", columns=["b"]).collect()
    assert frame.to_dict("list") == {"b": ["x"]}
    (frame,) = read_parquet(path, schema="a DOUBLE, b STRING").collect()
    assert frame["a"].dtype == "float64"
    with pytest.raises(InputError, match="DDL"):
        read_parquet(path, schema="a NOSUCH")
