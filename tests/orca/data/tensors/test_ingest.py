import datetime
import math
import threading
import time
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from pyspark.errors import PythonException
from pyspark.ml.linalg import Vectors
from pyspark.sql import functions as F
from pyspark.sql import types as T

from zoo.cluster.host import scratch_folder
from zoo.errors import ColumnError, InputError
from zoo.orca.data.tensors import kept as module
from zoo.orca.data.tensors.flaws import Flaw, raise_flaws
from zoo.orca.data.tensors.frame_rows import FrameRows
from zoo.orca.data.tensors.ingest import forget_ingested, ingest, restore
from zoo.orca.data.tensors.plan_columns import plan_columns
from zoo.orca.data.tensors.tensor_shard import open_tensors

pytestmark = pytest.mark.spark


@pytest.fixture(autouse=True)
def clean(spark):
    """Nothing is kept from other tests, and nothing is left by this one."""
    forget_ingested()
    zone = spark.conf.get("spark.sql.session.timeZone")
    size = spark.conf.get("spark.sql.execution.arrow.maxRecordsPerBatch")
    yield
    spark.conf.set("spark.sql.session.timeZone", zone)
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", size)
    forget_ingested()
    assert left(spark) == []


def left(spark):
    """Shards on the disk."""
    tasks = spark.sparkContext.parallelize(range(2), 2)
    return sorted(set(tasks.flatMap(lambda _: map(str, scratch_folder().glob("zoo-*"))).collect()))


def nothing_stays(spark):
    """Whether the disk gets empty: other tasks of a failed job write on for a moment."""
    deadline, empty_since = time.monotonic() + 15, None
    while time.monotonic() < deadline:
        if left(spark):
            empty_since = None
        elif empty_since is None:
            empty_since = time.monotonic()
        elif time.monotonic() - empty_since > 3:
            return True
        time.sleep(0.2)
    return False


def taken(frame, features, labels=None, **options):
    """The tensors of a frame, rows in its order."""
    plan = plan_columns(frame.schema, features, labels, need_labels=bool(labels), **options)
    result = ingest(frame, plan)
    parts = [[a.copy() for a in open_tensors(s, result.plan)] for s in result.shards]
    result.release()
    return [np.concatenate(tensor) for tensor in zip(*parts, strict=True)]


def refused(frame, features, labels=None, **options):
    with pytest.raises(ColumnError) as caught:
        taken(frame, features, labels, **options)
    return str(caught.value)


def test_rows_come_through_in_order(spark):
    frame = spark.range(0, 1000, 1, 7).select("id", (F.col("id") / 2).alias("half"))
    x, y = taken(frame, ["half"], ["id"])
    assert y.tolist() == list(range(1000))
    assert x.tolist() == [i / 2 for i in range(1000)]


@pytest.mark.parametrize("chunk", [1, 3, 10_000])
def test_chunks_of_any_size_give_the_same(spark, chunk):
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", chunk)
    frame = spark.range(0, 50, 1, 3).select(
        "id", F.array("id", F.col("id") * 2).alias("pair"), (F.col("id") > 20).alias("flag")
    )
    pair, flag = taken(frame, ["pair", "flag"])
    assert pair.tolist() == [[i, 2 * i] for i in range(50)]
    assert flag.tolist() == [float(i > 20) for i in range(50)]


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata"])
def test_timestamps_are_seconds_since_1970_in_any_zone(spark, zone):
    spark.conf.set("spark.sql.session.timeZone", zone)
    micros = [0, -1, -(10**15) - 7, 1_700_000_000_123_456, -86_400_000_000]
    frame = spark.createDataFrame([(m,) for m in micros], ["m"]).coalesce(1)
    moment = F.timestamp_micros("m")
    wall = F.to_timestamp_ntz(F.lit("1969-07-20 20:17:40"))
    got, ntz = taken(frame.select(moment.alias("t"), wall.alias("n")), ["t", "n"])
    assert got.tolist() == [m / 1e6 for m in micros]
    landing = datetime.datetime(1969, 7, 20, 20, 17, 40, tzinfo=datetime.UTC)
    assert set(ntz.tolist()) == {landing.timestamp()}


