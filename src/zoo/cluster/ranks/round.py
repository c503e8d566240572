"""The driver's side of one round: tasks become ranks, work, and end for one of three reasons.

A round ends when all ranks have done their work; when all of them agreed to leave because more
ranks could take part; or when a rank was lost, and then whoever survived hands over what it holds.
Errors of the body itself are raised, the first one on top.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from zoo.cluster.ranks.carried import said
from zoo.cluster.ranks.crew import Crew
from zoo.cluster.ranks.launcher import Job, Launcher
from zoo.cluster.ranks.meeting import Meeting
from zoo.cluster.ranks.messages import REPORTS, Kind, Message, Peer
from zoo.cluster.ranks.roster import Roster
from zoo.cluster.ranks.timing import Timing
from zoo.errors import RankLostError, SlotsError

__all__ = ["Crew", "Ending", "Round", "RoundHooks", "launch"]

_log = logging.getLogger(__name__)


class RoundHooks:
    """What somebody does while a round runs; the base does nothing."""

    def on_world(self, peers: Sequence[Peer]) -> None:
        """The ranks are known and have not begun; may raise to refuse them."""

    def on_report(self, message: Message) -> None:
        """A rank has reported something, or handed over a state."""

    def on_pulse(self, meeting: Meeting) -> None:
        """Now and then: a moment to look at the last signs of life."""

    def wants_change(self, ranks: int, could: int) -> bool:
        """Whether the round should end because there could be more ranks than there are."""
        return False

    def wants_end(self) -> bool:
        """Whether the ranks should leave at the next step, whatever is left to do."""
        return False


@dataclass(frozen=True)
class Ending:
    """How a round ended.

    Attributes:
        world: Its ranks.
        results: What they handed back, in order of rank; empty after a loss.
        loss: Why the round was cut short; None when it was not.
        kept: The newest state that a survivor handed over, or None.
        left: The ranks agreed to leave.
    """

    world: tuple[Peer, ...] = ()
    results: tuple[Message, ...] = ()
    loss: Exception | None = None
    kept: Message | None = None
    left: bool = False


class Round:
    """One round.

    Args:
        body: A pickled `Body`.
        launcher: Where to run.
        crew: How many ranks.
        hooks: Sees what happens, and may end the round.
        keeps_state: After a loss, ask the survivors for the newest state.
        timing: How long to wait for what.
    """

    def __init__(
        self,
        body: bytes,
        launcher: Launcher,
        crew: Crew,
        hooks: RoundHooks | None = None,
        *,
        keeps_state: bool = False,
        timing: Timing = Timing(),  # noqa: B008 - it is frozen
    ) -> None:
        self._body, self._launcher, self._crew = body, launcher, crew
        self._hooks, self._keeps_state, self._timing = hooks or RoundHooks(), keeps_state, timing
        self._most = crew.ranks(launcher)
        self._least = min(crew.least, self._most)
        # Executors that have been there for a while, and since when there are more.
        self._settled, self._more_since = 0, time.monotonic()

    def run(self) -> Ending:
        """Run it to its end.

        Raises:
            SlotsError: Too few slots for the least ranks.
            RankLostError: A task was lost before all ranks were there.
            Exception: The first error that a rank hit, as its own type.
        """
        launcher, crew, timing = self._launcher, self._crew, self._timing
        launcher.require(max(self._least, crew.per_executor))
        where, at = launcher.address, launcher.reached_at
        with Meeting(where, self._most, crew.per_executor, reached_at=at, timing=timing) as meeting:
            job = launcher.start(meeting.invitation, self._body, self._most)
            try:
                roster = Roster(meeting, job, self._gather(meeting, job), timing)
                self._hooks.on_world(roster.world)
                ending = self._follow(roster)
            except BaseException as exc:
                meeting.stop(said(exc))
                job.end(grace_s=timing.unwind_s)
                raise
            meeting.stop("the round is over")
            self._await_left(meeting, job, ending)
        return ending

    def _gather(self, meeting: Meeting, job: Job) -> tuple[Peer, ...]:
        """Wait for the ranks: all that can be, or after a while enough of them."""
        crew, timing, start = self._crew, self._timing, time.monotonic()
        say_at = start + timing.say_after_s
        while not (world := meeting.await_world(timing.tick_s / 2)):
            now = time.monotonic()
            if (error := job.error()) is not None:
                raise error
            if job.finished() and not meeting.world:
                raise RankLostError(
                    "ranks that meet", "tasks that ended before", "Look at the executors' logs."
                )
            here = meeting.arrived
            could = min(self._most, max(1, self._launcher.alive()) * crew.per_executor)
            if here >= self._least and (here >= could or now - start > timing.patience_s):
                meeting.settle()
                continue
            if now - start > crew.timeout_s:
                raise self._too_few(here)
            if now > say_at:
                say_at = now + timing.say_every_s
                self._say_waiting(job, here, now - start)
        if len(world) < self._most:
            _log.info("beginning with %d of at most %d ranks", len(world), self._most)
        return world

    def _say_waiting(self, job: Job, here: int, waited_s: float) -> None:
        """Tell what ranks wait for: slots, or Python, which takes seconds to start."""
        hindered, running = self._launcher.hindered(), job.running()
        if running >= self._most and not hindered:
            late = waited_s > self._timing.say_every_s
            _log.log(
                logging.WARNING if late else logging.INFO,
                "Python is starting for %d ranks, %d are here", self._most, here,
            )  # fmt: skip
            return
        _log.warning(
            "waiting for task slots: %d of %d ranks are here%s",
            here, self._most, f"; {hindered}" if hindered else "",
        )  # fmt: skip

    def _too_few(self, here: int) -> SlotsError:
        hindered = self._launcher.hindered()
        return SlotsError(
            f"{self._least} free task slots within {self._crew.timeout_s:.0f} s",
            f"{here} ({hindered})" if hindered else f"{here}",
            "Wait for other jobs to end, start more executors, or ask for fewer ranks "
            "(workers_per_node, min_workers, num_nodes).",
        )

    def _follow(self, roster: Roster) -> Ending:
        """Hear the ranks until all are done, or one is lost."""
        asked, hooks = False, self._hooks
        for message in roster.messages():
            if message is None:
                hooks.on_pulse(roster.meeting)
                if not asked and (hooks.wants_end() or self._could_change(roster)):
                    asked = True
                    roster.meeting.ask_to_leave()
            elif message.kind in REPORTS:
                hooks.on_report(message)
            elif message.kind is Kind.ERROR:
                roster.error(message)
            if roster.lost and not roster.finished:
                if roster.last is not None:
                    # The state is safe, and whoever waits for the lost rank may end as well.
                    roster.stop("a rank was lost after the last step")
                    continue
                kept = roster.hand_over(hooks.on_report) if self._keeps_state else None
                return Ending(roster.world, loss=roster.loss(), kept=kept)
            if roster.finished:
                break
        left = any(r.body.get("left") for r in roster.results.values())
        return Ending(roster.world, roster.ordered(), left=left)

    def _could_change(self, roster: Roster) -> bool:
        ranks = len(roster.world)
        if ranks >= self._most:
            return False
        waiting = ranks + roster.meeting.waiting
        could = min(self._most, max(waiting, self._settled_executors() * self._crew.per_executor))
        return could > ranks and self._hooks.wants_change(ranks, could)

    def _settled_executors(self) -> int:
        """Executors that are not just beginning: to end the round for these would be too soon."""
        alive, now = self._launcher.alive(), time.monotonic()
        if alive <= self._settled or now - self._more_since > self._timing.arrive_s:
            self._settled, self._more_since = alive, now
        return self._settled

    def _await_left(self, meeting: Meeting, job: Job, ending: Ending) -> None:
        """Wait for the tasks that are connected, then end the job: others may never start."""
        timing, over = self._timing, ending.loss is None and not ending.left
        wait_s = timing.exit_s if ending.loss is None else timing.unwind_s
        deadline = time.monotonic() + wait_s
        while meeting.connected and time.monotonic() < deadline and not job.finished():
            time.sleep(0.01)
        # Who has not gone by now has to be ended.
        job.end(grace_s=timing.last_s if meeting.connected or over else timing.again_s)


def launch(
    body: bytes,
    *,
    launcher: Launcher,
    ranks: int,
    per_executor: int,
    hooks: RoundHooks | None = None,
    timeout_s: float = 120.0,
    timing: Timing = Timing(),  # noqa: B008 - it is frozen
) -> list[Message]:
    """Run `body` on all ranks, all or none, and give back their results in order of rank.

    Args:
        body: A pickled `Body`.
        launcher: Where to run.
        ranks: How many.
        per_executor: Most ranks of one executor.
        hooks: Sees what happens, and may refuse the ranks there are.
        timeout_s: Longest wait for all ranks to be there.
        timing: How long to wait for what.

    Raises:
        SlotsError: Too few slots for the ranks.
        RankLostError: A rank was lost.
        RankError: A rank failed with an error that cannot travel.
        Exception: The first error that a rank hit, as its own type.
    """
    crew = Crew(ranks, ranks, per_executor, timeout_s)
    end = Round(body, launcher, crew, hooks, timing=timing).run()
    if end.loss is not None:
        raise end.loss
    return list(end.results)
