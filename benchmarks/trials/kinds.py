"""The disturbances that need executors of their own: who is hit, when, and how."""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trials.marks import Marks
from trials.stage import Fault, Stage, Trial
from trials.victims import await_true, executors, kill, shards_of, workers_of
from trials.work import Work, work_for
from zoo.orca.learn.callback import Callback, Run
from zoo.orca.learn.driver.snapshots import SnapshotStore
from zoo.orca.learn.recovery import Recovery
from zoo.orca.learn.trigger import SeveralIteration

__all__ = ["KINDS", "Lingerer", "await_step", "moment", "note_growth", "ready", "usual_work"]

_EXECUTORS = 3
_READY_S = 90.0
_STOPPED_S = 30.0
_LINGER_S = 0.1


def usual_work(seed: int, framework: str = "torch") -> Work:
    """What most trials train."""
    return work_for(seed, steps=400, epochs=4, pause_s=0.01, framework=framework)


def await_step(marks: Marks, step: int, draw: random.Random) -> None:
    """Wait for a step, and for a moment after it.

    Args:
        marks: Of the fit.
        step: Which.
        draw: Of the moment.
    """

    def reached() -> bool:
        last = marks.last()
        return last is not None and last.iteration >= step

    await_true(reached, 120.0, 0.002)
    time.sleep(draw.uniform(0.0, 0.02))


