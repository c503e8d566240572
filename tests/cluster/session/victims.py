"""For programs that are run by the tests here: Spark at work, and what is left of it."""

import contextlib
import os
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from zoo.cluster.session import lifecycle
from zoo.cluster.session.ended import while_spark_runs
from zoo.errors import ClusterError

SETTLE_S = 15.0


def runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def family() -> list[psutil.Process]:
    """All that this process started, and what these started."""
    return [one for one in psutil.Process().children(recursive=True) if runs(one)]


def left(processes: list[psutil.Process], folder: str) -> list[str]:
    """What is still there when all had time to end."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        found = [str(one) for one in processes if runs(one)]
        found += [folder] if Path(folder).exists() else []
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def command(process: psutil.Process) -> str:
    """Its command line; nothing of one that has just ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def ports(processes: list[psutil.Process]) -> list[str]:
    """The addresses on which these listen, one for each port."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            places = process.net_connections() if runs(process) else []
            found += [place.laddr.ip for place in places if place.status == psutil.CONN_LISTEN]
    return found


class AtWork:
    """A job that would run for minutes, in a thread of its own."""

    def __init__(self, context: Any) -> None:
        self.context = context
        self.told = ""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        status = context.statusTracker()
        while not any(
            stage.numActiveTasks
            for stage in map(status.getStageInfo, status.getActiveStageIds())
            if stage
        ):
            time.sleep(0.05)
        self.family = family()
        self.folder = str(lifecycle.session_dir())

    def _run(self) -> None:
        try:
            with while_spark_runs(self.context):
                self.context.parallelize(range(4), 2).map(lambda _: time.sleep(600)).count()
        except ClusterError as exc:
            self.told = str(exc)

    def after(self, end: Any) -> str:
        """What the thread is told when this ends its Spark."""
        end()
        self._thread.join(30)
        return self.told


def kill_jvm() -> None:
    driver = lifecycle._session.driver
    assert driver is not None
    os.kill(driver.pid, 9)


def answer(url: str, data: bytes | None = None) -> int:
    """The status of an HTTP request."""
    try:
        with urllib.request.urlopen(url, data=data, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as exc:
        return exc.code
