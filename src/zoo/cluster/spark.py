"""Ranks as the tasks of an ordinary Spark job.

No barrier stage: barrier refuses dynamic allocation. The job has a task for every slot, the
meeting keeps the ones that spread best over the executors, and the others end at once, which
leaves the executor's other cores to the threads of its rank.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterable

from pyspark import InheritableThread, SparkContext, TaskContext

from zoo.cluster.host import host_key
from zoo.cluster.launch import Job, attend
from zoo.cluster.meeting import Invitation
from zoo.cluster.session import active_session
from zoo.cluster.topology import bind_address, is_local, nodes_and_cores
from zoo.errors import ClusterError, SlotsError

__all__ = ["SparkLauncher"]

_CANCEL_S = 10.0


class SparkLauncher:
    """Starts ranks inside the executors of the active Spark session."""

    def __init__(self) -> None:
        self._context: SparkContext = active_session().sparkContext

    @property
    def address(self) -> str:
        """Where the driver listens for its executors."""
        return bind_address(self._context)

    @property
    def reached_at(self) -> str:
        """The host that Spark tells its executors, where that is not the address to listen on."""
        if is_local(self._context):
            return self.address
        return self._context.getConf().get("spark.driver.host") or self.address

    def places(self) -> tuple[int, int]:
        """Executors, and cores of each."""
        return nodes_and_cores(self._context)

    def require(self, ranks: int) -> None:
        """Refuse more ranks than the cluster has slots."""
        executors, slots = self._slots()
        if ranks > executors * slots:
            raise SlotsError(
                f"{ranks} task slots, one for each rank",
                f"{executors} executors of {slots} slots",
                "Lower workers_per_node, or start with more cores or nodes.",
            )

    def start(self, invitation: Invitation, body: bytes, ranks: int) -> Job:
        """Run one job whose tasks attend the meeting."""
        executors, slots = self._slots()
        tasks = ranks if executors == 1 else executors * slots
        return _SparkJob(self._context, invitation, body, tasks)

    def _slots(self) -> tuple[int, int]:
        executors, cores = self.places()
        return executors, cores // int(self._context.getConf().get("spark.task.cpus") or 1)


class _SparkJob:
    def __init__(
        self, context: SparkContext, invitation: Invitation, body: bytes, tasks: int
    ) -> None:
        self._context, self._group = context, f"zoo-ranks-{uuid.uuid4().hex[:12]}"
        self._error: BaseException | None = None
        self._ended = False
        blob = context.broadcast(body)

        def rank(_: Iterable[int]) -> Iterable[str]:
            task = TaskContext.get()
            assert task is not None
            # All workers of an executor are children of its one daemon.
            executor = f"{host_key()}/{os.getppid()}"
            unreached = attend(invitation, executor, blob.value, task=task.partitionId())
            return [unreached] if unreached else []

        def run() -> None:
            context.setJobGroup(self._group, "zoo: training ranks", interruptOnCancel=True)
            try:
                words = context.parallelize(range(tasks), tasks).mapPartitions(rank).collect()
                self._error = _unreached(words[0]) if words else None
            except Exception as exc:  # noqa: BLE001 - kept for whoever waits for the job
                self._error = None if self._ended else _explained(exc)
            finally:
                blob.destroy()

        self._thread: threading.Thread = InheritableThread(target=run, name=self._group)
        self._thread.daemon = True
        self._thread.start()

    def finished(self) -> bool:
        """Whether the job is over."""
        return not self._thread.is_alive()

    def error(self) -> BaseException | None:
        """Why Spark failed the job."""
        return self._error

    def end(self, grace_s: float) -> None:
        """Wait for the tasks, then cancel the job; Spark ends their Python workers."""
        self._thread.join(grace_s)
        if self._thread.is_alive():
            self._ended = True
            self._context.cancelJobGroup(self._group)
            self._thread.join(_CANCEL_S)


def _unreached(why: str) -> ClusterError:
    return ClusterError(
        "executors that reach the driver", why,
        "Open the driver's ports to them, or set spark.driver.host to an address they know.",
    )  # fmt: skip


def _explained(error: Exception) -> BaseException:
    text = str(error)
    if "No module named" in text:
        line = next(part for part in text.splitlines() if "No module named" in part)
        return ClusterError(
            "the same Python packages on executors as on the driver", line.strip(),
            "Install them there, or ship the environment (spark.archives, --py-files).",
        )  # fmt: skip
    return error
