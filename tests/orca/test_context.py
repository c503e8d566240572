import logging
import warnings

import pytest
from pyspark.sql import SparkSession, SQLContext

from zoo.cluster.host import OneAtATime
from zoo.errors import ContractError, InputError, NotYetError
from zoo.orca import OrcaContext, init_orca_context
from zoo.orca.learn.driver.inputs import Inputs
from zoo.orca.learn.order import LoaderSource


@pytest.mark.spark
def test_init_reuses_what_runs(spark: SparkSession, caplog: pytest.LogCaptureFixture) -> None:
    assert init_orca_context("LOCAL", cores=1) is spark.sparkContext
    assert f"Reusing the Spark that runs ({spark.sparkContext.master})" in caplog.text


@pytest.mark.spark
def test_spark_submit_mode_takes_what_runs_without_a_word(
    spark: SparkSession, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert init_orca_context("spark-submit") is spark.sparkContext
    assert caplog.text == ""


@pytest.mark.spark
def test_unknown_keyword_is_named(spark: SparkSession) -> None:
    with pytest.warns(UserWarning, match=r"does not know colour.*spark_log_level"):
        init_orca_context(colour="blue")


@pytest.mark.spark
def test_idle_keyword_is_named(spark: SparkSession, caplog: pytest.LogCaptureFixture) -> None:
    init_orca_context(hadoop_conf="/etc/hadoop", object_store_memory="1g")
    assert "Without effect in local mode: hadoop_conf, object_store_memory." in caplog.text


@pytest.mark.spark
def test_getters_give_what_runs(spark: SparkSession) -> None:
    assert OrcaContext.get_spark_session() is spark
    assert OrcaContext.get_spark_context() is spark.sparkContext
    context = OrcaContext.get_sql_context()
    assert isinstance(context, SQLContext)
    assert context.sql("select 1").first() == (1,)


def test_unknown_mode_is_named() -> None:
    with pytest.raises(InputError, match=r"local.*standalone.*spark-submit.*received 'mesos'"):
        init_orca_context("mesos")


def test_local_mode_has_one_node() -> None:
    with pytest.raises(AssertionError, match="num_nodes to be 1"):
        init_orca_context("local", num_nodes=2)


@pytest.mark.parametrize("cores", [0, -1, 1.5, "two", True])
def test_cores_must_be_a_count(cores: object) -> None:
    with pytest.raises(InputError, match="cores"):
        init_orca_context(cores=cores)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["yarn-cluster", "k8s-cluster"])
def test_cluster_deploy_modes_lead_to_spark_submit(mode: str) -> None:
    with pytest.raises(ValueError, match="spark-submit"):
        init_orca_context(mode)


