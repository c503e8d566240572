"""Ask a running Spark what it is: where its executors are, how many, and how to reach them."""

from __future__ import annotations

import logging
import re
import socket
import time
from typing import TYPE_CHECKING

from zoo.cluster.session.ended import while_spark_runs
from zoo.errors import ClusterError, InputError

if TYPE_CHECKING:
    from pyspark import SparkContext

__all__ = [
    "LOOPBACK",
    "address_toward",
    "await_executors",
    "bind_address",
    "is_local",
    "is_local_master",
    "live_executors",
    "most_executors",
    "nodes_and_cores",
    "setting",
]

_log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
EXECUTORS_S = 60.0
_UNLIMITED = 1 << 20


def is_local_master(master: str) -> bool:
    """Whether tasks run inside the driver JVM with this master (`local-cluster` is another)."""
    return re.match(r"local(\[|$)", master) is not None


def is_local(sc: SparkContext) -> bool:
    """Whether tasks run inside the driver JVM."""
    return is_local_master(str(sc.master))


def setting(sc: SparkContext, name: str) -> str | None:
    """A property that is in force; None when it is not set."""
    # `getConf` copies them all from the JVM, one by one: 20 ms.
    with while_spark_runs(sc):
        return sc._conf.get(name)


def bind_address(sc: SparkContext) -> str:
    """The address on which the driver may open a port for its executors."""
    if is_local(sc):
        return LOOPBACK
    return setting(sc, "spark.driver.bindAddress") or setting(sc, "spark.driver.host") or LOOPBACK


def nodes_and_cores(sc: SparkContext) -> tuple[int, int]:
    """How many executors to expect, and the task slots of each."""
    master = str(sc.master)
    if is_local(sc):
        return 1, _local_slots(sc)
    virtual = re.match(r"local-cluster\[\s*(\d+)\s*,\s*(\d+)", master)
    if virtual:
        return int(virtual[1]), int(virtual[2])
    cores = int(setting(sc, "spark.executor.cores") or 0)
    total = int(setting(sc, "spark.cores.max") or 0)
    executors = int(setting(sc, "spark.executor.instances") or 0)
    executors = executors or (total // cores if cores else 0) or max(live_executors(sc), 1)
    return executors, cores or max((total or sc.defaultParallelism) // executors, 1)


def _local_slots(sc: SparkContext) -> int:
    match = re.match(r"local\[\s*([\d*]+)", str(sc.master))
    if match is None:
        return 1
    if match[1] == "*":
        with while_spark_runs(sc):
            return int(sc._jvm.java.lang.Runtime.getRuntime().availableProcessors())  # type: ignore[union-attr]
    return int(match[1])


def live_executors(sc: SparkContext) -> int:
    """How many executors are there now; one in local mode."""
    # The driver is one of the block managers that this counts.
    with while_spark_runs(sc):
        return 1 if is_local(sc) else int(sc._jsc.sc().getExecutorMemoryStatus().size()) - 1


def most_executors(sc: SparkContext) -> int | None:
    """How many executors dynamic allocation may start; None where it is off."""
    if is_local(sc) or setting(sc, "spark.dynamicAllocation.enabled") != "true":
        return None
    return int(setting(sc, "spark.dynamicAllocation.maxExecutors") or _UNLIMITED)


def await_executors(sc: SparkContext, wanted: int) -> None:
    """Wait until so many executors are there; when they do not come, warn and go on."""
    if setting(sc, "spark.dynamicAllocation.enabled") == "true":
        return  # they come when there is work
    deadline = time.monotonic() + EXECUTORS_S
    while (found := live_executors(sc)) < wanted:
        if time.monotonic() > deadline:
            _log.warning(
                "Only %d of %d executors came within %.0f s. Does the cluster have enough free "
                "cores and memory? Jobs run on those that are there.",
                found,
                wanted,
                EXECUTORS_S,
            )
            return
        time.sleep(0.1)


def address_toward(master: str) -> str:
    """The address of this machine that a master can reach.

    Args:
        master: `spark://host:port`, or several hosts with commas between.
    """
    match = re.match(r"spark://\[?([^/,\]]+?)\]?:(\d+)", master)
    if match is None:
        raise InputError(
            "master to be spark://host:port",
            repr(master),
            "Leave it out to start a cluster on this machine.",
        )
    try:
        found = socket.getaddrinfo(match[1], int(match[2]), type=socket.SOCK_DGRAM)
        family, kind, protocol, _, place = found[0]
        # Connecting a datagram socket sends nothing: it only asks for the route.
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(place)
            return str(probe.getsockname()[0])
    except OSError as exc:
        raise ClusterError(
            f"a way to the master {master}", str(exc), "Check its name and the network."
        ) from exc
