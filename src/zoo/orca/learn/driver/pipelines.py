"""Pipelines of `pyspark.ml`: which stages there may be, what they read and make, how they are kept.

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
from pyspark.errors import PySparkException
from pyspark.ml import Estimator, Pipeline, PipelineModel, feature

from zoo.cluster.session.ended import while_spark_runs
from zoo.cluster.session.lifecycle import active_session
from zoo.errors import InputError
from zoo.orca.data.tensors.spark_rows import stages_explained

__all__ = [
    "Saved",
    "checked",
    "explained",
    "flat",
    "needed",
    "opened",
    "require_known",
    "ways",
    "written",
]

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


def flat(pipeline: Any) -> Iterator[Any]:
    """The stages, also those of pipelines inside."""
    for stage in pipeline.getStages() if isinstance(pipeline, Pipeline) else pipeline.stages:
        if isinstance(stage, Pipeline | PipelineModel):
            yield from flat(stage)
        else:
            yield stage


def require_known(stage: Any) -> None:
    """Refuse a stage that no file may hold.

    Raises:
        InputError: It is of another kind, or leaves out rows.
    """
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


def ways(stage: Any) -> list[tuple[list[str], list[str]]]:
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
    found = [(read, made)]
    if len(read) == len(made):
        found = [([one], [other]) for one, other in zip(read, made, strict=True)]
    if isinstance(stage, Estimator) and (label := named("labelCol")):
        found.append((label, []))
    return found


def needed(fitted: PipelineModel, wanted: Collection[str]) -> list[tuple[Any, set[str], list[str]]]:
    """The stages without which a wanted column would be missing: what each reads and makes."""
    asked, found = set(wanted), []
    for stage in reversed(list(flat(fitted))):
        own = ways(stage)
        read = {name for names, made in own if asked.intersection(made) for name in names}
        if read:
            asked |= read
            found.append((stage, read, [name for _, made in own for name in made]))
    return found[::-1]


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Make errors of Spark's ours."""
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


def written(fitted: PipelineModel) -> Saved:
    """The stages as plain values."""
    saved = []
    for stage in flat(fitted):
        require_known(stage)
        with tempfile.TemporaryDirectory(prefix="zoo-stage-") as folder, explained():
            place = Path(folder) / "stage"
            stage.write()._jwrite.saveToLocal(str(place))
            files = {
                path.relative_to(place).as_posix(): base64.b64encode(path.read_bytes()).decode()
                for path in sorted(place.rglob("*"))
                if path.is_file()
            }
        saved.append({"class": type(stage).__name__, "files": files})
    return saved


def checked(kept: Any) -> tuple[Saved, str | None]:
    """What a state has kept, and the column of labels, if it may be opened.

    Raises:
        InputError: It holds what `written` does not write.
    """
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


def opened(saved: Saved) -> PipelineModel:
    """The stages again."""
    active_session()
    stages = []
    for stage in saved:
        kind = _KNOWN[stage["class"]]
        with tempfile.TemporaryDirectory(prefix="zoo-stage-") as folder, explained():
            for name, content in stage["files"].items():
                place = Path(folder) / name
                place.parent.mkdir(exist_ok=True)
                place.write_bytes(base64.b64decode(content))
            # The class of what is read is compared with that of the reader.
            stages.append(kind._from_java(kind.read()._jread.loadFromLocal(folder)))
    return PipelineModel(stages)
