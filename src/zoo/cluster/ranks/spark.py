"""Ranks as the tasks of an ordinary Spark job.

No barrier stage: barrier refuses dynamic allocation. The job has a task for every slot, the
meeting keeps the ones that spread best over the executors, and the others end at once, which
leaves the executor's other cores to the threads of its rank.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Iterable

from pyspark import InheritableThread, SparkContext, TaskContext

from zoo.cluster.host import host_key
from zoo.cluster.ranks.attend import attend
from zoo.cluster.ranks.launcher import Job
from zoo.cluster.ranks.messages import Invitation
from zoo.cluster.session.ended import end_of, while_spark_runs
from zoo.cluster.session.lifecycle import active_session
from zoo.cluster.session.topology import (
    bind_address,
    is_local,
    live_executors,
    most_executors,
    nodes_and_cores,
    setting,
)
from zoo.errors import ClusterError, RankLostError, SlotsError

__all__ = ["SparkLauncher"]

_CANCEL_S = 10.0
# How Spark says that a task ended with its process and not by itself.
_LOSSES = ("Python worker exited unexpectedly", "ExecutorLostFailure", "Python worker failed to")
# How it says that it uses no executor any more, because tasks failed there.
_EXCLUDED = "excludeOnFailure"
_NAMED = 5


class SparkLauncher:
    """Starts ranks inside the executors of the active Spark session."""

    def __init__(self) -> None:
        self._context: SparkContext = active_session().sparkContext
        self._most_executors = most_executors(self._context)

    @property
    def address(self) -> str:
        """Where the driver listens for its executors."""
        with while_spark_runs(self._context):
            return bind_address(self._context)

    @property
    def reached_at(self) -> str:
        """The host that Spark tells its executors, where that is not the address to listen on."""
        if is_local(self._context):
            return self.address
        with while_spark_runs(self._context):
            return setting(self._context, "spark.driver.host") or self.address

    def places(self) -> tuple[int, int]:
        """Executors, and cores of each."""
        with while_spark_runs(self._context):
            return nodes_and_cores(self._context)

    def require(self, ranks: int) -> None:
        """Refuse more ranks than the cluster has slots."""
        executors, slots = self._slots()
        if self._most_executors is not None:
            executors = max(executors, self._most_executors)
        if ranks > executors * slots:
            raise SlotsError(
                f"{ranks} task slots, one for each rank",
                f"{executors} executors of {slots} slots",
                "Lower workers_per_node, or start with more cores or nodes.",
            )

    def alive(self) -> int:
        """Executors that Spark knows to be there."""
        with while_spark_runs(self._context):
            return live_executors(self._context)

    def hindered(self) -> str:
        """Executors that Spark does not use any more, because tasks failed there."""
        with while_spark_runs(self._context):
            found = self._context._jsc.sc().statusStore().executorList(True)
            held = [found.apply(k) for k in range(found.size())]
            names = [f"{e.id()} on {e.hostPort()}" for e in held if e.isExcluded()]
        if not names:
            return ""
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        shown = ", ".join(names[:_NAMED])
        return f"Spark has excluded executors after failures: {shown}{more}; see spark.{_EXCLUDED}"

    def start(self, invitation: Invitation, body: bytes, ranks: int) -> Job:
        """Run tasks that attend the meeting: more than ranks, so that these can be spread."""
        executors, slots = self._slots()
        tasks = ranks if executors == 1 else max(ranks, executors * slots)
        if self._most_executors is not None:
            # Spark starts executors for tasks that wait: there must be some, wherever the first
            # ones find room.
            tasks = max(tasks, min(ranks, self._most_executors) * slots)
        with while_spark_runs(self._context):
            return _SparkJob(self._context, invitation, body, tasks)

    def _slots(self) -> tuple[int, int]:
        executors, cores = self.places()
        with while_spark_runs(self._context):
            return executors, cores // int(setting(self._context, "spark.task.cpus") or 1)


class _SparkJob:
    """The tasks of a round.

    One Spark job, whose lost tasks Spark starts again: they are the first to offer themselves for
    the next round. In local mode Spark ends a job at the first task that is lost, survivors
    included; there every task is a job of its own.
    """

    def __init__(
        self, context: SparkContext, invitation: Invitation, body: bytes, tasks: int
    ) -> None:
        self._context, self._group = context, f"zoo-ranks-{uuid.uuid4().hex[:12]}"
        self._errors: list[BaseException] = []
        self._ended = False
        self._blob = context.broadcast(body)
        blob = self._blob

        def rank(_: Iterable[int]) -> Iterable[str]:
            task = TaskContext.get()
            assert task is not None
            # All workers of an executor are children of its one daemon.
            executor = f"{host_key()}/{os.getppid()}"
            gpus = task.resources().get("gpu")
            unreached = attend(
                invitation,
                executor,
                blob.value,
                task=task.partitionId(),
                devices=gpus.addresses if gpus is not None else (),
            )
            return [unreached] if unreached else []

        rows = context.parallelize(range(tasks), tasks)
        alone = is_local(context) and tasks > 1
        shares = [[k] for k in range(tasks)] if alone else [list(range(tasks))]

        def run(partitions: list[int]) -> None:
            context.setJobGroup(self._group, "zoo: training ranks", interruptOnCancel=True)
            try:
                words = context.runJob(rows, rank, partitions)
                if words:
                    self._errors.append(_unreached(words[0]))
            except Exception as exc:  # noqa: BLE001 - kept for whoever waits for the job
                if not self._ended:
                    self._errors.append(_explained(exc, context))

        self._threads: list[threading.Thread] = [
            InheritableThread(target=run, args=(share,), name=f"{self._group}-{share[0]}")
            for share in shares
        ]
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    def finished(self) -> bool:
        """Whether no task runs any more."""
        return not any(thread.is_alive() for thread in self._threads)

    def running(self) -> int:
        """Tasks that Spark has given a slot."""
        count = 0
        with while_spark_runs(self._context):
            tracker = self._context.statusTracker()
            for number in tracker.getJobIdsForGroup(self._group):
                job = tracker.getJobInfo(number)
                stages = [tracker.getStageInfo(stage) for stage in job.stageIds] if job else []
                count += sum(stage.numActiveTasks for stage in stages if stage)
        return count

    def error(self) -> BaseException | None:
        """Why Spark failed a task."""
        return self._errors[0] if self._errors else None

    def ended_by(self, pid: int) -> str:
        """Not known: the tasks' processes are children of Spark's."""
        return ""

    def end(self, grace_s: float) -> None:
        """Wait for the tasks, then cancel them; Spark ends their Python workers."""
        self._join(grace_s)
        self._ended = True
        # A Spark that is gone has taken its tasks along, and why it went is told elsewhere.
        with contextlib.suppress(ClusterError), while_spark_runs(self._context):
            if not self.finished():
                self._context.cancelJobGroup(self._group)
                self._join(_CANCEL_S)
            self._blob.destroy()

    def _join(self, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))


def _unreached(why: str) -> ClusterError:
    return ClusterError(
        "executors that reach the driver", why,
        "Open the driver's ports to them, or set spark.driver.host to an address they know.",
    )  # fmt: skip


def _explained(error: Exception, context: SparkContext) -> BaseException:
    text = str(error)
    if (ended := end_of(context)) is not None:
        return ended
    if _EXCLUDED in text:
        line = next(part for part in text.splitlines() if _EXCLUDED in part)
        return SlotsError(
            "executors that Spark uses", line.strip(),
            "Tasks failed there before: look at their logs.",
        )  # fmt: skip
    if "No module named" in text:
        line = next(part for part in text.splitlines() if "No module named" in part)
        return ClusterError(
            "the same Python packages on executors as on the driver", line.strip(),
            "Install them there, or ship the environment (spark.archives, --py-files).",
        )  # fmt: skip
    if any(sign in text for sign in _LOSSES):
        line = next(part for part in text.splitlines() if any(s in part for s in _LOSSES))
        return RankLostError(
            "task processes that live", line.strip(),
            "They were killed, or ran out of memory: look at the executor's log.",
        )  # fmt: skip
    return error
