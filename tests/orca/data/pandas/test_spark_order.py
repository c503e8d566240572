import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from pyspark.sql import SparkSession

from zoo.errors import InputError
from zoo.orca.data.pandas import ordered_scan, read_csv, read_json, read_parquet
from zoo.orca.data.pandas.ordered_scan import group_files, split_bytes

Write = Callable[..., str]
SPLIT = "spark.sql.files.maxPartitionBytes"


@pytest.fixture
def small_splits(spark: SparkSession) -> Iterator[SparkSession]:
    """Tasks of 20 kB at most, so that small files are large."""
    cost = "spark.sql.files.openCostInBytes"
    before = {name: spark.conf.get(name) for name in [SPLIT, cost]}
    spark.conf.set(SPLIT, "20000")
    spark.conf.set(cost, "2000")
    yield spark
    for name, value in before.items():
        spark.conf.set(name, value)


def counted(write: Write, rows: list[int], names: list[str]) -> list[str]:
    """Files whose rows are numbered throughout."""
    paths, start = [], 0
    for count, name in zip(rows, names, strict=True):
        lines = [f"{number},{'x' * 20}\n" for number in range(start, start + count)]
        paths.append(write("".join(["n,text\n", *lines]), name))
        start += count
    return paths


def numbers(shards: list[pd.DataFrame]) -> list[int]:
    return pd.concat(shards)["n"].tolist()


@pytest.mark.spark
def test_rows_come_in_the_order_of_the_files_whatever_their_sizes(
    write: Write, small_splits: SparkSession
) -> None:
    rows = [3, 2500, 1, 30, 200, 1, 1, 4000, 2, 100]
    paths = counted(write, rows, [f"{9 - i} é[{i}] %41,#.csv" for i in range(len(rows))])
    shards = read_csv(paths).collect()
    assert numbers(shards) == list(range(sum(rows)))
    assert all(isinstance(shard, pd.DataFrame) for shard in shards)
    assert len(shards) > 8
    assert all(shard.index[0] == 0 for shard in shards)
    assert small_splits.conf.get(SPLIT) == "20000"


@pytest.mark.spark
def test_a_list_keeps_its_order_and_repetitions(write: Write, small_splits: SparkSession) -> None:
    one, two, three = counted(write, [3, 2, 4], ["a.csv", "b.csv", "c.csv"])
    assert numbers(read_csv([three, one, two, one]).collect()) == [5, 6, 7, 8, *range(5), 0, 1, 2]


@pytest.mark.spark
def test_many_small_files_share_partitions(
    write: Write, tmp_path: Path, small_splits: SparkSession
) -> None:
    counted(write, [1] * 60, [f"{i}.csv" for i in range(60)])
    shards = read_csv(tmp_path)
    assert shards.num_partitions() <= 10
    assert numbers(shards.collect()) == list(range(60))


@pytest.mark.spark
def test_two_small_files_are_two_partitions(spark: SparkSession, write: Write) -> None:
    paths = counted(write, [3, 3], ["a.csv", "b.csv"])
    assert read_csv(paths).num_partitions() == 2


@pytest.mark.spark
def test_a_file_system_of_hadoop(write: Write, tmp_path: Path, small_splits: SparkSession) -> None:
    counted(write, [3, 900, 1, 2], ["in 1.csv", "in 2.csv", "in 10.csv", "in 11.csv"])
    write("x", "_SUCCESS")
    settings = small_splits.sparkContext._jsc.hadoopConfiguration()
    settings.set("fs.viewfs.mounttable.zoo.link./data", f"file://{tmp_path}")
    for path in ["viewfs://zoo/data", "viewfs://zoo/data/in *.csv"]:
        assert numbers(read_csv(path).collect()) == list(range(906))


QUOTED = "".join(f'{n},"{"line, of {n}" * (n % 5)}\n"\n' for n in range(4000))


@pytest.mark.spark
def test_a_large_file_with_line_breaks_in_quotes_is_cut_between_records(
    write: Write, small_splits: SparkSession
) -> None:
    path = write("n,text\n" + QUOTED)
    shards = read_csv(path).collect()
    assert len(shards) > 4
    pd.testing.assert_frame_equal(pd.concat(shards, ignore_index=True), pd.read_csv(path))


