"""What a fit puts up with when ranks are lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from zoo.errors import InputError

__all__ = ["KEPT", "Recovery"]

KEPT = 3
"""Newest snapshots of a fit that are kept, unless something else is asked for."""


@dataclass(frozen=True)
class Recovery:
    """How a fit goes on after ranks were lost, and how it takes in new ones.

    Errors of your own code are raised at once and never tried again.

    Attributes:
        retries: Losses of ranks that are put up with inside `within_s`; 0 ends at the first.
        within_s: Losses that lie further back do not count any more.
        hold_s: The driver takes a copy of the state about so often, to go back to when no rank
            survives; None takes none besides the snapshots.
        round_share: Largest part of the time that changes of ranks may cost.
        stall_s: A rank that does one thing for so long is named in the log.
        copies: Where ranks are on several hosts, the rows on each host's disk are copied to
            another while the model trains, so that a host may be lost with its disk.
        recomputed: Rows that are lost with all their copies are computed again by the query that
            made them. "exact" ends the fit when it then gives other rows, or the same in another
            order; "any" goes on with a warning, and some rows may be used twice in an epoch.
    """

    retries: int = 5
    within_s: float = 600.0
    hold_s: float | None = 60.0
    round_share: float = 0.02
    stall_s: float = 120.0
    copies: bool = True
    recomputed: Literal["exact", "any"] = "exact"

    def __post_init__(self) -> None:
        if isinstance(self.retries, bool) or not isinstance(self.retries, int) or self.retries < 0:
            raise InputError("retries of 0 or more", repr(self.retries), "Use 0 for none.")
        for name in ("within_s", "hold_s", "round_share", "stall_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} above 0", repr(value), "Correct it.")
        if not isinstance(self.copies, bool):
            raise InputError("copies as True or False", repr(self.copies), "Correct it.")
        if self.recomputed not in ("exact", "any"):
            raise InputError("recomputed as 'exact' or 'any'", repr(self.recomputed), "Correct it.")
