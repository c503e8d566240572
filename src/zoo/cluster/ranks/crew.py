"""How many ranks."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.cluster.ranks.launcher import Launcher

__all__ = ["Crew"]


@dataclass(frozen=True)
class Crew:
    """How many ranks a round may have: what was asked for, and what a launcher makes of it.

    Attributes:
        least: Fewer do not begin.
        most: More are not needed; None for all that the launcher has places for.
        per_executor: Most ranks of one executor.
        timeout_s: Longest wait for the least.
    """

    least: int = 1
    most: int | None = None
    per_executor: int = 1
    timeout_s: float = 120.0

    def ranks(self, launcher: Launcher) -> int:
        """Most ranks with this launcher."""
        return self.most or launcher.places()[0] * self.per_executor

    def threads(self, launcher: Launcher) -> int:
        """Threads of each rank: the executor's cores, shared by its ranks."""
        return max(1, launcher.places()[1] // self.per_executor)