@pytest.mark.spark
def test_the_same_on_a_file_system_of_hadoop(
    write: Write, tmp_path: Path, small_splits: SparkSession
) -> None:
    path = write("n,text\n" + QUOTED, "q.csv")
    settings = small_splits.sparkContext._jsc.hadoopConfiguration()
    # A table of its own: Hadoop keeps the file systems that it has opened.
    settings.set("fs.viewfs.mounttable.quoted.link./here", f"file://{tmp_path}")
    shards = read_csv("viewfs://quoted/here/q.csv").collect()
    pd.testing.assert_frame_equal(pd.concat(shards, ignore_index=True), pd.read_csv(path))


@pytest.mark.spark
def test_a_large_file_that_cannot_be_cut_is_one_partition(
    write: Write, small_splits: SparkSession
) -> None:
    text = "n,text\n" + QUOTED
    for data, keywords in [
        (text.encode("utf-16"), {"encoding": "utf-16"}),
        (text.encode(), {"comment": "#"}),
    ]:
        (frame,) = read_csv(write(data), **keywords).collect()
        assert frame["n"].tolist() == list(range(4000))


@pytest.mark.spark
def test_a_column_has_one_type_in_all_shards(write: Write, small_splits: SparkSession) -> None:
    lines = [f"{n},{n}" for n in range(9000)] + ["x,"]
    shards = read_csv(write("\n".join(["a,b", *lines]))).collect()
    assert len(shards) > 2
    assert {tuple(map(str, shard.dtypes)) for shard in shards} == {("object", "float64")}
    assert shards[0]["a"][1] == "1"


@pytest.mark.spark
def test_large_json_is_cut_at_its_lines(write: Write, small_splits: SparkSession) -> None:
    lines = [f'{{"n": {n}, "text": "a\\nb"}}' for n in range(4000)]
    shards = read_json(write("\n".join(lines), "a.json")).collect()
    assert len(shards) > 4
    assert numbers(shards) == list(range(4000))
    (frame,) = read_json(write(f"[{','.join(lines)}]", "b.json")).collect()
    assert frame["n"].tolist() == list(range(4000))


@pytest.mark.spark
def test_folders_named_for_values_are_columns(write: Write, tmp_path: Path) -> None:
    write("a\n1\n", "day=2/x.csv")
    write("a\n2\n", "day=10/x.csv")
    frame = pd.concat(read_csv(tmp_path).collect())
    assert frame.to_dict("list") == {"a": [1, 2], "day": [2, 10]}


@pytest.mark.spark
def test_json_lines_by_default(spark: SparkSession, write: Write) -> None:
    path = write('{"b": 1, "a": "x"}\n{"b": 2.5}\n', "a.json")
    for keywords in [{}, {"orient": "records", "lines": True}]:
        (frame,) = read_json(path, **keywords).collect()
        assert frame["b"].tolist() == [1.0, 2.5]
        assert frame["a"].tolist() == ["x", None]


@pytest.mark.spark
def test_json_of_a_list_with_lines_false(spark: SparkSession, write: Write) -> None:
    (frame,) = read_json(write('[{"a": 1},\n {"a": 2}]', "a.json"), lines=False).collect()
    assert frame["a"].tolist() == [1, 2]
    assert frame["a"].dtype == "int64"


@pytest.mark.spark
def test_json_columns_are_matched_by_name(spark: SparkSession, write: Write) -> None:
    paths = [write('{"a": 1, "n": 0}', "1.json"), write('{"n": 1, "c": 2}', "2.json")]
    frame = pd.concat(read_json(paths, schema="n INT, a INT").collect())
    assert frame["n"].tolist() == [0, 1]
    assert frame["a"].isna().tolist() == [False, True]


