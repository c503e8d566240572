"""The stages that an estimator puts before its model: fitted once, kept with it, applied to all.

`pyspark.ml` takes a second to import, with SciPy: programs without stages go without it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from pyspark import SparkContext
from pyspark.sql import DataFrame

from zoo.errors import ColumnError, InputError

if TYPE_CHECKING:
    from pyspark.ml import Pipeline, PipelineModel

    from zoo.orca.learn.driver.pipelines import Saved

__all__ = ["Stages"]


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
        self._given: Pipeline | None = None
        self._saved, self._label, self.settled = saved, label, saved is not None
        self._opened: tuple[Any, PipelineModel] | None = None
        if given is not None:
            self._take(given)

    def _take(self, given: Any) -> None:
        from pyspark.ml import Pipeline, PipelineModel

        from zoo.orca.learn.driver.pipelines import flat, require_known, written

        if not isinstance(given, Pipeline | PipelineModel):
            raise InputError(
                "preprocess as a pyspark.ml Pipeline or PipelineModel", type(given).__name__,
                "Pass encode(index=['country']) of zoo.orca.learn.preprocess, for example.",
            )  # fmt: skip
        for stage in flat(given):
            require_known(stage)
        if isinstance(given, Pipeline):
            self._given = given
        else:
            self._saved = written(given)

    @staticmethod
    def read(extras: Mapping[str, Any]) -> Stages | None:
        """The fitted stages of a state; None where it has none.

        Raises:
            InputError: They are none that a file may hold.
        """
        kept = extras.get("preprocess")
        if kept is None:
            return None
        from zoo.orca.learn.driver.pipelines import checked

        return Stages(None, *checked(kept))

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
            from zoo.orca.learn.driver.pipelines import opened

            self._opened = SparkContext._jvm, opened(self._saved)
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
        from zoo.orca.learn.driver.pipelines import explained, flat, ways, written

        made: set[str] = set()
        for stage in flat(self._given):
            own = ways(stage)
            _require_columns(frame, {name for names, _ in own for name in names} - made)
            made.update(name for _, names in own for name in names)
        try:
            with explained():
                self._saved, self._opened = written(self._given.fit(frame)), None
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
        from zoo.orca.learn.driver.pipelines import explained, needed

        for stage, read, made in needed(fitted, wanted):
            _require_columns(frame, read)
            if twin := next((n for n in made if n in frame.columns and n not in read), None):
                raise InputError(
                    f"a frame without the column '{twin}', which preprocess makes", "one with it",
                    "Rename or drop it, or leave preprocess out.",
                )  # fmt: skip
            with explained():
                frame = stage.transform(frame)
        return frame

    @property
    def classes(self) -> list[str] | None:
        """The names of classes, if a stage has made the numbers that the model was trained on."""
        fitted = self.fitted if self._label else None
        if fitted is None:
            return None
        from zoo.orca.learn.preprocess import vocabularies

        return vocabularies(fitted).get(str(self._label))

    @property
    def reads(self) -> set[str]:
        """All columns that stages read."""
        stages = self.fitted or self._given
        if stages is None:
            return set()
        from zoo.orca.learn.driver.pipelines import flat, ways

        return {name for stage in flat(stages) for names, _ in ways(stage) for name in names}


def _require_columns(frame: DataFrame, names: Collection[str]) -> None:
    if missing := sorted(set(names).difference(frame.columns)):
        raise ColumnError(
            "the columns that preprocess reads", f"a frame without {', '.join(missing)}",
            f"It has {', '.join(frame.columns[:20])}.",
        )  # fmt: skip
