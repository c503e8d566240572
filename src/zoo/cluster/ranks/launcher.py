"""What starts ranks: the protocol of launchers, and the table of those that there are.

A launcher knows how to start tasks somewhere. Each task attends a meeting
(`zoo.cluster.ranks.attend`), which makes ranks of tasks; a round (`zoo.cluster.ranks.round`)
watches over both.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol

from zoo.cluster.ranks.member import Member
from zoo.cluster.ranks.messages import Invitation

__all__ = ["LAUNCHERS", "Body", "Job", "Launcher", "launcher_for"]

Body = Callable[[Member], tuple[bytes, dict[str, Any]]]
"""What a rank runs. It returns the rank's result and small facts about it."""

LAUNCHERS = {
    "local": "zoo.cluster.ranks.local:LocalLauncher",
    "spark": "zoo.cluster.ranks.spark:SparkLauncher",
}


class Job(Protocol):
    """Tasks that a launcher started."""

    def finished(self) -> bool:
        """Whether no task runs any more."""

    def running(self) -> int:
        """Tasks that have a place to run, whether or not their Python has started."""

    def error(self) -> BaseException | None:
        """Why tasks could not run; None while nothing is known to be wrong."""

    def ended_by(self, pid: int) -> str:
        """The signal that ended the process of a rank, such as `SIGKILL`.

        Empty where that is not known, or the process lives on.
        """

    def end(self, grace_s: float) -> None:
        """Wait for the tasks, at most so long, then end them."""


class Launcher(Protocol):
    """Starts tasks in one kind of place."""

    @property
    def address(self) -> str:
        """Where the driver listens for them."""

    @property
    def reached_at(self) -> str:
        """Address under which they find the driver."""

    def places(self) -> tuple[int, int]:
        """Executors, and cores of each."""

    def alive(self) -> int:
        """Executors that are there now."""

    def require(self, ranks: int) -> None:
        """Raise `SlotsError` when so many ranks can never run at once."""

    def hindered(self) -> str:
        """What keeps tasks from starting, for people; empty when nothing is known."""

    def start(self, invitation: Invitation, body: bytes, ranks: int) -> Job:
        """Start at least `ranks` tasks that `attend` the meeting.

        Best in the main threads of their processes: elsewhere a rank that does not see the end of
        the round cannot be interrupted, and the launcher has to end its process.
        """


def launcher_for(name: str) -> Launcher:
    """The launcher of that name: `local` or `spark`."""
    module, _, attribute = LAUNCHERS[name].partition(":")
    made: Launcher = getattr(importlib.import_module(module), attribute)()
    return made
