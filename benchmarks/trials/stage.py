"""Runs fits on one Spark and tells what a disturbance did to them."""

from __future__ import annotations

import faulthandler
import logging
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from trials.marks import Marker, Marks
from trials.work import BATCH, Weights, Work, difference, each_row_once

__all__ = ["Fault", "Outcome", "Stage", "StuckError", "Trial"]

_LONGEST_S = 300.0


class StuckError(Exception):
    """A fit did not end."""


@dataclass
class Fault:
    """What happens to a fit while it runs.

    Attributes:
        at: When it happened; 0 before.
        notes: What there is to say about it.
    """

    at: float = 0.0
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """A fit that has ended.

    Attributes:
        estimator: With its weights and report.
        marks: What its ranks wrote.
        words: What the library logged as warnings.
    """

    estimator: Any
    marks: Marks
    words: list[str]


@dataclass
class Trial:
    """What became of one trial.

    Attributes:
        kind: What was done.
        seed: Of its randomness.
        ended: The fit came to its end.
        error: Why not.
        losses: Rounds that ended because ranks were lost.
        recovery_s: From the fault to the first step of ranks that began after it; None when none
            had to.
        extra_steps: Steps that were taken again.
        difference: The largest of a weight from the undisturbed fit, relative.
        rows_once: Each row was used once for each epoch.
        seconds: The whole trial.
        left: Processes that were still there 15 s after the program had ended.
        skipped: Why the trial could not be made here.
        compared: There is an undisturbed fit with the same rows in the same order.
        told: The error with which a fit ended that would not have been exact.
        notes: More about it.
    """

    kind: str
    seed: int
    ended: bool = False
    error: str = ""
    losses: int = 0
    recovery_s: float | None = None
    extra_steps: int = 0
    difference: float | None = None
    rows_once: bool = False
    seconds: float = 0.0
    left: list[str] = field(default_factory=list)
    skipped: str = ""
    compared: bool = True
    told: str = ""
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """Whether nothing of the disturbance shows in the result."""
        near = self.difference is not None and self.difference <= 1e-9
        if self.told:
            return self.ended
        return self.ended and (near or not self.compared) and self.rows_once

    def facts(self) -> dict[str, Any]:
        """All of it, as plain values."""
        return asdict(self)


class Stage:
    """A Spark on which trials run, one after the other.

    Args:
        spark: Its session.
        folder: For files of the trials.
    """

    def __init__(self, spark: SparkSession, folder: Path) -> None:
        self.spark, self.folder = spark, folder
        self._expected: dict[Work, Weights] = {}
        self._count = 0

    @property
    def jvm_context(self) -> Any:
        """Spark's own context."""
        return self.spark.sparkContext._jsc.sc()

    def live(self) -> int:
        """Executors that Spark knows to be there."""
        return int(self.jvm_context.getExecutorMemoryStatus().size()) - 1

    def new_folder(self) -> Path:
        """A folder for one trial."""
        self._count += 1
        folder = self.folder / f"trial-{self._count}"
        folder.mkdir(parents=True)
        return folder

    def expected(self, work: Work, **options: Any) -> Weights:
        """Weights of the undisturbed fit, which is done once."""
        if work not in self._expected:
            # Waiting changes no weight.
            done = self.fit(replace(work, pause_s=0.0), self.new_folder(), **options)
            self._expected[work] = work.weights(done.estimator)
            assert each_row_once(self._expected[work], work.epochs)
        return self._expected[work]

    def fit(
        self,
        work: Work,
        folder: Path,
        *,
        epochs: int | None = None,
        callbacks: tuple[Any, ...] = (),
        trigger: Any = None,
        resume: bool = False,
        frame: DataFrame | None = None,
        **options: Any,
    ) -> Outcome:
        """Train, in a thread that is given up when it does not end.

        Raises:
            StuckError: It did not end.
            Exception: What the fit raised.
        """
        marks = Marks(folder / "marks")
        estimator = work.estimator(**options)
        results: list[BaseException | None] = []

        def run() -> None:
            try:
                estimator.fit(
                    frame or work.frame(self.spark),
                    epochs=epochs or work.epochs,
                    batch_size=BATCH,
                    feature_cols=[["x0", "x1", "x2"], "id"],
                    label_cols=["y"],
                    callbacks=[Marker(str(marks.path), work.pause_s), *callbacks],
                    checkpoint_trigger=trigger,
                    resume=resume,
                )
                results.append(None)
            except BaseException as exc:  # noqa: BLE001 - the trial tells of it
                results.append(exc)

        with _Words() as words:
            thread = threading.Thread(target=run, daemon=True)
            thread.start()
            thread.join(_LONGEST_S)
        if not results:
            faulthandler.dump_traceback()
            raise StuckError(f"the fit did not end within {_LONGEST_S:.0f} s")
        if results[0] is not None:
            raise results[0]
        return Outcome(estimator, marks, words.said)

    def disturb(
        self,
        trial: Trial,
        work: Work,
        strike: Callable[[Marks, Fault], None],
        *,
        folder: Path | None = None,
        **options: Any,
    ) -> Outcome:
        """Train while something happens, and compare with the undisturbed fit.

        Args:
            trial: Takes down what became of it.
            work: What is trained.
            strike: Waits for its moment, and does it.
            folder: Of the trial.
            options: Of the estimator and the fit.
        """
        plain = {k: v for k, v in options.items() if k in ("max_workers", "recovery")}
        expected = self.expected(work, **plain)
        fault = Fault()
        done = self.struck(
            work, folder or self.new_folder(), lambda marks: strike(marks, fault), **options
        )
        self.compare(trial, work, done, expected, fault)
        return done

    def struck(
        self, work: Work, folder: Path, strike: Callable[[Marks], None], **options: Any
    ) -> Outcome:
        """Train while something happens.

        Args:
            work: What is trained.
            folder: Of the trial.
            strike: Waits for its moment, and does it.
            options: Of the fit.
        """
        thread = threading.Thread(target=strike, args=(Marks(folder / "marks"),), daemon=True)
        thread.start()
        done = self.fit(work, folder, **options)
        thread.join(60.0)
        return done

    def compare(
        self,
        trial: Trial,
        work: Work,
        done: Outcome,
        expected: Weights | None,
        fault: Fault,
    ) -> None:
        """Take down how a fit ended."""
        weights = work.weights(done.estimator)
        rounds = done.estimator.report.rounds
        trial.ended = True
        trial.losses += sum("lost" in r.ended for r in rounds)
        trial.difference = None if expected is None else difference(weights, expected)
        trial.rows_once = each_row_once(weights, work.epochs)
        trial.extra_steps = done.marks.extra_steps()
        resumed = done.marks.resumed_after(fault.at) if fault.at else None
        trial.recovery_s = resumed.wall - fault.at if resumed else None
        trial.notes |= fault.notes
        trial.notes["rounds"] = [(r.ranks, round(r.seconds, 2), r.ended) for r in rounds]
        trial.notes["processes_kept"] = done.marks.processes_kept()
        trial.notes["worlds"] = [size for _, size in done.marks.worlds()]

    def clear(self) -> None:
        """Remove the files of trials."""
        shutil.rmtree(self.folder, ignore_errors=True)


class _Words(logging.Handler):
    """Collects warnings of the library."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(f"{time.strftime('%X')} {record.getMessage()}")

    def __enter__(self) -> _Words:
        logging.getLogger("zoo").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("zoo").removeHandler(self)