@pytest.mark.parametrize("mode", ["yarn", "yarn-client"])
def test_yarn_needs_a_configuration(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HADOOP_CONF_DIR", raising=False)
    with pytest.raises(AssertionError, match="HADOOP_CONF_DIR"):
        init_orca_context(mode)
    with pytest.raises(NotYetError, match="local, standalone and spark-submit"):
        init_orca_context(mode, hadoop_conf="/etc/hadoop")


@pytest.mark.parametrize("mode", ["k8s", "k8s-client"])
def test_k8s_needs_master_and_image(mode: str) -> None:
    with pytest.raises(AssertionError, match="master"):
        init_orca_context(mode, container_image="image")
    with pytest.raises(AssertionError, match="container_image"):
        init_orca_context(mode, master="k8s://here")
    with pytest.raises(NotYetError, match="local, standalone and spark-submit"):
        init_orca_context(mode, master="k8s://here", container_image="image")


def test_ray_is_not_there_yet() -> None:
    with pytest.raises(NotYetError, match="Ray"):
        init_orca_context(init_ray_on_spark=True)
    with pytest.raises(NotYetError, match="Ray"):
        OrcaContext.get_ray_context()


FLAGS = {
    "log_output": (False, True, "yes"),
    "barrier_mode": (True, False, 1),
    "_eager_mode": (True, False, None),
    "serialize_data_creator": (False, True, 0),
    "pandas_read_backend": ("spark", "pandas", "polars"),
    "train_data_store": ("DRAM", "DISK_4", "DISK_2x"),
    "_shard_size": (None, 10, 0),
}


@pytest.mark.parametrize(("name", "values"), FLAGS.items())
@pytest.mark.filterwarnings("ignore:.* has no effect:UserWarning")
def test_flag(
    name: str, values: tuple[object, object, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    default, other, wrong = values
    monkeypatch.setattr("zoo.cluster.session.lifecycle.active_context", lambda: None)
    assert getattr(OrcaContext, name) == default
    try:
        setattr(OrcaContext, name, other)
        assert getattr(OrcaContext, name) == other
        with pytest.raises(ContractError, match=name):
            setattr(OrcaContext, name, wrong)
    finally:
        setattr(OrcaContext, name, default)


@pytest.mark.spark
def test_log_output_of_a_running_spark_only_warns(spark: SparkSession) -> None:
    try:
        with pytest.warns(UserWarning, match="starts again"):
            OrcaContext.log_output = True
    finally:
        with pytest.warns(UserWarning, match="starts again"):
            OrcaContext.log_output = False


def test_flag_values_come_in_any_case() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        OrcaContext.pandas_read_backend = "Spark"
        OrcaContext.train_data_store = "dram"
    assert (OrcaContext.pandas_read_backend, OrcaContext.train_data_store) == ("spark", "DRAM")


@pytest.mark.parametrize(("given", "kept"), [("PMEM", "DRAM"), ("disk_4", "DISK_4")])
def test_store_of_training_data_has_no_effect(given: str, kept: str) -> None:
    try:
        with pytest.warns(UserWarning, match=r"no effect: training data lies in files"):
            OrcaContext.train_data_store = given
        assert OrcaContext.train_data_store == kept
    finally:
        OrcaContext.train_data_store = "DRAM"


def test_barrier_mode_has_no_effect() -> None:
    try:
        with pytest.warns(UserWarning, match="no effect: training needs no barrier stage"):
            OrcaContext.barrier_mode = False
    finally:
        OrcaContext.barrier_mode = True


def test_flag_that_does_not_exist_is_named() -> None:
    with pytest.warns(UserWarning, match="OrcaContext has no flag pandas_backend"):
        OrcaContext.pandas_backend = "pandas"  # type: ignore[attr-defined]
    del OrcaContext.pandas_backend  # type: ignore[attr-defined]


def test_data_creators_run_one_at_a_time_when_wanted() -> None:
    inputs = Inputs(
        float_dtype="float32", one_input=True, config={}, decoders={}, compares=True, seen=None
    )
    try:
        OrcaContext.serialize_data_creator = True
        source = inputs.source(print, (None, None), 1, "training")
    finally:
        OrcaContext.serialize_data_creator = False
    assert isinstance(source, LoaderSource)
    assert source.creator == OneAtATime(print)
    assert inputs.source(print, (None, None), 1, "training").creator is print  # type: ignore[union-attr]


@pytest.mark.spark
def test_sizes_without_effect_are_named(
    spark: SparkSession, caplog: pytest.LogCaptureFixture
) -> None:
    init_orca_context("spark-submit", cores=4, memory="2g", num_nodes=3)
    assert "Without effect in spark-submit mode: cores, num_nodes." in caplog.text


@pytest.mark.spark
def test_keywords_that_standalone_mode_cannot_use_are_named(
    spark: SparkSession, caplog: pytest.LogCaptureFixture
) -> None:
    keywords = {"driver_cores": 2, "extra_executor_memory_for_ray": "1g"}
    init_orca_context("standalone", enable_numa_binding=True, **keywords)
    idle = "driver_cores, enable_numa_binding, extra_executor_memory_for_ray"
    assert f"Without effect in standalone mode: {idle}." in caplog.text
