"""Ways of starting Spark that came before `init_orca_context`.

Programs import everything from here and then use names that are not this module's own, such as
`np` and `SparkContext`; they stay part of it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from pyspark import RDD, SparkConf, SparkContext
from pyspark.sql import DataFrame, SQLContext

from zoo.cluster.flags import ContextFlags
from zoo.cluster.session import lifecycle
from zoo.cluster.session.options import StartOptions, say_idle
from zoo.cluster.session.properties import as_properties, common_properties

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "RDD",
    "DataFrame",
    "SQLContext",
    "SparkConf",
    "SparkContext",
    "ZooContext",
    "getOrCreateSparkContext",
    "get_node_and_core_number",
    "get_optimizer_version",
    "init_nncontext",
    "init_spark_conf",
    "init_spark_on_k8s",
    "init_spark_on_local",
    "init_spark_on_yarn",
    "init_spark_standalone",
    "np",
    "os",
    "set_optimizer_version",
    "stop_spark_standalone",
    "sys",
    "tempfile",
    "warnings",
]


class ZooContext(metaclass=ContextFlags):
    """Flags of the whole process, set on the class: `ZooContext.log_output = True`."""


def init_nncontext(
    conf: SparkConf | str | None = None,
    spark_log_level: str = "WARN",
    redirect_spark_log: bool = True,
) -> SparkContext:
    """Take the Spark that runs or that `spark-submit` prepared, or start one.

    Args:
        conf: What to start it with, or only the name of the application.
        spark_log_level: What Spark logs.
        redirect_spark_log: Send what Spark logs below WARN to `spark.log`, not the terminal.
    """
    name = conf if isinstance(conf, str) else None
    options = StartOptions(
        conf=None if isinstance(conf, str) else conf,
        spark_log_level=spark_log_level,
        redirect_spark_log=redirect_spark_log,
    )
    return lifecycle.attach(options, app_name=name)


def getOrCreateSparkContext(  # noqa: N802 - the name that programs import
    conf: SparkConf | None = None,
    appName: str | None = None,  # noqa: N803
) -> SparkContext:
    """The Spark that runs, or a new one.

    Args:
        conf: What to start it with.
        appName: The name of the application.
    """
    return lifecycle.attach(StartOptions(conf=conf), app_name=appName)


def init_spark_conf(conf: Mapping[str, object] | None = None) -> SparkConf:
    """A Spark configuration with our defaults and, over them, these properties."""
    return SparkConf().setAll(list({**common_properties(), **as_properties(conf)}.items()))


def init_spark_on_local(
    cores: int | str = 2,
    conf: Mapping[str, object] | None = None,
    python_location: str | None = None,
    spark_log_level: str = "WARN",
    redirect_spark_log: bool = True,
) -> SparkContext:
    """Start Spark inside one JVM on this machine.

    Args:
        cores: Tasks that run at the same time; `"*"` for as many as there are cores.
        conf: Spark properties; they win over ours.
        python_location: The Python of the workers; this one when None.
        spark_log_level: What Spark logs.
        redirect_spark_log: Send what Spark logs below WARN to `spark.log`, not the terminal.
    """
    return lifecycle.start_local(
        cores,
        options=StartOptions(
            conf=conf,
            python_location=python_location,
            spark_log_level=spark_log_level,
            redirect_spark_log=redirect_spark_log,
        ),
    )


def init_spark_standalone(  # noqa: PLR0913 - the signature that programs call
    num_executors: int,
    executor_cores: int,
    executor_memory: str = "2g",
    driver_cores: int = 4,
    driver_memory: str = "2g",
    master: str | None = None,
    extra_executor_memory_for_ray: str | None = None,
    extra_python_lib: str | None = None,
    spark_log_level: str = "WARN",
    redirect_spark_log: bool = True,
    conf: Mapping[str, object] | None = None,
    jars: str | None = None,
    python_location: str | None = None,
    enable_numa_binding: bool = False,
) -> SparkContext:
    """Join a standalone Spark cluster, or start one on this machine.

    Args:
        num_executors: How many executors.
        executor_cores: Task slots of each.
        executor_memory: Memory of each.
        driver_cores: Without effect; a driver in this process takes the cores that are there.
        driver_memory: Memory of the driver JVM.
        master: `spark://host:port`; None starts a cluster, which `stop_spark_standalone` ends.
        extra_executor_memory_for_ray: Without effect; standalone masters count the JVM only.
        extra_python_lib: Python files or packages for the workers, with commas between.
        spark_log_level: What Spark logs.
        redirect_spark_log: Send what Spark logs below WARN to `spark.log`, not the terminal.
        conf: Spark properties; they win over ours.
        jars: Java packages, with commas between.
        python_location: The Python of the workers; this one when None.
        enable_numa_binding: Without effect; executors are not bound to NUMA nodes.
    """
    idle = {
        "driver_cores": driver_cores != 4,
        "enable_numa_binding": enable_numa_binding,
        "extra_executor_memory_for_ray": extra_executor_memory_for_ray,
    }
    say_idle("standalone", [name for name, given in idle.items() if given])
    options = StartOptions(
        conf=conf,
        python_location=python_location,
        spark_log_level=spark_log_level,
        redirect_spark_log=redirect_spark_log,
        extra_python_lib=extra_python_lib,
        jars=jars,
    )
    return lifecycle.start_standalone(
        num_executors,
        executor_cores,
        executor_memory,
        master=master,
        driver_memory=driver_memory,
        options=options,
    )


def stop_spark_standalone() -> None:
    """End the standalone cluster that was started here, and the Spark that runs on it."""
    if lifecycle.owns_cluster():
        lifecycle.stop()


def init_spark_on_yarn(*args: object, **kwargs: object) -> NoReturn:
    """Start Spark on YARN: not available yet.

    Raises:
        NotYetError: Always.
    """
    raise lifecycle.not_yet("yarn")


def init_spark_on_k8s(*args: object, **kwargs: object) -> NoReturn:
    """Start Spark on Kubernetes: not available yet.

    Raises:
        NotYetError: Always.
    """
    raise lifecycle.not_yet("k8s")


def get_node_and_core_number() -> tuple[int, int]:
    """How many executors the running Spark has, and the task slots of each."""
    return lifecycle.nodes_and_cores(lifecycle.active_session().sparkContext)


def set_optimizer_version(optimizerVersion: str, bigdl_type: str = "float") -> None:  # noqa: N803
    """Warn that this has no effect: there is one kind of optimizer."""
    warnings.warn("set_optimizer_version has no effect: there is one kind.", stacklevel=2)


def get_optimizer_version(bigdl_type: str = "float") -> str:
    """The name that programs compare with; it has no effect."""
    return "OptimizerV1"
