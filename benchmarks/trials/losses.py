"""Losses at the moments that are hardest for a fit: while a state is handed over, and in a row."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trials.kinds import await_step, moment, ready, usual_work
from trials.marks import Marks
from trials.stage import Fault, Stage, Trial
from trials.victims import await_true, executors, kill, workers_of
from zoo.cluster.ranks.carried import pickled
from zoo.cluster.ranks.local import LocalLauncher
from zoo.cluster.ranks.member import Member
from zoo.cluster.ranks.messages import Kind, Stopped
from zoo.cluster.ranks.round import Crew, Round
from zoo.orca.learn.callback import Callback, Run

__all__ = ["KINDS"]

_BIG_BYTES, _BIG_BYTES_PER_S = 2_000_000_000, 50e6
_AGAIN_S, _TIMES = 5.0, 5


class SlowSocket:
    """A socket that sends only so much in a second.

    Args:
        sock: The real one.
        bytes_per_s: How much.
        at_once: Largest piece.
    """

    def __init__(self, sock: Any, bytes_per_s: float, at_once: int) -> None:
        self._sock, self._rate, self._at_once = sock, bytes_per_s, at_once

    def sendall(self, data: memoryview) -> None:
        """Send, slowly."""
        for start in range(0, len(data), self._at_once):
            piece = data[start : start + self._at_once]
            time.sleep(len(piece) / self._rate)
            self._sock.sendall(piece)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def _slow_down(member: Member, bytes_per_s: float, at_once: int = 1 << 18) -> None:
    link: Any = member._link
    link._sock = SlowSocket(link._sock, bytes_per_s, at_once)


def _member(run: Run) -> Member:
    member: Member = run._observer.member  # type: ignore[attr-defined]
    return member


def _first(path: str) -> bool:
    """Whether nobody has made this file before."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


class _DiesAfterOffer(Callback):
    """The first survivor that offers its state is killed before it gets an answer."""

    def __init__(self, path: str) -> None:
        self._path = path

    def on_train_begin(self, run: Run) -> None:
        """Take the place of the offer."""
        member, path = _member(run), self._path
        offer = member.offer

        def dies(facts: dict[str, Any]) -> bool:
            if not _first(path):
                return offer(facts)
            member.held = True
            member._link.send({"kind": Kind.OFFER, **facts})
            os.kill(os.getpid(), signal.SIGKILL)
            return False

        member.offer = dies  # type: ignore[method-assign]


def offering(stage: Stage, trial: Trial) -> None:
    """An executor is killed, and then a survivor between its offer and the answer."""
    ready(stage)
    draw, work, folder = random.Random(trial.seed), usual_work(trial.seed), stage.new_folder()
    died = folder / "died"

    def strike(marks: Marks, fault: Fault) -> None:
        step = moment(draw, work)
        await_step(marks, step, draw)
        fault.at = kill(draw.choice(executors()))
        fault.notes["step"] = step
        fault.notes["died_after_offer"] = await_true(died.exists, 30.0)

    callbacks = (_DiesAfterOffer(str(died)),)
    stage.disturb(trial, work, strike, folder=folder, callbacks=callbacks)


class _SlowLastState(Callback):
    """The first rank sends its last state over a network of a few KB a second, once."""

    def __init__(self, path: str, bytes_per_s: float) -> None:
        self._path, self._bytes_per_s = path, bytes_per_s

    def on_train_end(self, run: Run) -> None:
        """Only the last state comes after this."""
        if run.rank == 0 and _first(self._path):
            Path(self._path).write_text(str(os.getpid()))
            _slow_down(_member(run), self._bytes_per_s, 256)


