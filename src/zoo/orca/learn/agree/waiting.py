"""How a rank waits for another: a short spin, then naps, and never for ever."""

from __future__ import annotations

import os
import time

from zoo.cluster.ranks.member import Member

__all__ = ["await_word", "pause"]

# While all have a core, another turn of the processor comes at once. Where ranks share cores, and
# where gloo's threads do the work, whoever yields is soon back and takes it from them: a nap.
_YIELD_S, _SHORT_NAP_S, _NAP_S, _LONG_NAP_S = 2e-3, 20e-6, 100e-6, 1e-3
_WORD_S = 5.0


def await_word(member: Member) -> None:
    """Wait a moment for the driver to say that the round is over.

    Raises:
        Stopped: It said so.
    """
    # A neighbour's end shows here first; the driver knows who and why.
    until = time.monotonic() + _WORD_S
    while time.monotonic() < until:
        member.check()
        time.sleep(_LONG_NAP_S)


def pause(member: Member, since: float, *, crowded: bool) -> None:
    """Let others run: for a moment at once again, later after a nap.

    Args:
        member: This rank; raises when the round is over.
        since: When the wait began, by the performance counter.
        crowded: Others need this core to get ahead.
    """
    waited = time.perf_counter() - since
    if waited < _YIELD_S:
        if crowded:
            time.sleep(_SHORT_NAP_S)
        else:
            os.sched_yield()
        return
    member.check()
    time.sleep(_NAP_S if waited < 1.0 else _LONG_NAP_S)
