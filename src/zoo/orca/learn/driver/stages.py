"""The stages that an estimator puts before its model: fitted once, kept with it, applied to all.

What is kept of a fitted stage is the name of its class and what Spark writes of it: its settings as
JSON, and numbers and texts. Spark's form for files on the driver is used, as executors have no
access to its disk. Classes come from a closed list, never from what is read.
"""

from __future__ import annotations

import base64
import contextlib
import re
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JError
from pyspark import SparkContext
from pyspark.errors import PySparkException
from pyspark.ml import Estimator, Pipeline, PipelineModel, feature
from pyspark.sql import DataFrame

from zoo.cluster.session.ended import while_spark_runs
from zoo.cluster.session.lifecycle import active_session
from zoo.errors import ColumnError, InputError
from zoo.orca.data.tensors.spark_rows import stages_explained
from zoo.orca.learn.preprocess import vocabularies

__all__ = ["Stages"]

# Left out: SQLTransformer, whose text may call any Java; RFormula, whose parts name their classes.
_KNOWN: dict[str, Any] = {
    name: kind
    for name, kind in vars(feature).items()
    if isinstance(kind, type)
    and kind.__module__ == feature.__name__
    and hasattr(kind, "read")
    and not name.startswith(("_", "SQLTransformer", "RFormula"))
}
_FILE = re.compile(r"\w+(/\w+)?")

Saved = Sequence[Mapping[str, Any]]
"""Fitted stages as plain values: for each `class`, and `files`, bytes in base64 by name."""


class Stages:
    """What is done to a frame before its columns are taken.

    Args:
        given: By the user: to be fitted, or fitted.
        saved: Fitted stages that were read from a file.
        label: The column that the model was trained to tell.

    Attributes:
        settled: Something was trained with the fitted stages: they are not fitted anew.

    Raises:
        InputError: It is no pipeline, or a stage is of a kind that no file may hold.
    """

    def __init__(
        self,
        given: Pipeline | PipelineModel | None = None,
        saved: Saved | None = None,
        label: str | None = None,
    ) -> None:
        if not isinstance(given, Pipeline | PipelineModel | None):
            raise InputError(
                "preprocess as a pyspark.ml Pipeline or PipelineModel", type(given).__name__,
                "Pass encode(index=['country']) of zoo.orca.learn.preprocess, for example.",
            )  # fmt: skip
        for stage in () if given is None else _flat(given):
            _require_known(stage)
        self._given = given if isinstance(given, Pipeline) else None
        self._saved = _written(given) if isinstance(given, PipelineModel) else saved
        self._label, self.settled = label, saved is not None
        self._opened: tuple[Any, PipelineModel] | None = None

    @staticmethod
    def read(extras: Mapping[str, Any]) -> Stages | None:
        """The fitted stages of a state; None where it has none.

        Raises:
            InputError: They are none that a file may hold.
        """
        kept = extras.get("preprocess")
        return None if kept is None else Stages(None, *_checked(kept))

    @property
    def extras(self) -> dict[str, Any]:
        """What a state keeps of them: plain values."""
        if self._saved is None:
            return {}
        return {"preprocess": {"stages": self._saved, "label": self._label}}

    @property
    def any(self) -> bool:
        """Whether there are stages."""
        return self._given is not None or self._saved is not None

    @property
    def fitted(self) -> PipelineModel | None:
        """The fitted stages; None before a fit."""
        if self._saved is None:
            return None
        # What was opened ends with its JVM, which another start of Spark may replace.
        if self._opened is None or self._opened[0] is not SparkContext._jvm:
            self._opened = SparkContext._jvm, _read(self._saved)
        return self._opened[1]

    def fit(self, frame: DataFrame, label: str | None) -> None:
        """Fit the stages, if there are any to fit.

        Args:
            frame: The training data.
            label: The column that the model is to tell; None for none, or several.

        Raises:
            ColumnError: A column is missing.
            InputError: Spark cannot fit them on these rows.
        """
        self._label = label
        if self._given is None or self.settled:
            return
        made: set[str] = set()
        for stage in _flat(self._given):
            ways = _ways(stage)
            _require_columns(frame, {name for names, _ in ways for name in names} - made)
            made.update(name for _, names in ways for name in names)
        try:
            with _explained():
                self._saved, self._opened = _written(self._given.fit(frame)), None
        except InputError as exc:
            if not frame.isEmpty():
                raise
            raise InputError(
                "rows to fit the stages of preprocess on", "a frame with zero rows",
                "Check the filters and joins before it.",
            ) from exc  # fmt: skip

    def apply(self, frame: DataFrame, wanted: Collection[str]) -> DataFrame:
        """The frame with the columns that the stages make for those that are wanted.

        Args:
            frame: Of rows to train on, or to score.
            wanted: The columns that are read afterwards; the rest may be missing.

        Raises:
            InputError: The stages are not fitted, or the frame has a column that they make.
            ColumnError: A column that they read is missing.
        """
        if not self.any:
            return frame
        fitted = self.fitted
        if fitted is None:
            raise InputError(
                "fitted stages in preprocess", "stages that no fit has seen",
                "Call fit first, load a file of save, or pass preprocess=pipeline.fit(frame).",
            )  # fmt: skip
        for stage, read, made in _needed(fitted, wanted):
            _require_columns(frame, read)
            if twin := next((n for n in made if n in frame.columns and n not in read), None):
                raise InputError(
                    f"a frame without the column '{twin}', which preprocess makes", "one with it",
                    "Rename or drop it, or leave preprocess out.",
                )  # fmt: skip
            with _explained():
                frame = stage.transform(frame)
        return frame

    @property
    def classes(self) -> list[str] | None:
        """The names of classes, if a stage has made the numbers that the model was trained on."""
        fitted = self.fitted if self._label else None
        return None if fitted is None else vocabularies(fitted).get(str(self._label))

    @property
    def reads(self) -> set[str]:
        """All columns that stages read."""
        stages = _flat(self.fitted or self._given or PipelineModel([]))
        return {name for stage in stages for names, _ in _ways(stage) for name in names}