def test_dates_are_days_since_1970(spark):
    frame = spark.sql(
        "SELECT explode(array(DATE'1969-12-30', DATE'1970-01-01', DATE'2038-01-20')) d"
    )
    assert taken(frame, ["d"])[0].tolist() == [-2, 0, 24856]


def test_other_scalars(spark):
    schema = "b byte, s short, i int, l long, f float, d double, n decimal(20,3), t boolean"
    rows = [
        (1, 2, 3, 4, 0.5, 0.25, Decimal("-7.125"), True),
        (-1, -2, -3, 2**60, math.inf, 0.0, Decimal(0), False),
    ]
    frame = spark.createDataFrame(rows, schema).coalesce(1)
    got = [a.tolist() for a in taken(frame, frame.columns)]
    assert got == [list(column) for column in zip(*rows, strict=True)]


def test_vectors_dense_and_sparse(spark):
    rows = [
        (Vectors.dense(1, 2, 3),),
        (Vectors.sparse(3, [1], [9.0]),),
        (Vectors.sparse(3, [], []),),
    ]
    frame = spark.createDataFrame(rows, ["v"]).coalesce(1)
    assert taken(frame, ["v"])[0].tolist() == [[1, 2, 3], [0, 9, 0], [0, 0, 0]]


def test_nested_arrays_and_matrices(spark):
    frame = spark.range(0, 10, 1, 3).selectExpr(
        "array(array(id, 1), array(2, id)) m", "id * 1.5d d"
    )
    (m,) = taken(frame, ["m"])
    assert m.tolist() == [[[i, 1], [2, i]] for i in range(10)]
    (x,) = taken(frame, ["m", "d"], assemble=True)
    assert x.tolist() == [[i, 1, 2, i, 1.5 * i] for i in range(10)]


def test_bytes_through_a_decoder(spark):
    frame = spark.range(0, 40, 1, 4).selectExpr("unhex(lpad(hex(id), 2, '0')) c")
    (x,) = taken(frame, ["c"], decoders={"c": lambda cell: np.frombuffer(cell, np.uint8)})
    assert (x.dtype, x[:, 0].tolist()) == ("uint8", list(range(40)))


def test_rows_far_larger_than_a_piece(spark):
    frame = spark.range(0, 100, 1, 1).selectExpr("unhex(lpad(hex(id), 2, '0')) c")
    wide = {"c": lambda cell: np.full(1 << 20, cell[0], np.uint8)}
    (x,) = taken(frame, ["c"], decoders=wide)
    assert x.shape == (100, 1 << 20)
    assert (x == np.arange(100, dtype=np.uint8)[:, None]).all()


@pytest.mark.parametrize(
    "name", ["petal.length", "a`b", "with space", "ünï", "a,b", "SELECT", "a.b`c."]
)
def test_columns_may_have_any_name(spark, name):
    frame = spark.range(5).toDF(name).coalesce(1)
    assert taken(frame, [name], [name])[0].tolist() == [0, 1, 2, 3, 4]


def test_columns_that_are_not_used_may_be_anything(spark):
    frame = spark.range(5).selectExpr("id", "'text' s", "'a' twin", "'b' twin", "map('a', 1) m")
    assert len(taken(frame, ["id"])[0]) == 5


def test_empty_partitions_are_left_out(spark):
    frame = spark.range(0, 100, 1, 10).filter("id < 10 or id >= 90")
    plan = plan_columns(frame.schema, ["id"], None, need_labels=False)
    result = ingest(frame, plan)
    assert [(s.index, s.rows) for s in result.shards] == [(0, 10), (9, 10)]
    assert result.rows == 20
    assert result.application == spark.sparkContext.applicationId
    result.release()


def test_an_empty_frame_is_refused(spark):
    for frame in (
        spark.range(10).filter("id < 0"),
        spark.range(0),
        spark.createDataFrame([], "id long"),
    ):
        plan = plan_columns(frame.schema, ["id"], None, need_labels=False)
        with pytest.raises(InputError, match="zero rows"):
            ingest(frame, plan)


def test_fewer_rows_than_a_batch_are_refused(spark):
    frame = spark.range(9)
    plan = plan_columns(frame.schema, ["id"], ["id"])
    with pytest.raises(InputError, match=r"batch of 10 rows; received 9 rows.*batch_size=9"):
        ingest(frame, plan, batch_size=10)
    ingest(frame, plan, batch_size=9).release()


