"""Data: frames become tensors, and any Python data becomes shards on a cluster.

Names are loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.orca.data.elastic_search import elastic_search
    from zoo.orca.data.xshards.shared_value import SharedValue
    from zoo.orca.data.xshards.spark_xshards import SparkXShards, XShards

__all__ = ["SharedValue", "SparkXShards", "XShards", "elastic_search"]

_HOMES = {
    "SharedValue": "xshards.shared_value",
    "SparkXShards": "xshards",
    "XShards": "xshards",
    "elastic_search": "elastic_search",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
