"""The daemon that forks Spark's Python workers, each executor a host of its own.

Executors of one machine share its memory and disk, and host keys say so. Here they do not:
`spark.python.daemon.module=trials.own_host`.
"""

import os
import zlib

from pyspark.daemon import manager

from zoo.cluster import host

__all__: list[str] = []

_real = host.host_key


def _own_host() -> str:
    return f"{_real()}/{zlib.crc32(os.environ['SPARK_LOCAL_DIRS'].encode())}"


if __name__ == "__main__":
    # Before anything else is imported: it takes the function by its name.
    host.host_key = _own_host  # type: ignore[assignment]
    manager()
