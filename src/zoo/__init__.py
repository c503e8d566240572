"""End-to-end AI pipelines on Spark: from raw files to a served model in one program.

The names of `zoo.common.nncontext` are also here. They are loaded on first use: `import zoo`
alone brings in neither Spark nor any framework.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoo.common.nncontext import (
        RDD,
        DataFrame,
        SparkConf,
        SparkContext,
        SQLContext,
        ZooContext,
        get_node_and_core_number,
        get_optimizer_version,
        getOrCreateSparkContext,
        init_nncontext,
        init_spark_conf,
        init_spark_on_k8s,
        init_spark_on_local,
        init_spark_on_yarn,
        init_spark_standalone,
        np,
        os,
        set_optimizer_version,
        stop_spark_standalone,
        sys,
        tempfile,
        warnings,
    )

__all__ = [
    "RDD",
    "DataFrame",
    "SQLContext",
    "SparkConf",
    "SparkContext",
    "ZooContext",
    "__version__",
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

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(importlib.import_module("zoo.common.nncontext"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