# What cannot become numbers


def test_nulls_are_counted_over_all_partitions(spark):
    frame = spark.range(0, 5000, 1, 8).selectExpr(
        "if(id % 7 = 0, null, id) a", "if(id % 10 = 0, null, id) b", "id y"
    )
    said = refused(frame, ["a", "b"], ["y"])
    assert "no nulls in column 'a'; received null in 715 rows" in said
    assert "also 'b': null in 500" in said
    assert "dropna" in said


def test_a_bad_column_is_counted_once_however_often_it_is_used(spark):
    frame = spark.range(0, 100, 1, 3).selectExpr("if(id % 2 = 0, null, id) a")
    assert "null in 50 rows" in refused(frame, ["a", ["a", "a"]], ["a"])


def test_nulls_inside_arrays_are_counted(spark):
    frame = spark.range(0, 60, 1, 4).selectExpr("if(id < 30, array(id, null), array(id, id)) a")
    assert "null in 30 rows (inside the arrays)" in refused(frame, ["a"])


def test_lengths_that_differ_inside_a_partition(spark):
    frame = spark.range(0, 60, 1, 1).selectExpr("if(id = 3, array(id), array(id, id)) a")
    assert "another shape in 1 row (lengths 2 and 1)" in refused(frame, ["a"])


def test_lengths_that_differ_between_partitions(spark):
    frame = spark.range(0, 60, 1, 6).selectExpr("if(id < 10, array(id), array(id, id)) a")
    assert "another shape in 10 rows (shapes (2,) and (1,))" in refused(frame, ["a"])


def test_vectors_that_differ_between_partitions(spark):
    rows = [(Vectors.dense([1.0] * (2 if i < 8 else 3)),) for i in range(10)]
    frame = spark.createDataFrame(spark.sparkContext.parallelize(rows, 5), ["v"])
    assert "another shape in 2 rows" in refused(frame, ["v"])


def test_labels_that_are_no_numbers(spark):
    frame = spark.range(0, 100, 1, 3).selectExpr("id x", "if(id % 4 = 0, double('nan'), 1d) y")
    assert "labels that are numbers in column 'y'; received NaN in 25 rows" in refused(
        frame, ["x"], ["y"]
    )
    assert np.isnan(taken(frame, ["y"])[0]).sum() == 25


def test_infinite_values_come_through(spark):
    frame = spark.range(4).selectExpr("id x", "if(id % 2 = 0, double('inf'), -double('inf')) y")
    assert np.isinf(taken(frame, ["x"], ["y"])[1]).all()


def test_numbers_beyond_the_dtype(spark):
    frame = spark.range(0, 20, 1, 2).selectExpr("array(id + 16777208) ids", "1e300 * id huge")
    said = refused(frame, ["ids"])
    assert "others in 6 rows (16777217)" in said
    assert "decoders={'ids': 'int64'}" in said
    assert taken(frame, ["ids"], decoders={"ids": "int64"})[0].max() == 16777227
    assert "larger ones in 19 rows" in refused(frame, ["huge"])


def test_bytes_that_cannot_be_decoded(spark):
    frame = spark.range(0, 40, 1, 4).selectExpr("unhex(lpad(hex(id), 2, '0')) c")

    def decoder(cell):
        if cell[0] % 10 == 0:
            raise OSError("truncated file")
        return np.zeros(3, np.float32)

    said = refused(frame, ["c"], decoders={"c": decoder})
    assert "undecodable bytes in 4 rows (OSError: truncated file)" in said


def test_decoders_that_disagree_between_partitions(spark):
    frame = spark.range(0, 40, 1, 4).selectExpr("unhex(lpad(hex(id), 2, '0')) c")
    said = refused(frame, ["c"], decoders={"c": lambda b: np.zeros(1, "f4" if b[0] < 30 else "u1")})
    assert "another shape in 10 rows (dtypes float32 and uint8)" in said


