"""The local launcher for tests: ranks are forked from a process that has the frameworks loaded.

A rank that starts as a Python of its own loads torch first: two seconds of one core, for each rank
of each round. Only how ranks start differs; the tests of `zoo.cluster.ranks.local` are about that.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import time

from zoo.cluster.ranks.attend import attend
from zoo.cluster.ranks.launcher import Job
from zoo.cluster.ranks.local import LocalLauncher
from zoo.cluster.ranks.messages import Invitation

__all__ = ["WarmLauncher", "warm_up"]

_START = multiprocessing.get_context("forkserver")
_START.set_forkserver_preload(
    [
        "zoo.orca.learn.pytorch.framework",
        "zoo.orca.learn.graph.framework",
        "zoo.orca.learn.keras.framework",
        "zoo.orca.learn.keras.backends.tensorflow",
        "zoo.orca.learn.rank.body",
    ]
)
_NUMBER = itertools.count()


def warm_up() -> None:
    """Have the process ready from which ranks are forked."""
    first = _START.Process(target=int)
    first.start()
    first.join()


class WarmLauncher(LocalLauncher):
    """Starts each rank as a fork.

    Args:
        hosts: Where the ranks say that they are, in turn; none for the truth.
    """

    def __init__(self, *hosts: str) -> None:
        self._hosts = hosts

    def start(self, invitation: Invitation, body: bytes, ranks: int) -> Job:
        """Fork them."""
        hosts = itertools.cycle(self._hosts or (None,))
        return _Forks(invitation, body, list(itertools.islice(hosts, ranks)))


def _attend(
    invitation: Invitation, name: str, body: bytes, host: str | None, environment: dict[str, str]
) -> None:
    # Of this moment, and not of when the process was started from which this one was forked.
    os.environ.clear()
    os.environ.update(environment)
    attend(invitation, name, body, host=host)


class _Forks:
    def __init__(self, invitation: Invitation, body: bytes, hosts: list[str | None]) -> None:
        self._children = [
            _START.Process(
                target=_attend,
                args=(invitation, f"process-{next(_NUMBER)}", body, host, dict(os.environ)),
                daemon=True,
            )
            for host in hosts
        ]
        for child in self._children:
            child.start()

    def finished(self) -> bool:
        return not any(child.is_alive() for child in self._children)

    def running(self) -> int:
        return sum(child.is_alive() for child in self._children)

    def error(self) -> BaseException | None:
        return None

    def ended_by(self, pid: int) -> str:
        child = next((c for c in self._children if c.pid == pid), None)
        if child is None:
            return ""
        child.join(1.0)
        return signal.Signals(-child.exitcode).name if (child.exitcode or 0) < 0 else ""

    def end(self, grace_s: float) -> None:
        deadline = time.monotonic() + grace_s
        for child in self._children:
            child.join(max(0.0, deadline - time.monotonic()))
            child.kill()
            child.join()
