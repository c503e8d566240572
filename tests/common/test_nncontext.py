import pytest
from pyspark import SparkConf
from pyspark.sql import SparkSession

import zoo
from zoo.common import nncontext
from zoo.errors import InputError, NotYetError
from zoo.orca import OrcaContext

LEAKED = ["np", "os", "sys", "tempfile", "warnings", "SparkContext", "SparkConf", "SQLContext"]


def test_star_import_brings_the_names_that_programs_use() -> None:
    names: dict[str, object] = {}
    exec("from zoo.common.nncontext import *", names)
    assert {*LEAKED, "DataFrame", "RDD"} <= set(names)


def test_zoo_has_the_same_names() -> None:
    shared = set(zoo.__all__) - {"__version__"}
    assert shared == set(nncontext.__all__)
    assert all(getattr(zoo, name) is getattr(nncontext, name) for name in shared)


def test_zoo_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="init_moon"):
        _ = zoo.init_moon  # type: ignore[attr-defined]


@pytest.mark.spark
def test_every_way_of_starting_takes_what_runs(spark: SparkSession) -> None:
    context = spark.sparkContext
    assert zoo.init_nncontext("name") is context
    assert zoo.init_nncontext(SparkConf().setMaster("local[4]")) is context
    assert zoo.getOrCreateSparkContext() is context
    assert zoo.init_spark_on_local(cores=3) is context
    assert zoo.init_spark_standalone(2, 1) is context


@pytest.mark.spark
def test_stop_spark_standalone_leaves_other_spark_alone(spark: SparkSession) -> None:
    zoo.stop_spark_standalone()
    assert spark.range(3).count() == 3


@pytest.mark.spark
def test_node_and_core_number(spark: SparkSession) -> None:
    assert zoo.get_node_and_core_number() == (1, spark.sparkContext.defaultParallelism)


def test_init_spark_conf_has_our_defaults_under_the_users() -> None:
    conf = zoo.init_spark_conf({"spark.app.name": "mine", "spark.speculation": False})
    assert conf.get("spark.app.name") == "mine"
    assert conf.get("spark.speculation") == "false"
    assert conf.get("spark.sql.execution.arrow.pyspark.enabled") == "true"


@pytest.mark.parametrize("start", [zoo.init_spark_on_yarn, zoo.init_spark_on_k8s])
def test_modes_to_come_say_so(start: object) -> None:
    with pytest.raises(NotYetError, match="local, standalone and spark-submit"):
        start("a", "b", 1, 1)  # type: ignore[operator]


def test_flags_are_those_of_orca() -> None:
    try:
        with pytest.warns(UserWarning, match="barrier_mode has no effect"):
            zoo.ZooContext.barrier_mode = False
        assert OrcaContext.barrier_mode is False
    finally:
        zoo.ZooContext.barrier_mode = True


def test_optimizer_version_is_accepted() -> None:
    with pytest.warns(UserWarning, match="set_optimizer_version has no effect"):
        zoo.set_optimizer_version("optimizerV2")
    assert zoo.get_optimizer_version() == "OptimizerV1"


@pytest.mark.spark
def test_arguments_without_effect_are_named(
    spark: SparkSession, caplog: pytest.LogCaptureFixture
) -> None:
    zoo.init_spark_standalone(1, 1, driver_cores=2, enable_numa_binding=True)
    assert "Without effect in standalone mode: driver_cores, enable_numa_binding." in caplog.text


@pytest.mark.parametrize("cores", [0, "two"])
def test_cores_must_be_a_count(cores: object) -> None:
    with pytest.raises(InputError, match="cores to be a positive whole number"):
        zoo.init_spark_on_local(cores=cores)  # type: ignore[arg-type]
