"""What an estimator has trained: its model, its history, its files."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from zoo.orca.data.tensors.plan import TensorPlan
from zoo.orca.learn.driver.keeper import write_whole
from zoo.orca.learn.driver.model import TrainedModel
from zoo.orca.learn.driver.resume import read_checkpoint
from zoo.orca.learn.driver.rounds import Trained
from zoo.orca.learn.driver.stages import Stages
from zoo.orca.learn.estimator_settings import EstimatorSettings
from zoo.orca.learn.framework import Recipe, framework_for
from zoo.orca.learn.history import History, epoch_dict
from zoo.orca.learn.report_page import FitFacts, render_page

if TYPE_CHECKING:
    from pyspark.ml import Pipeline, PipelineModel

__all__ = ["TrainedEstimator"]

_log = logging.getLogger(__name__)


class TrainedEstimator(EstimatorSettings):
    """Holds what is trained, and gives it away or takes it from files.

    Args:
        framework: Its name in `zoo.orca.learn.framework.FRAMEWORKS`.
        recipe: What the user gave to build a training from.
        snapshots: Where they are kept, or None, and how many; None keeps all.
        preprocess: Stages for its frames, fitted or not.
    """

    def __init__(
        self,
        framework: str,
        recipe: Recipe,
        snapshots: tuple[str | None, int | None],
        preprocess: Pipeline | PipelineModel | None = None,
    ) -> None:
        super().__init__()
        self._name, self._framework = framework, framework_for(framework)
        self._recipe = recipe
        self._training = TrainedModel(self._framework, recipe, *snapshots, Stages(preprocess))
        self._history = History()
        self._plan: TensorPlan | None = None
        self._settings: dict[str, Any] = recipe.describe()
        self._evaluation: dict[str, Any] = {}

    @property
    def _built(self) -> Any:
        return self._training.built

    @property
    def history(self) -> History:
        """The epochs of the last fit, also of one that was interrupted."""
        return self._history

    @property
    def preprocess(self) -> PipelineModel | None:
        """The fitted stages that every frame goes through; None without, and before a fit."""
        return self._training.stages.fitted

    def __repr__(self) -> str:
        epochs = self._training.position.epoch
        done = f"{epochs} epoch{'' if epochs == 1 else 's'} trained"
        state = "nothing trained so far" if self._training.fresh else done
        return f"<{type(self).__name__} on {self._name}: {state}>"

    def report_page(
        self,
        path: str | os.PathLike[str],
        *,
        title: str = "Training report",
        classes: Sequence[str] = (),
        sections: Mapping[str, Any] | None = None,
    ) -> str:
        """Write a page about the last fit and the last evaluation after it.

        One HTML file that needs no other and no network: curves of training and validation, where
        the time went, settings, data and versions. Of the metric `ConfusionMatrix` it draws the
        matrix, of `PredictionPairs` predictions against true values and the residuals.

        Args:
            path: The file, on any file system; folders on the way are made.
            title: Its heading.
            classes: Names of the classes, in order.
            sections: More of your own by heading: texts, pandas DataFrames (their first 100 rows),
                figures of matplotlib.

        Returns:
            The path.

        Raises:
            InputError: There was neither a fit nor an evaluation, or a section is of another kind.
            MissingExtraError: The extra `report` is not installed.
        """
        facts = FitFacts(self._history, self.report, self._plan, self._settings, self._evaluation)
        page = render_page(facts, title=title, classes=classes, sections=sections)
        write_whole(path, page.encode())
        return os.fspath(path)

    def _take(self, done: Trained, profile: bool) -> None:
        """Have what a fit gave, also when the user has ended it."""
        self._training.end_fit(done.state)
        self._report, self._plan = done.report, done.plan or self._plan
        self._evaluation = {}
        self._history = History(epoch_dict(ranks[0], profile) for ranks in done.epochs)
        if done.interrupted:
            at = self._training.position
            _log.warning(
                "interrupted after step %d, %d whole epochs: the estimator has these weights, and "
                "history, and the next fit goes on from them", at.iteration, at.epoch,
            )  # fmt: skip
            raise KeyboardInterrupt

    def get_model(self, *, live: bool = False) -> Any:
        """The model with its trained weights; a list where several are trained.

        Args:
            live: Give the model of this estimator itself, which later fits change and which changes
                what they begin with, instead of a copy.
        """
        return self._framework.as_given(self._built, live=live)

    def save(self, model_path: str) -> str:
        """Save weights, optimizer, schedule and position in one file.

        Args:
            model_path: The file; folders on the way are made. It appears whole or not at all.

        Returns:
            The path.
        """
        self._training.save(model_path)
        return model_path

    def load(self, model_path: str) -> Self:
        """Continue from a file of `save`, or from one of weights that the framework wrote alone.

        A snapshot that was taken inside an epoch makes the next fit go on there.

        Raises:
            InputError: The file cannot be read as such.
        """
        self._training.load(model_path)
        return self

    def load_orca_checkpoint(
        self, path: str, version: int | None = None, prefix: str | None = None
    ) -> None:
        """Continue from a snapshot of an earlier fit.

        Args:
            path: The `model_dir` of that fit, for its newest whole snapshot; the folder of one of
                its runs, or one file.
            version: The number in the name of the snapshot: its iteration. `path` must then be
                the folder of the run.
            prefix: Needed with `version` by old programs; otherwise without meaning here.

        Raises:
            ContractError: `version` without `prefix`.
            InputError: There is no whole snapshot.
        """
        self._training.take(read_checkpoint(path, version, prefix))

    def shutdown(self, force: bool = False) -> None:
        """Nothing to do: no workers outlive a call. Kept for programs that call it."""