def test_errors_come_soon_and_leave_the_session_well(spark):
    frame = spark.range(0, 200_000, 1, 4).selectExpr("if(id % 2 = 0, null, id) a")
    refused(frame, ["a"])
    start = time.perf_counter()
    assert "null in 100000 rows" in refused(frame, ["a"])
    assert time.perf_counter() - start < 20
    assert left(spark) == []
    assert spark.range(10).count() == 10


def test_errors_of_the_frame_itself_pass_and_leave_nothing(spark):
    @F.udf("long")
    def broken(value):
        if value > 4000:
            raise ValueError("from the user's own function")
        return value

    frame = spark.range(0, 5000, 1, 3).select(broken("id").alias("a"))
    with pytest.raises(PythonException, match="from the user's own function"):
        taken(frame, ["a"])
    assert nothing_stays(spark)


def test_other_threads_may_ingest(spark):
    frame, found = spark.range(0, 100, 1, 2), []
    threads = [
        threading.Thread(target=lambda: found.append(taken(frame, ["id"])[0].sum()))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [4950] * 3


def test_all_flaws_become_one_error():
    flaws = [Flaw("a", "null", 3), Flaw("b", "nan", 7), Flaw("a", "null", 5, "here")]
    with pytest.raises(
        ColumnError, match=r"column 'a'; received null in 8 rows \(here\); also 'b'"
    ):
        raise_flaws(flaws)
    raise_flaws([])


# Frames that Spark holds persisted


@pytest.fixture
def held(spark):
    frame = spark.range(0, 100, 1, 3).selectExpr("id", "rand() r").persist()
    yield frame
    frame.unpersist()


def ended(frame, plan, **options):
    """What a fit had that has ended."""
    result = ingest(frame, plan, **options)
    result.release()
    return result


def plan_of(frame, features=("id",)):
    return plan_columns(frame.schema, list(features), None, need_labels=False)


def test_a_persisted_frame_is_written_once(held):
    first = ended(held, plan_of(held))
    assert ended(held, plan_of(held)) is first
    assert all(Path(s.path).is_file() for s in first.shards)


def test_other_columns_of_it_are_written_anew(held):
    first, other = ended(held, plan_of(held)), ended(held, plan_of(held, ["r"]))
    assert other is not first
    assert ended(held, plan_of(held)) is first


def test_a_frame_with_its_names_swapped_is_another(spark):
    base = spark.range(10).selectExpr("id a", "id * 2 b").coalesce(1).persist()
    swapped = base.toDF("b", "a").toDF("b", "a")
    alike = spark.range(10).selectExpr("id b", "id * 2 a").coalesce(1)
    try:
        plan = plan_of(base, ["a"])
        first = ended(base, plan)
        for frame in (swapped, alike):
            assert ended(frame, plan_of(frame, ["a"])) is not first
            assert taken(frame, ["b"])[0].tolist() == list(range(10))
            assert taken(frame, ["a"])[0].tolist() == list(range(0, 20, 2))
    finally:
        base.unpersist()


def test_unpersist_forgets(spark, held):
    shards = ended(held, plan_of(held)).shards
    held.unpersist(blocking=True)
    ingest(spark.range(1), plan_of(spark.range(1))).release()
    assert not any(Path(s.path).exists() for s in shards)


def test_a_frame_that_was_persisted_anew_is_read_anew(held):
    before = ended(held, plan_of(held, ["r"]))
    held.unpersist(blocking=True)
    held.persist()
    assert ended(held, plan_of(held, ["r"])) is not before


def test_files_that_were_written_over_are_read_anew(spark, tmp_path):
    path = str(tmp_path / "table")
    spark.range(10).write.parquet(path)
    frame = spark.read.parquet(path).persist()
    try:
        assert ended(frame, plan_of(frame)).rows == 10
        spark.range(25).write.mode("overwrite").parquet(path)
        again = spark.read.parquet(path)
        assert again.count() == 25
        assert ended(again, plan_of(again)).rows == 25
    finally:
        frame.unpersist()


def test_lost_shards_are_written_again(held):
    first = ended(held, plan_of(held))
    for shard in first.shards:
        Path(shard.path).unlink()
    again = ended(held, plan_of(held))
    assert again is not first
    assert again.rows == 100


def test_only_a_few_frames_are_kept(held, monkeypatch):
    monkeypatch.setattr(module, "_MOST", 1)
    first, second = ended(held, plan_of(held)), ended(held, plan_of(held, ["r"]))
    assert not any(Path(s.path).exists() for s in first.shards)
    assert ended(held, plan_of(held, ["r"])) is second


def test_a_kept_frame_still_needs_enough_rows(held):
    ended(held, plan_of(held))
    with pytest.raises(InputError, match="at least one batch of 101 rows"):
        ingest(held, plan_of(held), batch_size=101)


def test_a_schema_of_another_frame_is_an_error_of_spark(spark):
    plan = plan_columns(T.StructType([T.StructField("gone", T.LongType())]), ["gone"], ["gone"])
    with pytest.raises(Exception, match="gone"):
        ingest(spark.range(3), plan)


# Lost shards


def restored(frame, labels, *, before=lambda: None):
    """Lose a shard and restore it; the tensors before and after."""
    plan = plan_columns(frame.schema, labels, None, need_labels=False)
    result = ingest(frame, plan)
    lost = result.shards[-1]
    was = [a.copy() for a in open_tensors(lost, result.plan)]
    Path(lost.path).unlink()
    before()
    try:
        result = restore(FrameRows(frame), result, {lost.index})
        now = [a.copy() for a in open_tensors(result.shards[-1], result.plan)]
    finally:
        result.release()
    return was, now


@pytest.fixture
def setting(spark):
    """Change a setting for a while."""
    before = {}

    def change(name, value):
        before.setdefault(name, spark.conf.get(name))
        spark.conf.set(name, value)

    yield change
    for name, value in before.items():
        spark.conf.set(name, value)


def test_lost_shards_come_back_the_same(spark):
    was, now = restored(spark.range(0, 100, 1, 4).selectExpr("id", "rand(3) r"), ["id", "r"])
    assert [a.tolist() for a in was] == [a.tolist() for a in now]


def test_a_query_that_draws_anew_each_time_is_an_error(spark):
    draw = F.udf(lambda _: float(np.random.default_rng().random()), "double").asNondeterministic()
    frame = spark.range(0, 100, 1, 4).select("id", draw("id").alias("r"))
    with pytest.raises(InputError, match=r"same order.*partition 3.*Parquet"):
        restored(frame, ["id", "r"])


def test_partitions_stay_as_they_were_planned(spark, setting):
    frame = spark.range(0, 1000, 1, 4).dropDuplicates(["id"])
    name = "spark.sql.shuffle.partitions"

    def later():
        setting(name, "7")
        setting("spark.sql.adaptive.enabled", "false")

    was, now = restored(frame, ["id"], before=later)
    assert sorted(was[0].tolist()) == sorted(now[0].tolist())


def test_files_are_cut_into_partitions_once(spark, setting, tmp_path):
    spark.range(0, 1000, 1, 1).write.parquet(str(tmp_path / "t"))
    frame = spark.read.parquet(str(tmp_path / "t"))
    was, now = restored(
        frame, ["id"], before=lambda: setting("spark.sql.files.maxPartitionBytes", "1000")
    )
    assert was[0].tolist() == now[0].tolist()
    assert len(was[0]) == 1000


def test_rows_are_spread_in_one_way(spark):
    frame = spark.range(0, 5000, 1, 3).selectExpr(
        "id % 100 a", "array(rand(1), double(id)) `v.w`", "map('no', id) m"
    )
    orders = []
    for _ in range(2):
        rows = FrameRows(frame).spread(8, ["a", "v.w"])
        result = ingest(rows, plan_columns(rows.frame.schema, ["v.w"], ["a"]))
        orders.append([s.checksum for s in result.shards])
        sizes = [s.rows for s in result.shards]
        result.release()
    assert orders[0] == orders[1]
    assert len(sizes) == 8
    assert max(sizes) - min(sizes) < 10


def test_numbers_that_are_none_are_told(spark, caplog):
    frame = spark.range(0, 100, 1, 4).selectExpr(
        "if(id % 10 = 0, double('nan'), id) a", "if(id = 7, float('inf'), 1f) b", "id c", "id y"
    )
    plan = plan_columns(frame.schema, ["a", ["b", "c"]], ["y"])
    ingest(frame, plan).release()
    assert "in column 'a' in 10, 'b' in 1 of 100 rows" in caplog.text
