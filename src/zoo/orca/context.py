"""`init_orca_context`, `stop_orca_context` and the flags of `OrcaContext`."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from zoo.cluster.flags import ContextFlags, require_bool
from zoo.cluster.session import lifecycle
from zoo.cluster.session.options import StartOptions, say_idle
from zoo.cluster.session.properties import require_count
from zoo.cluster.settings import settings
from zoo.errors import ContractError, InputError, NotYetError

if TYPE_CHECKING:
    from pyspark import SparkContext
    from pyspark.sql import SparkSession, SQLContext

__all__ = ["OrcaContext", "init_orca_context", "stop_orca_context"]

_EVERYWHERE = {"conf", "spark_log_level", "redirect_spark_log"}
_PROGRAM = {"driver_memory", "extra_python_lib", "jars"}
_CLUSTER = {*_PROGRAM, "driver_cores", "extra_executor_memory_for_ray"}
_YARN = {
    "additional_archive",
    "hadoop_conf",
    "hadoop_user_name",
    "penv_archive",
    "spark_yarn_archive",
}
_RAY = {
    "env",
    "extra_params",
    "include_webui",
    "num_ray_nodes",
    "object_store_memory",
    "ray_node_cpu_cores",
    "redis_password",
    "redis_port",
    "verbose",
}
_KEYWORDS = {
    "local": _EVERYWHERE | {"python_location"},
    "standalone": _EVERYWHERE | _PROGRAM | {"python_location", "master"},
    "spark-submit": _EVERYWHERE,
    "yarn": _EVERYWHERE | _CLUSTER | _YARN,
    "k8s": _EVERYWHERE | _CLUSTER | {"python_location", "master", "container_image"},
}
_ALL_KEYWORDS = {"enable_numa_binding"}.union(*_KEYWORDS.values(), _RAY)
# What `init_orca_context` takes where nobody says otherwise.
_SIZES = {"cores": 2, "memory": "2g", "num_nodes": 1}


class _OrcaFlags(ContextFlags):
    @property
    def pandas_read_backend(cls) -> str:
        """Who reads files for `zoo.orca.data.pandas`: `spark` or `pandas`."""
        return settings.pandas_read_backend

    @pandas_read_backend.setter
    def pandas_read_backend(cls, value: str) -> None:
        backend = str(value).lower()
        if backend not in ("spark", "pandas"):
            raise ContractError(
                'pandas_read_backend to be "spark" or "pandas"', repr(value), "Set one of the two."
            )
        settings.pandas_read_backend = backend

    @property
    def _eager_mode(cls) -> bool:
        """Whether every new SparkXShards is computed at once."""
        return settings.eager_mode

    @_eager_mode.setter
    def _eager_mode(cls, value: bool) -> None:
        require_bool("_eager_mode", value)
        settings.eager_mode = value

    @property
    def serialize_data_creator(cls) -> bool:
        """Whether one process of a machine runs a data creator function at a time."""
        return settings.serialize_data_creator

    @serialize_data_creator.setter
    def serialize_data_creator(cls, value: bool) -> None:
        require_bool("serialize_data_creator", value)
        settings.serialize_data_creator = value

    @property
    def train_data_store(cls) -> str:
        """Kept for old programs; without effect, since all training data lies in files."""
        return settings.train_data_store

    @train_data_store.setter
    def train_data_store(cls, value: str) -> None:
        store = str(value).upper()
        if not re.fullmatch(r"DRAM|PMEM|DISK_[1-9]\d*", store):
            raise ContractError(
                'train_data_store to be "DRAM", "PMEM" or "DISK_n"',
                repr(value),
                "n is a whole number, as in DISK_4.",
            )
        if store != "DRAM":
            warnings.warn(
                "train_data_store has no effect: training data lies in files on local disks, of "
                "which memory holds what it has room for.",
                stacklevel=2,
            )
        settings.train_data_store = "DRAM" if store == "PMEM" else store

    @property
    def _shard_size(cls) -> int | None:
        """Rows of a shard that is made from a DataFrame; None for one shard a partition."""
        return settings.shard_size

    @_shard_size.setter
    def _shard_size(cls, value: int | None) -> None:
        whole = isinstance(value, int) and not isinstance(value, bool) and value > 0
        if value is not None and not whole:
            raise ContractError(
                "_shard_size to be None or a positive whole number",
                repr(value),
                "None makes one shard of each partition.",
            )
        settings.shard_size = value


class OrcaContext(metaclass=_OrcaFlags):
    """Flags of the whole process, set on the class, and the way to what runs.

    Example::

        OrcaContext.pandas_read_backend = "pandas"
    """

    @staticmethod
    def get_spark_context() -> SparkContext:
        """The Spark context that runs.

        Raises:
            ClusterError: None does.
        """
        return lifecycle.active_session().sparkContext

    @staticmethod
    def get_spark_session() -> SparkSession:
        """The Spark session that runs.

        Raises:
            ClusterError: None does.
        """
        return lifecycle.active_session()

    @staticmethod
    def get_sql_context() -> SQLContext:
        """The older face of the Spark session that runs.

        Raises:
            ClusterError: None does.
        """
        from pyspark.sql import SQLContext

        spark = lifecycle.active_session()
        return SQLContext(spark.sparkContext, spark)

    @staticmethod
    def get_ray_context() -> NoReturn:
        """The Ray that runs inside Spark: not available yet.

        Raises:
            NotYetError: Always.
        """
        raise _ray_not_yet()


def init_orca_context(
    cluster_mode: str = "local",
    cores: int | str = 2,
    memory: str = "2g",
    num_nodes: int = 1,
    init_ray_on_spark: bool = False,
    **kwargs: Any,
) -> SparkContext:
    """Start Spark, or take the one that runs already.

    Args:
        cluster_mode: `local`, `standalone` or `spark-submit`, in any case.
        cores: Task slots of each node; in local mode also `"*"` for as many as there are cores.
        memory: Memory of each node, such as `"10g"`.
        num_nodes: Executors; 1 in local mode.
        init_ray_on_spark: Start Ray as well; not available yet.
        **kwargs: In every mode `conf` (a dict of Spark properties, which win over ours),
            `spark_log_level` (`"WARN"`) and `redirect_spark_log` (True: what is logged below WARN
            goes to the file `spark.log`). In local and standalone mode `python_location`. In
            standalone mode `master` (`spark://host:port`; without it a cluster is started on this
            machine), `driver_memory`, `extra_python_lib` and `jars`. Others that are known and
            that the mode cannot use are named in the log.

    Returns:
        The Spark context. A Spark session exists as well.

    Raises:
        InputError: The mode or an argument is not one that can be used.
        NotYetError: The mode is known and not available yet.
        JavaError: No Java that Spark can run on was found.
        ClusterError: Spark did not start.

    Example::

        sc = init_orca_context(cores=4, memory="4g")
        ...
        stop_orca_context()
    """
    mode = str(cluster_mode).lower()
    starter = _STARTERS.get(mode)
    if starter is None:
        raise InputError(
            "cluster_mode to be one of " + ", ".join(_STARTERS),
            repr(cluster_mode),
            "Leave it out to run on this machine.",
        )
    _check_keywords(mode, kwargs)
    sizes = {"cores": cores, "memory": memory, "num_nodes": num_nodes}
    if mode == "spark-submit":
        say_idle(mode, [name for name, value in sizes.items() if value != _SIZES[name]])
    if init_ray_on_spark:
        raise _ray_not_yet()
    return starter(cores, memory, num_nodes, kwargs)


def stop_orca_context() -> None:
    """Stop Spark and whatever was started for it. When nothing runs, do nothing."""
    lifecycle.stop()


def _local(cores: int | str, memory: str, num_nodes: int, keywords: dict[str, Any]) -> SparkContext:
    if num_nodes != 1:
        raise ContractError(
            "num_nodes to be 1 in local mode",
            repr(num_nodes),
            'For several nodes use cluster_mode="standalone".',
        )
    return lifecycle.start_local(cores, memory, _options(keywords))


def _standalone(
    cores: int | str, memory: str, num_nodes: int, keywords: dict[str, Any]
) -> SparkContext:
    return lifecycle.start_standalone(
        num_nodes,
        require_count("cores", cores),
        memory,
        master=keywords.get("master"),
        driver_memory=keywords.get("driver_memory", "2g"),
        options=_options(keywords),
    )


def _spark_submit(
    cores: int | str, memory: str, num_nodes: int, keywords: dict[str, Any]
) -> SparkContext:
    return lifecycle.attach(_options(keywords))


def _yarn(cores: int | str, memory: str, num_nodes: int, keywords: dict[str, Any]) -> NoReturn:
    if not (keywords.get("hadoop_conf") or os.environ.get("HADOOP_CONF_DIR")):
        raise ContractError(
            "a Hadoop configuration for YARN",
            "neither hadoop_conf nor the environment variable HADOOP_CONF_DIR",
            "Name the folder that holds yarn-site.xml.",
        )
    raise lifecycle.not_yet("yarn")


def _k8s(cores: int | str, memory: str, num_nodes: int, keywords: dict[str, Any]) -> NoReturn:
    for name in ("master", "container_image"):
        if not keywords.get(name):
            raise ContractError(f"{name} in k8s mode", "none", f"Pass {name}=...")
    raise lifecycle.not_yet("k8s")


def _submit_only(
    cores: int | str, memory: str, num_nodes: int, keywords: dict[str, Any]
) -> NoReturn:
    raise InputError(
        "a mode whose driver is this process",
        "yarn-cluster or k8s-cluster, whose driver the cluster starts",
        'Run the program with spark-submit, and use cluster_mode="spark-submit" in it.',
    )


_Starter = Callable[[int | str, str, int, dict[str, Any]], "SparkContext"]
_STARTERS: dict[str, _Starter] = {
    "local": _local,
    "standalone": _standalone,
    "spark-submit": _spark_submit,
    "yarn": _yarn,
    "yarn-client": _yarn,
    "yarn-cluster": _submit_only,
    "k8s": _k8s,
    "k8s-client": _k8s,
    "k8s-cluster": _submit_only,
}


def _options(keywords: Mapping[str, Any]) -> StartOptions:
    names = (
        "conf",
        "extra_python_lib",
        "jars",
        "python_location",
        "redirect_spark_log",
        "spark_log_level",
    )
    return StartOptions(**{name: keywords[name] for name in names if name in keywords})


def _check_keywords(mode: str, keywords: Mapping[str, Any]) -> None:
    unknown = sorted(set(keywords) - _ALL_KEYWORDS)
    if unknown:
        warnings.warn(
            f"init_orca_context does not know {', '.join(unknown)}; known keywords are "
            f"{', '.join(sorted(_ALL_KEYWORDS))}.",
            stacklevel=3,
        )
    useful = _KEYWORDS.get(mode.removesuffix("-client"), _ALL_KEYWORDS)
    say_idle(mode, set(keywords) & _ALL_KEYWORDS - useful)


def _ray_not_yet() -> NotYetError:
    return NotYetError(
        "work that needs no Ray",
        "a wish for Ray on Spark",
        "This version does not start Ray; leave init_ray_on_spark out.",
    )
