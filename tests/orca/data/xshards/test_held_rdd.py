"""What Spark holds for SparkXShards, and for how long; and errors of users' functions."""

import gc
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from py4j.protocol import Py4JError
from pyspark import RDD, StorageLevel
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from zoo.cluster.settings import settings
from zoo.orca.data import SparkXShards, XShards

pytestmark = pytest.mark.spark


@pytest.fixture
def lists(spark: SparkSession) -> SparkXShards:
    return SparkXShards(spark.sparkContext.parallelize([[1, 2], [3, 4]], 2))


def frames(spark: SparkSession) -> SparkXShards:
    return SparkXShards(
        spark.sparkContext.parallelize([pd.DataFrame({"a": [i]}) for i in range(2)], 2)
    )


def is_held(rdd: RDD[Any]) -> bool:
    return bool(rdd.ctx._jsc.getPersistentRDDs().containsKey(rdd.id()))


def test_new_shards_are_cached_on_disk(lists: SparkXShards) -> None:
    assert lists.is_cached()
    assert lists.rdd.getStorageLevel() == StorageLevel.DISK_ONLY


def test_transient_shards_are_not(spark: SparkSession) -> None:
    assert not SparkXShards(spark.sparkContext.parallelize([1]), transient=True).is_cached()


USES: dict[str, Callable[[SparkXShards], Any]] = {
    "transform_shard": lambda xs: xs.transform_shard(len),
    "split": lambda xs: xs.split(),
    "zip": lambda xs: xs.zip(xs),
    "repartition": lambda xs: xs.repartition(1),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("kept", [False, True])
def test_source_is_uncached_unless_the_user_cached_it(
    lists: SparkXShards, use: str, kept: bool
) -> None:
    if kept:
        assert lists.cache() is lists
    USES[use](lists)
    assert lists.is_cached() is kept


@pytest.mark.parametrize("kept", [False, True])
def test_source_of_partition_by_is_uncached(spark: SparkSession, kept: bool) -> None:
    source = frames(spark)
    if kept:
        source.cache()
    made = source.partition_by("a")
    assert (source.is_cached(), made.is_cached()) == (kept, True)


def test_zip_uncaches_both(spark: SparkSession, lists: SparkXShards) -> None:
    other = SparkXShards(lists.rdd.map(len))
    assert lists.zip(other).is_cached()
    assert not other.is_cached()


def test_selection_is_never_cached_and_leaves_the_source(spark: SparkSession) -> None:
    source = frames(spark)
    assert not source["a"].is_cached()
    assert source.is_cached()


def test_uncached_shards_stay_usable(lists: SparkXShards) -> None:
    assert lists.uncache() is lists
    assert not lists.is_cached()
    assert lists.uncache().compute() is lists
    assert lists.cache().collect() == [[1, 2], [3, 4]]


def test_shards_are_uncached_when_garbage_collected(spark: SparkSession) -> None:
    shards = frames(spark).cache()
    rdd = shards.rdd
    assert is_held(rdd)
    del shards
    gc.collect()
    assert not rdd.is_cached
    deadline = time.monotonic() + 20
    while is_held(rdd) and time.monotonic() < deadline:
        time.sleep(0.02)  # a thread of its own tells Spark
    assert not is_held(rdd)


def test_what_a_user_cached_before_survives(spark: SparkSession) -> None:
    rdd = spark.sparkContext.parallelize([1]).cache()
    SparkXShards(rdd)
    gc.collect()
    assert rdd.is_cached
    rdd.unpersist()


def test_collecting_in_the_middle_of_calls_to_the_jvm_does_no_harm(spark: SparkSession) -> None:
    before = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for i in range(10):
            shards = SparkXShards(spark.sparkContext.parallelize([i], 1))
            loop = [shards]
            loop.append(loop)  # type: ignore[arg-type]
            assert shards.collect() == [i]
    finally:
        gc.set_threshold(*before)


def test_errors_and_forgetting_print_nothing(fresh_python: Callable[..., Any]) -> None:
    done = fresh_python(
        """
import gc, numpy as np, time
from zoo.orca import init_orca_context, stop_orca_context
from zoo.orca.data import XShards
init_orca_context(cores=1, memory="512m", conf={"spark.ui.enabled": "false"})
shards, others = XShards.partition(np.arange(4), 2), XShards.partition(np.arange(4), 2)
try:
    shards.transform_shard(lambda shard: 1 / 0)
except ZeroDivisionError:
    pass
stop_orca_context()
try:
    shards.collect()
except RuntimeError as error:
    print("has been stopped" in str(error))
del shards
gc.collect()
time.sleep(0.2)
"""
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True\n"
    assert "Traceback" not in done.stderr


def test_eager_shards_are_computed_at_once(spark: SparkSession, lists: SparkXShards) -> None:
    with pytest.raises(ZeroDivisionError):
        lists.transform_shard(lambda shard: 1 / 0)
    assert lists.is_cached()


def test_lazy_shards_are_computed_when_asked(
    lists: SparkXShards, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "eager_mode", False)
    lazy = lists.transform_shard(lambda shard: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        lazy.compute()


class Strange(Exception):
    """Its constructor takes other arguments than it hands on."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


def fail_at_three(shard: Any) -> Any:
    if 3 in np.atleast_1d(shard):
        raise Strange(42, "three\nlines\nof text")
    return shard


def test_error_of_a_function_arrives_with_its_type_and_shard() -> None:
    with pytest.raises(Strange, match="42: three") as caught:
        XShards.partition(np.arange(6), 3).transform_shard(fail_at_three)
    assert caught.value.code == 42
    assert "shard 0 of partition 1" in caught.value.__notes__[0]
    assert "in fail_at_three" in caught.value.__notes__[0]
    assert "Number" not in caught.value.__notes__[0]


def test_error_names_the_shard_within_its_partition(spark: SparkSession) -> None:
    shards = SparkXShards(spark.sparkContext.parallelize([0, 1, 2, 3, 4], 2))
    with pytest.raises(Strange) as caught:
        shards.transform_shard(fail_at_three)
    assert "shard 1 of partition 1" in caught.value.__notes__[0]


def test_error_in_a_job_of_the_user_names_the_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    shards = XShards.partition(np.arange(6), 3)
    monkeypatch.setattr(settings, "eager_mode", False)
    lazy = shards.transform_shard(fail_at_three)
    with pytest.raises((Py4JError, PySparkException)) as caught:
        lazy.rdd.count()
    assert "Raised by shard 0 of partition 1" in str(caught.value)
    assert "Number" not in str(caught.value)


def test_error_is_shown_with_one_traceback_of_the_task() -> None:
    with pytest.raises(Strange) as caught:
        XShards.partition(np.arange(6), 3).transform_shard(fail_at_three)
    # Nothing of Spark, and nothing that is packed.
    shown = "".join(traceback.format_exception(caught.value))
    assert shown.count("Traceback (most recent call last)") == 1
    assert len(shown.splitlines()) < 25
    assert max(map(len, shown.splitlines())) < 200
    assert not any(word in shown for word in ("Py4J", "org.apache", "Number"))
    assert caught.value.__context__ is None


def test_error_that_cannot_be_pickled_arrives_with_its_message(lists: SparkXShards) -> None:
    def fail(shard: Any) -> None:
        error = OSError("a message")
        error.handle = threading.Lock()  # type: ignore[attr-defined]
        raise error from ValueError("the first cause")

    with pytest.raises(OSError, match="a message") as caught:
        lists.transform_shard(fail)
    assert "shard 0 of partition" in caught.value.__notes__[0]
    assert "Caused by ValueError: the first cause" in caught.value.__notes__[0]


def test_error_with_much_in_it_arrives_as_text(lists: SparkXShards) -> None:
    def fail(shard: Any) -> None:
        raise ValueError("x" * 10, np.random.default_rng(0).bytes(1 << 20))

    with pytest.raises(ValueError, match="xxxxx") as caught:
        lists.transform_shard(fail)
    assert len(str(caught.value)) < 100_000
    assert "shard 0 of partition" in caught.value.__notes__[0]


def test_error_with_a_long_text_and_a_note_arrives(lists: SparkXShards) -> None:
    def fail(shard: Any) -> None:
        error = ValueError("begin" + "x" * 100_000)
        error.add_note("a note of the user")
        raise error

    with pytest.raises(ValueError, match="begin") as caught:
        lists.transform_shard(fail)
    assert len(str(caught.value)) == 100_005


@pytest.mark.parametrize("error", [StopIteration, KeyError, AssertionError])
def test_errors_of_any_kind_arrive(lists: SparkXShards, error: type[Exception]) -> None:
    def fail(shard: Any) -> None:
        raise error("why")

    with pytest.raises(error, match="why"):
        lists.transform_shard(fail)


def test_errors_in_a_chain_name_where_they_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    shards = XShards.partition(np.arange(6), 3)
    monkeypatch.setattr(settings, "eager_mode", False)
    with pytest.raises(Strange) as caught:
        shards.transform_shard(fail_at_three).transform_shard(list).collect()
    assert len(caught.value.__notes__) == 1