def moment(draw: random.Random, work: Work) -> int:
    """A step that leaves some to be taken after it."""
    return draw.randrange(0, work.steps * 9 // 10)


def ready(stage: Stage) -> None:
    """Wait until the executors that were lost before have been replaced."""
    await_true(lambda: len(executors()) == stage.live() == _EXECUTORS, _READY_S)


def killed(stage: Stage, trial: Trial) -> None:
    """One executor is killed at a random moment."""
    _kill_executors(stage, trial, 1)


def two(stage: Stage, trial: Trial) -> None:
    """Two executors are killed at once."""
    _kill_executors(stage, trial, 2)


def shards(stage: Stage, trial: Trial) -> None:
    """An executor is killed, and the shards that it wrote are deleted from its disk."""
    _kill_executors(stage, trial, 1, with_shards=True)


def keras(stage: Stage, trial: Trial) -> None:
    """One executor is killed while Keras trains."""
    _kill_executors(stage, trial, 1, framework="keras")


def graph(stage: Stage, trial: Trial) -> None:
    """One executor is killed while a graph of TensorFlow 1 is trained."""
    _kill_executors(stage, trial, 1, framework="graph")


def _kill_executors(
    stage: Stage,
    trial: Trial,
    count: int,
    *,
    with_shards: bool = False,
    framework: str = "torch",
) -> None:
    ready(stage)
    draw, work = random.Random(trial.seed), usual_work(trial.seed, framework)

    def strike(marks: Marks, fault: Fault) -> None:
        step = moment(draw, work)
        await_step(marks, step, draw)
        found = executors()
        if with_shards:
            found = [e for e in found if shards_of(e)] or found
        victims = draw.sample(found, count)
        files = [f for v in victims for f in shards_of(v)] if with_shards else []
        for victim in victims:
            fault.at = kill(victim)
        for file in files:
            file.unlink(missing_ok=True)
        fault.notes |= {"step": step, "victims": count, "shards": len(files)}

    done = stage.disturb(trial, work, strike)
    trial.notes["restored"] = sum("computed again" in word for word in done.words)


class _KillerInside(Callback):
    """Kills its own process while that adds up the gradients of a step with the other ranks.

    A thread looks at the stack of the training, and strikes only when it sees it there. As long as
    it looks, the training can run no Python of its own, so the blow cannot come too late.

    Args:
        path: A file of zeros, where the last thing it does is to write down where it was.
        step: After which step it looks.
        rank: Who is killed.
        delay_s: How long it waits before it looks.
    """

    def __init__(self, path: str, step: int, rank: int, delay_s: float) -> None:
        self._path, self._step, self._rank, self._delay_s = path, step, rank, delay_s

    def on_step_end(self, run: Run) -> None:
        """Start to look once, in the first round."""
        if run.iteration == self._step and run.rank == self._rank and not self._struck():
            thread = threading.get_ident()
            threading.Thread(target=self._strike, args=(thread,), daemon=True).start()

    def _struck(self) -> bool:
        return Path(self._path).read_bytes()[:1] != b"\0"

    def _strike(self, thread: int) -> None:
        with open(self._path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
            # A thread gets its turn more often, so that it may find the training anywhere.
            sys.setswitchinterval(1e-4)
            time.sleep(self._delay_s)
            while True:
                frame = sys._current_frames().get(thread)
                inner, deepest = False, frame
                while frame is not None and not inner:
                    code = frame.f_code
                    inner = code.co_name == "all_reduce"
                    frame = frame.f_back
                if inner and deepest is not None:
                    text = f"{time.time():.6f} {deepest.f_code.co_qualname}".encode()
                    memory[: len(text)] = text
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(0)


def inside(stage: Stage, trial: Trial) -> None:
    """The process of a rank is killed inside all-reduce."""
    ready(stage)
    draw, work, folder = random.Random(trial.seed), usual_work(trial.seed), stage.new_folder()
    word = folder / "struck"
    word.write_bytes(bytes(200))
    step, rank = 1 + moment(draw, work), draw.randrange(_EXECUTORS)
    killer = _KillerInside(str(word), step, rank, draw.uniform(0.0, 0.01))

    def strike(marks: Marks, fault: Fault) -> None:
        if await_true(lambda: word.read_bytes()[:1] != b"\0", 120.0, 0.01):
            wall, place = word.read_bytes().rstrip(b"\0").decode().split()
            fault.at = float(wall)
            fault.notes |= {"step": step, "rank": rank, "inside": place}

    stage.disturb(trial, work, strike, folder=folder, callbacks=(killer,))


def stopped(stage: Stage, trial: Trial) -> None:
    """The process of a rank is stopped for 30 s, and then goes on."""
    ready(stage)
    draw, work = random.Random(trial.seed), usual_work(trial.seed)

    def strike(marks: Marks, fault: Fault) -> None:
        await_step(marks, moment(draw, work), draw)
        last = marks.last()
        pids = {m.pid for m in marks.all() if last and m.kind == "begin"}
        victim = next(p for e in executors() for p in workers_of(e) if p.pid in pids)
        fault.at = kill(victim, signal.SIGSTOP)
        time.sleep(_STOPPED_S)
        with contextlib.suppress(ProcessLookupError):
            kill(victim, signal.SIGCONT)
            fault.notes["alive_after"] = True

    stage.disturb(trial, work, strike)


def full(stage: Stage, trial: Trial) -> None:
    """The folder of snapshots is full before the fit is over."""
    ready(stage)
    work, folder = usual_work(trial.seed), stage.new_folder()
    place = folder / "snapshots"
    with _small_disk(place) as fits:
        if not fits:
            trial.skipped = "mounting a small file system is not allowed here"
            return
        done = stage.disturb(
            trial, work, lambda marks, fault: None, folder=folder, model_dir=str(place),
            trigger=SeveralIteration(20 + trial.seed % 7), keep_snapshots=None,
        )  # fmt: skip
        missed = sum("could not be written" in word for word in done.words)
        newest = SnapshotStore(place).newest()
        trial.notes |= {"missed": missed, "kept": newest[0].iteration if newest else None}
        trial.ended = trial.ended and newest is not None and missed > 0
        if not trial.ended:
            trial.error = f"{missed} snapshots were refused, {newest and newest[0]} is whole"


@contextlib.contextmanager
def _small_disk(place: Path) -> Iterator[bool]:
    """A file system of 200 KB; False where one may not be mounted."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "zoo-trial", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", str(place)], check=True)


def damaged(stage: Stage, trial: Trial) -> None:
    """The newest snapshot is cut off, or a bit of it turned, before a fit resumes."""
    ready(stage)
    draw, work, folder = random.Random(trial.seed), usual_work(trial.seed), stage.new_folder()
    expected = stage.expected(work)
    place = folder / "snapshots"
    common: dict[str, Any] = {
        "model_dir": str(place),
        "trigger": SeveralIteration(draw.randrange(15, 40)),
    }
    stage.fit(work, folder, epochs=2, **common)
    newest, before, *_ = SnapshotStore(place).candidates()
    file = place / newest.run / f"model.{newest.iteration}"
    trial.notes["damage"] = _damage(file, draw)
    fault = Fault(time.time())
    done = stage.fit(work, folder, resume=True, **common)
    stage.compare(trial, work, done, expected, fault)
    begun = min(m.iteration for m in done.marks.all() if m.wall > fault.at and m.kind == "begin")
    told = any("skipped the snapshot" in word for word in done.words)
    trial.notes |= {"newest": newest.iteration, "taken": begun, "told": told}
    if begun != before.iteration or not told:
        trial.ended, trial.error = False, f"resumed at {begun}, a word: {told}"


def _damage(file: Path, draw: random.Random) -> str:
    whole = bytearray(file.read_bytes())
    at = draw.randrange(len(whole))
    if draw.random() < 0.5:
        file.write_bytes(whole[:at])
        return f"cut off after {at} of {len(whole)} bytes"
    whole[at] ^= 1 << draw.randrange(8)
    file.write_bytes(whole)
    return f"a bit of byte {at} turned"


class Lingerer(Callback):
    """Makes steps slow while ranks are missing: a fit should not end before they come.

    How long executors take to start, and Python on them, is for the machine to decide.
    """

    def on_step_end(self, run: Run) -> None:
        """Wait where not all are there."""
        if run.size < _EXECUTORS:
            time.sleep(_LINGER_S)


def arriving(stage: Stage, trial: Trial) -> None:
    """A fit begins on one or two executors; the others come while it runs."""
    ready(stage)
    draw = random.Random(trial.seed)
    first = 1 + trial.seed % 2
    work = work_for(trial.seed, steps=1000, epochs=4, pause_s=0.005)
    options: dict[str, Any] = {
        "max_workers": _EXECUTORS,
        "recovery": Recovery(round_share=0.2),
    }
    stage.expected(work, **options)
    _limit_executors(stage, first)
    for victim in draw.sample(executors(), _EXECUTORS - first):
        kill(victim)
    await_true(lambda: stage.live() == len(executors()) == first, _READY_S)

    def strike(marks: Marks, fault: Fault) -> None:
        await_step(marks, draw.randrange(1, 30), draw)
        _limit_executors(stage, _EXECUTORS)
        await_true(lambda: stage.live() == _EXECUTORS, _READY_S, 0.02)
        fault.at = time.time()

    try:
        done = stage.disturb(trial, work, strike, callbacks=(Lingerer(),), **options)
    finally:
        _limit_executors(stage, _EXECUTORS)
    note_growth(trial, done.marks, first)


def note_growth(trial: Trial, marks: Marks, first: int | None) -> None:
    """Take down how a fit came to have all its ranks; it has failed when it did not.

    Args:
        trial: Takes it down.
        marks: Of the fit.
        first: With how many ranks it should begin; None when that is for the machine to decide.
    """
    worlds = marks.worlds()
    sizes = [size for _, size in worlds]
    trial.notes["rounds_to_grow"] = sizes.index(_EXECUTORS) if _EXECUTORS in sizes else None
    if first not in (None, sizes[0]) or _EXECUTORS not in sizes:
        trial.ended, trial.error = False, f"rounds of {sizes} ranks"


def _limit_executors(stage: Stage, count: int) -> None:
    jvm: Any = stage.spark.sparkContext._jvm
    empty = getattr(getattr(jvm, "scala.collection.immutable.Map$"), "MODULE$").empty()
    stage.jvm_context.requestTotalExecutors(count, 0, empty)


KINDS: dict[str, Callable[[Stage, Trial], None]] = {
    "killed": killed,
    "keras": keras,
    "graph": graph,
    "inside": inside,
    "two": two,
    "shards": shards,
    "stopped": stopped,
    "full": full,
    "damaged": damaged,
    "arriving": arriving,
}
"""By name, in the order in which they are told of."""