def _flat(pipeline: Any) -> Iterator[Any]:
    """The stages, also those of pipelines inside."""
    for stage in pipeline.getStages() if isinstance(pipeline, Pipeline) else pipeline.stages:
        if isinstance(stage, Pipeline | PipelineModel):
            yield from _flat(stage)
        else:
            yield stage


def _require_known(stage: Any) -> None:
    name = type(stage).__name__
    if _KNOWN.get(name) is not type(stage):
        raise InputError(
            "stages of pyspark.ml.feature in preprocess, without SQLTransformer and RFormula", name,
            "A saved estimator holds no others, as they may run code. Apply that one to the frame "
            "yourself, or use Spark SQL.",
        )  # fmt: skip
    if stage.hasParam("handleInvalid") and stage.getOrDefault("handleInvalid") == "skip":
        raise InputError(
            f"stages of preprocess that keep all rows, {name} among them", "handleInvalid='skip'",
            "Use 'keep' or 'error', and leave rows out with frame.where(...).",
        )  # fmt: skip


def _ways(stage: Any) -> list[tuple[list[str], list[str]]]:
    """Which columns a stage reads, and which it makes of them."""

    def named(*params: str) -> list[str]:
        for param in params:
            if stage.hasParam(param) and stage.isDefined(param):
                value = stage.getOrDefault(param)
                return [value] if isinstance(value, str) else list(value)
        return []

    read = named("inputCols", "inputCol", "featuresCol")
    # `outputCol` has a default, also where several columns are asked for.
    made = named("outputCols", "outputCol") or read
    ways = [(read, made)]
    if len(read) == len(made):
        ways = [([one], [other]) for one, other in zip(read, made, strict=True)]
    if isinstance(stage, Estimator) and (label := named("labelCol")):
        ways.append((label, []))
    return ways


def _needed(
    fitted: PipelineModel, wanted: Collection[str]
) -> list[tuple[Any, set[str], list[str]]]:
    """The stages without which a wanted column would be missing: what each reads and makes."""
    needed, found = set(wanted), []
    for stage in reversed(list(_flat(fitted))):
        ways = _ways(stage)
        read = {name for names, made in ways if needed.intersection(made) for name in names}
        if read:
            needed |= read
            found.append((stage, read, [name for _, made in ways for name in made]))
    return found[::-1]


def _require_columns(frame: DataFrame, names: Collection[str]) -> None:
    if missing := sorted(set(names).difference(frame.columns)):
        raise ColumnError(
            "the columns that preprocess reads", f"a frame without {', '.join(missing)}",
            f"It has {', '.join(frame.columns[:20])}.",
        )  # fmt: skip


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        with stages_explained(), while_spark_runs(active_session().sparkContext):
            yield
    except (Py4JError, PySparkException) as exc:
        said = re.sub(r"^An error occurred while calling.*\s+: ", "", str(exc))
        remedy = "Look at the settings of the stages, and at the types of the columns."
        if "empty string for name" in said:
            remedy = "OneHotEncoder takes no empty texts: make them NULL, with F.nullif before."
        raise InputError(
            "rows and columns that the stages of preprocess take",
            said.splitlines()[0].rstrip("."),
            remedy,
        ) from exc


def _written(fitted: PipelineModel) -> Saved:
    saved = []
    for stage in _flat(fitted):
        _require_known(stage)
        with tempfile.TemporaryDirectory(prefix="zoo-stage-") as folder, _explained():
            place = Path(folder) / "stage"
            stage.write()._jwrite.saveToLocal(str(place))
            files = {
                path.relative_to(place).as_posix(): base64.b64encode(path.read_bytes()).decode()
                for path in sorted(place.rglob("*"))
                if path.is_file()
            }
        saved.append({"class": type(stage).__name__, "files": files})
    return saved


def _checked(kept: Any) -> tuple[Saved, str | None]:
    """What a state has kept, if it may be opened."""
    try:
        saved, label = kept["stages"], kept["label"]
        for stage in saved:
            sound = not issubclass(_KNOWN[stage["class"]], Estimator)
            for name, content in stage["files"].items():
                base64.b64decode(content, validate=True)
                sound = sound and bool(_FILE.fullmatch(name))
            if not sound:
                raise ValueError(f"{stage['class']} with {', '.join(stage['files'])}")
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise InputError(
            "stages of preprocess as save writes them", f"{type(exc).__name__}: {exc}",
            "Take another file: this one was changed.",
        ) from exc  # fmt: skip
    return saved, label


def _read(saved: Saved) -> PipelineModel:
    active_session()
    stages = []
    for stage in saved:
        kind = _KNOWN[stage["class"]]
        with tempfile.TemporaryDirectory(prefix="zoo-stage-") as folder, _explained():
            for name, content in stage["files"].items():
                place = Path(folder) / name
                place.parent.mkdir(exist_ok=True)
                place.write_bytes(base64.b64decode(content))
            # The class of what is read is compared with that of the reader.
            stages.append(kind._from_java(kind.read()._jread.loadFromLocal(folder)))
    return PipelineModel(stages)
