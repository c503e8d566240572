"""A host is lost with its disk, for frames that Spark computes again in several ways.

Executors of one machine share its disk. In this stage each says that it is a host of its own.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from trials.kinds import await_step, ready
from trials.marks import Marks
from trials.stage import Fault, Stage, Trial
from trials.victims import await_true, executors, kill, shards_of
from trials.work import work_for
from zoo.errors import InputError
from zoo.orca.learn.recovery import Recovery

__all__ = ["FRAMES", "host"]

_COPIED_S = 10.0


def _seeded(frame: DataFrame, folder: str) -> DataFrame:
    return frame


def _unseeded(frame: DataFrame, folder: str) -> DataFrame:
    draw = F.udf(lambda _: time.time_ns() % 9973 / 9973, "double").asNondeterministic()
    return frame.withColumn("x0", draw("id")).sortWithinPartitions("x0")


def _distinct(frame: DataFrame, folder: str) -> DataFrame:
    return frame.dropDuplicates(["id"])


def _repartitioned(frame: DataFrame, folder: str) -> DataFrame:
    frame.write.parquet(folder)
    return frame.sparkSession.read.parquet(folder).repartition(8)


def _adaptive(frame: DataFrame, folder: str) -> DataFrame:
    frame.write.parquet(folder)
    read = frame.sparkSession.read.parquet(folder)
    return read.groupBy("id").agg(*(F.first(c).alias(c) for c in ("x0", "x1", "x2", "y")))


def _one_partition(frame: DataFrame, folder: str) -> DataFrame:
    rows = frame.count()
    spread = frame.sparkSession.range(0, rows, 1, 1)
    return spread.select("id", *(F.sin(F.col("id") + k).alias(f"x{k}") for k in range(3))).select(
        "*", (F.col("x0") + F.col("x1")).alias("y")
    )


FRAMES: dict[str, Callable[[DataFrame, str], DataFrame]] = {
    "seeded": _seeded,
    "unseeded": _unseeded,
    "dropDuplicates": _distinct,
    "repartition": _repartitioned,
    "adaptive": _adaptive,
    "one partition": _one_partition,
}
"""How a frame is made, by name."""


def host(stage: Stage, trial: Trial) -> None:
    """A host is lost with its disk: half of the trials with copies on others, half without.

    The fit is exact, or it ends with an error that says that it would not be.
    """
    ready(stage)
    draw = random.Random(trial.seed)
    name = list(FRAMES)[trial.seed % len(FRAMES)]
    copies = not trial.seed // len(FRAMES) % 2
    work = work_for(trial.seed, steps=400, epochs=4, pause_s=0.03)
    folder, fault = stage.new_folder(), Fault()
    frame = FRAMES[name](work.frame(stage.spark), str(folder / "rows"))
    trial.notes |= {"frame": name, "copies": copies}
    trial.compared = False

    def strike(marks: Marks) -> None:
        await_step(marks, draw.randrange(20, work.steps // 3), draw)
        if copies:
            await_true(_all_copied, _COPIED_S)
        held = [e for e in executors() if shards_of(e)]
        victim = draw.choice(held or executors())
        files = shards_of(victim)
        fault.at = kill(victim)
        for file in files:
            file.unlink(missing_ok=True)
        fault.notes["files"] = len(files)

    try:
        done = stage.struck(work, folder, strike, frame=frame, recovery=Recovery(copies=copies))
    except InputError as exc:
        if "computed again" not in str(exc):
            raise
        trial.ended, trial.told = True, str(exc)
        trial.notes |= fault.notes
        return
    stage.compare(trial, work, done, None, fault)
    trial.notes["copies used"] = sum("take the place" in word for word in done.words)
    trial.notes["computed again"] = sum("computed again in" in word for word in done.words)


def _all_copied() -> bool:
    """Whether each shard lies on two hosts: files of a shard differ in their last part."""
    names = [f.name.rsplit("-", 1)[0] for e in executors() for f in shards_of(e)]
    return bool(names) and all(names.count(name) > 1 for name in names)
