"""XShards: any Python data in parts, on a cluster."""

from zoo.orca.data.xshards.spark_xshards import SparkXShards, XShards

__all__ = ["SparkXShards", "XShards"]
