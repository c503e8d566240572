"""Parquet files of other writers, and damaged ones."""

import datetime as dt
import decimal
import logging
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from zoo.errors import InputError
from zoo.orca.data.pandas import read_parquet
from zoo.orca.data.pandas.parquet_footers import UnfitForSparkError, check_footers

ROWS = 5
DAYS = [dt.datetime(2020, 1, day + 1, 12, 30) for day in range(ROWS)]


def written(folder: Path, name: str = "a", /, **columns: Any) -> Path:
    path = folder / f"{name}.parquet"
    options = columns.pop("options", {})
    pq.write_table(pa.table({"id": list(range(ROWS)), **columns}), path, **options)
    return path


def values(path: Path, column: str = "x") -> list[Any]:
    frame = read_parquet(str(path)).concat_to_pdf()
    assert frame["id"].tolist() == list(range(len(frame)))
    return frame[column].tolist()  # type: ignore[no-any-return]


@pytest.mark.spark
@pytest.mark.parametrize(
    ("column", "options", "expected"),
    [
        (pa.array(np.arange(ROWS, dtype=np.float16)), {}, [0.0, 1.0, 2.0, 3.0, 4.0]),
        (pa.array(DAYS, pa.timestamp("ns")), {"use_deprecated_int96_timestamps": True}, DAYS),
        (pa.array(DAYS, pa.timestamp("ns")), {"version": "2.6"}, DAYS),
        (pa.array([0.5] * ROWS), {"compression": "lz4"}, [0.5] * ROWS),
        (pa.array([decimal.Decimal("1.25")] * ROWS, pa.decimal128(20, 2)), {}, [1.25] * ROWS),
        (pa.array([uuid.UUID(int=3).bytes] * ROWS, pa.uuid()), {}, [uuid.UUID(int=3).bytes] * ROWS),
        (pa.array([dt.time(1, 2)] * ROWS, pa.time64("us")), {}, [dt.time(1, 2)] * ROWS),
        (pa.array([{"a": {"b": [1]}}] * ROWS), {}, None),
        (pa.array([2**64 - 1] * ROWS, pa.uint64()), {}, [2**64 - 1] * ROWS),
        (pa.array([2**31] * ROWS, pa.uint32()), {}, [2**31] * ROWS),
        (pa.array([dt.timedelta(1)] * ROWS, pa.duration("us")), {}, [dt.timedelta(1)] * ROWS),
        (pa.array(["a"] * ROWS), {"compression": "brotli"}, ["a"] * ROWS),
    ],
    ids=lambda value: str(getattr(value, "type", ""))[:20],
)
def test_columns_of_other_writers(
    spark: SparkSession, tmp_path: Path, column: pa.Array, options: Any, expected: Any
) -> None:
    found = values(written(tmp_path, x=column, options=options))
    if expected is None:
        assert found[0]["a"]["b"] == [1]
    else:
        assert found == expected


@pytest.mark.spark
def test_arrow_reads_what_spark_cannot(
    spark: SparkSession, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    half, one = pa.array(np.arange(ROWS, dtype=np.float16)), {"x": pa.array(["a", "b"] * 2 + ["c"])}
    for number in range(3):
        written(tmp_path, str(number), h=half, **(one if number != 1 else {}))
    with caplog.at_level(logging.WARNING, "zoo"):
        shards = read_parquet(str(tmp_path))
    assert "Arrow has read it" in caplog.text
    frame = shards.concat_to_pdf()
    assert frame["id"].tolist() == list(range(ROWS)) * 3
    assert frame["h"].dtype == np.float64
    assert frame["x"].isna().tolist() == [False] * ROWS + [True] * ROWS + [False] * ROWS
    assert read_parquet(str(tmp_path), columns=["h"]).concat_to_pdf().columns.tolist() == ["h"]
    with pytest.raises(InputError, match="columns among id, h, x"):
        read_parquet(str(tmp_path), columns=["nosuch"])


@pytest.mark.spark
def test_files_of_several_types_are_united(spark: SparkSession, tmp_path: Path) -> None:
    small, large = pa.array([1] * ROWS, pa.int32()), pa.array([2**40] * ROWS, pa.int64())
    written(tmp_path, "a", x=pa.nulls(ROWS))
    written(tmp_path, "b", x=small)
    written(tmp_path, "c", x=large)
    assert (
        read_parquet(str(tmp_path)).concat_to_pdf()["x"].dropna().tolist()
        == [1] * ROWS + [2**40] * ROWS
    )
    written(tmp_path, "d", x=pa.array(["text"] * ROWS))
    with pytest.raises(InputError, match=r"one type in all files.*d\.parquet.*Field x"):
        read_parquet(str(tmp_path))
    assert len(read_parquet(str(tmp_path), columns=["id"])) == 4 * ROWS


@pytest.mark.spark
def test_values_that_pandas_does_not_hold(spark: SparkSession, tmp_path: Path) -> None:
    written(tmp_path, x=pa.array([1] * ROWS, pa.time64("ns")))
    with pytest.raises(InputError, match=r"a\.parquet .*nanoseconds"):
        read_parquet(str(tmp_path))


def test_names_that_differ_in_case_only(tmp_path: Path) -> None:
    one, two = (
        written(tmp_path, "a", X=pa.array([1] * ROWS)),
        written(tmp_path, "b", x=pa.nulls(ROWS)),
    )
    with pytest.raises(InputError, match=r"a\.parquet, such as 'X'; received 'x' in .*b\.parquet"):
        check_footers([one, two])
    with pytest.raises(UnfitForSparkError, match="columns 'X' and 'x'"):
        check_footers([written(tmp_path, "c", X=pa.nulls(ROWS), x=pa.nulls(ROWS))])


@pytest.mark.spark
def test_large_files_are_cut_at_row_groups(spark: SparkSession, tmp_path: Path) -> None:
    half = pa.array(np.arange(ROWS, dtype=np.float16))
    path = written(tmp_path, h=half, options={"row_group_size": 2})
    before = spark.conf.get("spark.sql.files.maxPartitionBytes")
    try:
        spark.conf.set("spark.sql.files.maxPartitionBytes", "100")
        shards = read_parquet(str(path))
    finally:
        spark.conf.set("spark.sql.files.maxPartitionBytes", before)
    assert shards.num_partitions() == 3
    assert shards.concat_to_pdf()["h"].tolist() == list(range(ROWS))


@pytest.mark.spark
def test_a_damaged_page_names_its_file(spark: SparkSession, tmp_path: Path) -> None:
    path = written(tmp_path, x=pa.array(np.random.default_rng(0).random(ROWS)))
    start = pq.read_metadata(path).row_group(0).column(1).data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 12] = b"\xff" * 12
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"whole Parquet files; received .*a\.parquet"):
        read_parquet(str(tmp_path))


@pytest.mark.parametrize("data", [b"", b"PAR1PAR1", b"a,b\n1,2\n" * 9])
def test_what_is_no_parquet_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "b.parquet").write_bytes(data)
    with pytest.raises(InputError, match=r"whole Parquet files; received .*b\.parquet"):
        check_footers([written(tmp_path), tmp_path / "b.parquet"])


def test_footers_that_contradict_their_files(tmp_path: Path) -> None:
    """Row groups are dealt out by where they lie: of such a file no row would be read."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": np.random.default_rng(0).random(9000)}), path)
    data = path.read_bytes()
    check_footers([path])
    path.write_bytes(data[:4] + data[-int.from_bytes(data[-8:-4], "little") - 8 :])
    with pytest.raises(InputError, match=r"a\.parquet \(row group 0 lies at byte 4, with"):
        check_footers([path])