def last_state(stage: Stage, trial: Trial) -> None:
    """An executor is killed while the first one sends the state with which the fit ends."""
    ready(stage)
    draw, work, folder = random.Random(trial.seed), usual_work(trial.seed), stage.new_folder()
    sending = folder / "sending"

    def strike(marks: Marks, fault: Fault) -> None:
        if not await_true(lambda: sending.exists() and sending.read_text(), 200.0, 0.01):
            return
        first = int(sending.read_text())
        time.sleep(draw.uniform(0.2, 1.5))
        others = [e for e in executors() if first not in [w.pid for w in workers_of(e)]]
        fault.at = kill(draw.choice(others))

    callbacks = (_SlowLastState(str(sending), 20_000.0),)
    stage.disturb(trial, work, strike, folder=folder, callbacks=callbacks)


def five(stage: Stage, trial: Trial) -> None:
    """An executor is killed five times in one fit, at random steps."""
    ready(stage)
    draw, work = random.Random(trial.seed), usual_work(trial.seed)
    steps = sorted(draw.sample(range(1, work.steps * 9 // 10), _TIMES))

    def strike(marks: Marks, fault: Fault) -> None:
        for step in steps:
            # Ranks of the round before may still write their steps.
            await_step(marks, step, draw)
            await_true(lambda: _trains_since(marks, fault.at), 60.0, 0.02)
            fault.at = kill(draw.choice(_training(marks) or executors()))
        fault.notes["steps"] = steps

    stage.disturb(trial, work, strike)


def again(stage: Stage, trial: Trial) -> None:
    """An executor is killed, and another one up to five seconds after it."""
    ready(stage)
    draw, work = random.Random(trial.seed), usual_work(trial.seed)

    def strike(marks: Marks, fault: Fault) -> None:
        step, pause_s = moment(draw, work), draw.uniform(0.0, _AGAIN_S)
        await_step(marks, step, draw)
        kill(draw.choice(executors()))
        time.sleep(pause_s)
        found = executors()
        if found:
            fault.at = kill(draw.choice(found))
        fault.notes |= {"step": step, "pause_s": round(pause_s, 2), "second": bool(found)}

    stage.disturb(trial, work, strike)


def _trains_since(marks: Marks, wall: float) -> bool:
    last = marks.last()
    return not wall or (last is not None and marks.resumed_after(wall) is not None)


def _training(marks: Marks) -> list[Any]:
    """The executors of the ranks that wrote last."""
    begun = [m for m in marks.all() if m.kind == "begin"]
    pids = {m.pid for m in begun[-begun[-1].size :]} if begun else set()
    return [e for e in executors() if pids & {w.pid for w in workers_of(e)}]


def _big(seed: int) -> bytes:
    return random.Random(seed).randbytes(1 << 20) * (_BIG_BYTES >> 20)


def large(stage: Stage, trial: Trial) -> None:
    """A survivor hands over a state of 2 GB at 50 MB/s. No model: that would need 16 GB more."""
    seed, at = trial.seed, time.monotonic()

    def body(member: Member) -> tuple[bytes, dict[str, Any]]:
        member.share(0)
        try:
            if member.rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            member.share(1)
        except Stopped:
            if not member.offer({"iteration": 1}):
                raise
            _slow_down(member, _BIG_BYTES_PER_S)
            return _big(seed), {}
        return b"", {}

    crew = Crew(2, 2, 2)
    end = Round(pickled(body, "a body"), LocalLauncher(), crew, keeps_state=True).run()
    trial.ended = end.loss is not None and end.kept is not None
    trial.losses = 1
    if end.kept is not None:
        same = hashlib.sha256(end.kept.payload).digest() == hashlib.sha256(_big(seed)).digest()
        trial.difference, trial.rows_once = (0.0 if same else 1.0), same
        trial.recovery_s = time.monotonic() - at
        trial.notes["bytes"] = len(end.kept.payload)
    else:
        trial.error = f"no state came: {end.loss}"


KINDS: dict[str, Callable[[Stage, Trial], None]] = {
    "offering": offering,
    "last state": last_state,
    "five": five,
    "again": again,
    "large": large,
}
"""By name, in the order in which they are told of."""
