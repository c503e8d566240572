"""When losses become too many, when ranks should change, which ranks hang."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from zoo.cluster.ranks.messages import Peer, Pulse
from zoo.orca.learn.recovery import Recovery

__all__ = ["Budget", "Growth", "Stalls"]

_log = logging.getLogger(__name__)

# What a change of ranks costs, before one was measured.
_GUESS_S = 0.5


@dataclass
class Budget:
    """Counts losses.

    Attributes:
        recovery: The limits.
        losses: When each happened.
    """

    recovery: Recovery
    losses: list[float] = field(default_factory=list)

    def spend(self, error: Exception) -> None:
        """Count a loss.

        Raises:
            Exception: `error`, when too many were counted before.
        """
        now = time.monotonic()
        self.losses = [t for t in self.losses if now - t < self.recovery.within_s]
        if len(self.losses) >= self.recovery.retries:
            if self.losses:
                error.add_note(
                    f"This was loss {len(self.losses) + 1} within {self.recovery.within_s:.0f} s; "
                    f"Recovery(retries={self.recovery.retries}) puts up with no more."
                )
            raise error
        self.losses.append(now)
        _log.warning(
            "going on after loss %d of at most %d: %s",
            len(self.losses), self.recovery.retries, error,
        )  # fmt: skip


class Growth:
    """Decides when a round should end because more ranks could take part.

    A change costs a moment; it is worth it when the round before it was long against that. One
    that brought nothing, because others took the slots, makes the next one wait longer.

    Args:
        share: Largest part of the time that changes may cost.
    """

    def __init__(self, share: float) -> None:
        self._share, self._cost_s = share, _GUESS_S
        self._asked: tuple[float, int] | None = None
        self._training_since: float | None = None
        self._patience = 1.0

    def training(self) -> None:
        """The ranks of a round take steps."""
        now = time.monotonic()
        if self._training_since is None and self._asked is not None:
            self._cost_s, self._asked = now - self._asked[0], None
        self._training_since = self._training_since or now

    def wants_change(self, ranks: int, could: int) -> bool:
        """Whether the round should end so that `could` instead of `ranks` take part."""
        since, now = self._training_since, time.monotonic()
        if since is None or now - since < self._patience * self._cost_s / self._share:
            return False
        _log.info("ending a round of %d ranks, for one of %d", ranks, could)
        self._asked = (now, ranks)
        return True

    def ended(self) -> None:
        """A round has ended."""
        self._training_since = None

    def begins(self, ranks: int) -> None:
        """A round begins with so many ranks."""
        if self._asked is None:
            return
        grew = ranks > self._asked[1]
        self._patience = 1.0 if grew else 2.0 * self._patience


class Stalls:
    """Names ranks that do one thing for very long.

    Args:
        limit_s: What very long is.
    """

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._said: dict[int, float] = {}

    def look(self, world: Sequence[Peer], pulses: Mapping[int, Pulse]) -> None:
        """Look at the last signs of life."""
        now = time.monotonic()
        for peer in world:
            facts = pulses[peer.rank].facts if peer.rank in pulses else {}
            long = facts.get("for_s", 0.0)
            if long < self._limit_s or facts.get("doing") == "waiting for other ranks":
                continue
            if now - self._said.get(peer.rank, -self._limit_s) < self._limit_s:
                continue
            self._said[peer.rank] = now
            _log.warning(
                "%s has been %s for %.0f s (epoch %s, step %s); the others wait for it",
                peer.where, facts["doing"], long, facts.get("epoch"), facts.get("step"),
            )  # fmt: skip
