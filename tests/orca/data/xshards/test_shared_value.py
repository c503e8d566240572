import pytest
from pyspark.sql import SparkSession

from zoo.orca.data import SharedValue, XShards
from zoo.orca.data.xshards import shared_value

pytestmark = pytest.mark.spark


def test_value_is_there_on_the_driver(spark: SparkSession) -> None:
    assert SharedValue({"a": [1, 2]}).value == {"a": [1, 2]}


def test_value_stays_after_unpersist(spark: SparkSession) -> None:
    shared = SharedValue([1, 2])
    rdd = spark.sparkContext.parallelize(range(2), 2)
    assert rdd.map(lambda i: shared.value[i]).collect() == [1, 2]
    shared.unpersist()
    assert shared.value == [1, 2]
    assert rdd.map(lambda i: shared.value[i]).collect() == [1, 2]


def test_without_spark_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.cluster.session.lifecycle.active_context", lambda: None)
    with pytest.raises(RuntimeError, match=r"init_orca_context\(\)"):
        SharedValue(1)
    with pytest.raises(RuntimeError, match="No active SparkContext"):
        XShards.load("nowhere")
    assert shared_value.__doc__