@pytest.mark.spark
@pytest.mark.parametrize(
    ("text", "keywords", "message"),
    [
        ("{]\n", {}, "a JSON object on each line"),
        ("", {}, "JSON objects, one on each line"),
        ("{}", {"orient": "split"}, "orient='records'"),
        ("{}", {"nrows": 1}, "nrows"),
        ("{}", {"schema": 3}, "StructType"),
    ],
)
def test_json_that_cannot_be_read(
    spark: SparkSession, write: Write, text: str, keywords: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_json(write(text, "a.json"), **keywords)


def parquet(folder: Path, rows: list[int]) -> list[str]:
    paths, start = [], 0
    for i, count in enumerate(rows):
        paths.append(str(folder / f"part-{i}.parquet"))
        frame = pd.DataFrame({"n": range(start, start + count), "x": 0.5}, dtype="float32")
        frame.astype({"n": "int32"}).to_parquet(paths[-1], index=False)
        start += count
    return paths


@pytest.mark.spark
def test_parquet_keeps_the_order_of_files(spark: SparkSession, tmp_path: Path) -> None:
    parquet(tmp_path, [2, 5000, 1, 30, 1, 1, 1, 1, 1, 1, 2, 2])
    shards = read_parquet(str(tmp_path)).collect()
    assert numbers(shards) == list(range(5043))
    assert shards[0].dtypes.to_dict() == {"n": "int64", "x": "float64"}


@pytest.mark.spark
def test_more_scans_than_can_be_planned_say_that_order_is_lost(
    tmp_path: Path,
    small_splits: SparkSession,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(ordered_scan, "_MAX_SCANS", 1)
    parquet(tmp_path, [1, 9000, 2])
    with caplog.at_level(logging.WARNING, "zoo"):
        shards = read_parquet(str(tmp_path)).collect()
    assert sorted(numbers(shards)) == list(range(9003))
    assert "to keep the order" in caplog.text


@pytest.mark.spark
@pytest.mark.parametrize(
    ("options", "message"),
    [({"filters": []}, "filters.*pandas_read_backend"), ({"mergeshema": True}, "mergeSchema")],
)
def test_parquet_keywords_that_spark_would_pass_over_are_refused(
    spark: SparkSession, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_parquet(parquet(tmp_path, [3])[0], **options)


@pytest.mark.spark
def test_parquet_columns_and_schema(spark: SparkSession, tmp_path: Path) -> None:
    (path,) = parquet(tmp_path, [3])
    (frame,) = read_parquet(path, columns=["x"]).collect()
    assert list(frame.columns) == ["x"]
    (frame,) = read_parquet(path, columns=["y", "n"], schema="n INT, y STRING").collect()
    assert list(frame.columns) == ["y", "n"]
    assert frame["y"].isna().all()


@pytest.mark.spark
@pytest.mark.parametrize("columns", [["x", "nosuch"], []])
def test_parquet_columns_that_are_not_there(
    spark: SparkSession, tmp_path: Path, columns: list[str]
) -> None:
    with pytest.raises(InputError, match="columns among n, x"):
        read_parquet(parquet(tmp_path, [3])[0], columns=columns)


@pytest.mark.spark
def test_parquet_files_with_more_columns_lose_none(spark: SparkSession, tmp_path: Path) -> None:
    parquet(tmp_path, [2])
    pd.DataFrame({"n": [2], "z": ["t"]}).astype({"n": "int32"}).to_parquet(tmp_path / "q.parquet")
    frame = pd.concat(read_parquet(str(tmp_path)).collect())
    assert frame["z"].tolist() == [None, None, "t"]


def test_groups_hold_neighbours_that_fit() -> None:
    assert group_files([], 10, 1) == []
    assert group_files([20], 10, 1) == [range(0, 1)]
    assert group_files([4, 5, 4, 20, 1], 10, 1) == [
        range(0, 2),
        range(2, 3),
        range(3, 4),
        range(4, 5),
    ]


@pytest.mark.parametrize(
    ("sizes", "expected"), [([1] * 2, 100), ([1] * 40, 252), ([10**6], 1000), ([1], 100)]
)
def test_bytes_of_a_task_follow_the_rule_of_spark(sizes: list[int], expected: int) -> None:
    assert split_bytes(sizes, 16, 1000, 100) == expected
