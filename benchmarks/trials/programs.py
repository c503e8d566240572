"""The disturbances that need a Spark of another kind: the driver's end, and executors on demand."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

from trials.kinds import Lingerer, await_step, note_growth
from trials.marks import Marks
from trials.stage import Fault, Stage, Trial
from trials.victims import MARK, await_true, kill, left_of
from trials.work import Work, work_for
from zoo.orca import OrcaContext, init_orca_context
from zoo.orca.learn.driver.snapshots import SnapshotStore
from zoo.orca.learn.recovery import Recovery
from zoo.orca.learn.trigger import SeveralIteration

__all__ = ["driver", "dynamic", "main"]

# How many ranks there are before and after.
_RANKS = ((2, 2), (2, 1), (2, 4))
_EVERY = 7


def _driver_work(seed: int) -> Work:
    return work_for(seed, steps=300, epochs=3, pause_s=0.005)


def driver(stage: Stage, trial: Trial) -> None:
    """A driver is killed; another process goes on inside the epoch, with as many ranks or others.

    The Spark of this process has been running before, so its start is not in the recovery.
    """
    draw, work, folder = random.Random(trial.seed), _driver_work(trial.seed), stage.new_folder()
    before, after = _RANKS[trial.seed % len(_RANKS)]
    expected = stage.expected(work, workers_per_node=2)
    marks = Marks(folder / "marks")
    step = draw.randrange(2 * _EVERY, work.steps * 9 // 10)
    mark = uuid.uuid4().hex
    with (folder / "log").open("wb") as log:
        victim = subprocess.Popen(
            [sys.executable, "-m", "trials.programs", str(trial.seed), str(before), str(folder)],
            env=_plain_environment() | {MARK: mark}, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        await_true(lambda: marks.last() or victim.poll() is not None, 240.0)
        if victim.poll() is not None:
            raise RuntimeError((folder / "log").read_text(errors="replace")[-2000:])
        await_step(marks, step, draw)
        # Inside an epoch: not while the newest snapshot is that of its end.
        await_true(lambda: _newest(folder) % work.epoch_steps, 30.0, 0.001)
        at = kill(victim, signal.SIGKILL)  # type: ignore[arg-type]
    finally:
        victim.kill()
        victim.wait()
    reached = max(m.iteration for m in marks.all())
    done = stage.fit(
        work, folder, resume=True, workers_per_node=after, model_dir=str(folder / "snapshots"),
        trigger=SeveralIteration(_EVERY),
    )  # fmt: skip
    trial.losses = 1
    stage.compare(trial, work, done, expected, Fault(at))
    begun = min(m.iteration for m in marks.all() if m.wall > at and m.kind == "begin")
    trial.left = left_of(mark)
    trial.notes |= {"ranks": (before, after), "reached": reached, "resumed": begun}
    if not begun % work.epoch_steps:
        trial.ended, trial.error = False, f"resumed at {begun}, between two epochs"


def _newest(folder: Path) -> int:
    return next((s.iteration for s in SnapshotStore(folder / "snapshots").candidates()), 0)


def _plain_environment() -> dict[str, str]:
    """Without what a Spark that runs leaves in it."""
    return {k: v for k, v in os.environ.items() if "SPARK" not in k or k.endswith("_OPTS")}


def main() -> None:
    """A driver that is to be killed: `python -m trials.programs SEED RANKS FOLDER`."""
    seed, ranks, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    init_orca_context("local", cores=4, memory="1g", conf={"spark.ui.enabled": "false"})
    Stage(OrcaContext.get_spark_session(), folder).fit(
        _driver_work(seed), folder, workers_per_node=ranks, model_dir=str(folder / "snapshots"),
        trigger=SeveralIteration(_EVERY),
    )  # fmt: skip
    print(json.dumps("it ended before it was killed"))


def dynamic(stage: Stage, trial: Trial) -> None:
    """With dynamic allocation a fit begins on one executor, and asks for the others itself."""
    work = work_for(trial.seed, steps=1000, epochs=4, pause_s=0.005)
    # One task writes the shards, so it is the ranks that Spark starts executors for.
    work = replace(work, sizes=(work.rows,))
    options: dict[str, Any] = {"max_workers": 3, "recovery": Recovery(round_share=0.2)}
    stage.expected(work, **options)
    if not await_true(lambda: stage.live() == 1, 120.0):
        trial.error = f"{stage.live()} executors instead of one before it began"
        return

    def strike(marks: Marks, fault: Fault) -> None:
        if await_true(lambda: stage.live() == 3, 90.0, 0.02):
            fault.at = time.time()

    done = stage.disturb(trial, work, strike, callbacks=(Lingerer(),), **options)
    # Where Python starts slowly, Spark has all executors before the first rank is ready.
    note_growth(trial, done.marks, None)


if __name__ == "__main__":
    main()
