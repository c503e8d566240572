"""PyTorch, as the driver and the ranks ask for it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, BinaryIO

import torch
from torch.utils.data import DataLoader

from zoo.cluster.ranks.carried import pickled, unpickled
from zoo.cluster.ranks.member import Member
from zoo.errors import InputError
from zoo.orca.data.tensors.plan import TensorPlan
from zoo.orca.learn.framework import Feed, Learner, Place, State
from zoo.orca.learn.order import Order, Source, TensorSource
from zoo.orca.learn.pytorch.batches import TensorBatches, on_device
from zoo.orca.learn.pytorch.device import choose_device
from zoo.orca.learn.pytorch.late_compiler import put_off_compiler
from zoo.orca.learn.pytorch.loading.given_loader import GivenLoader
from zoo.orca.learn.pytorch.loading.loader_batches import open_loader
from zoo.orca.learn.pytorch.losses import LossPerOutput
from zoo.orca.learn.pytorch.modes import evaluating
from zoo.orca.learn.pytorch.operator.host import add_operator, predicting, replaces
from zoo.orca.learn.pytorch.operator.learner import StepsLearner, learner_kind
from zoo.orca.learn.pytorch.operator.loop import OperatorLoop
from zoo.orca.learn.pytorch.operator.scorer import make_scorer, score_batches
from zoo.orca.learn.pytorch.operator.several import as_given, members
from zoo.orca.learn.pytorch.outputs import evaluated, evaluator, local_predictor, predictor
from zoo.orca.learn.pytorch.readings import read_as
from zoo.orca.learn.pytorch.recipe import (
    Built,
    Recipe,
    build,
    float_dtype,
    not_trained,
    takes_one_input,
)
from zoo.orca.learn.pytorch.rehearsal import as_taken
from zoo.orca.learn.pytorch.row_losses import require_row_losses
from zoo.orca.learn.pytorch.scorer import AnyMetric, Scorer, running_metrics
from zoo.orca.learn.pytorch.state import apply_state, read_state, settings_of, write_state
from zoo.orca.learn.rank.loop import Loop
from zoo.orca.learn.rank.opening import open_feed
from zoo.orca.learn.score.evaluate import SentEvaluator
from zoo.orca.learn.score.predict import Predictor, SentModel
from zoo.orca.learn.steps import Position

__all__ = ["Torch"]

put_off_compiler()

_log = logging.getLogger(__name__)


class Torch:
    """See `zoo.orca.learn.framework.Framework`."""

    title = "PyTorch"
    other_settings = (
        "set run.optimizer.param_groups in a callback, or load weights alone, saved with "
        "torch.save(model.state_dict(), path)"
    )

    def build(self, recipe: Recipe) -> Built:
        """Carry out a recipe on the driver; its `seed`, when given, is that of first weights.

        The user's own module stays as it is, and may be given to other estimators.
        """
        if not recipe.makes_weights:
            # Together, as the optimizer holds parameters of the module.
            model, optimizer = _copied((recipe.model, recipe.optimizer))
            recipe = replace(recipe, model=model, optimizer=optimizer)
        seed = recipe.config.get("seed")
        with torch.random.fork_rng(devices=[], enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(int(seed))
            built = self._whole(recipe, torch.device("cpu"))
        if built.chosen and (names := not_trained(built)):
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")
            _log.warning(
                "the optimizer does not have these parameters of the model, so they are not "
                "trained: %s. Make it from all of model.parameters(), after the last layer is in "
                "its place; where it is meant, set requires_grad to False for them.", shown,
            )  # fmt: skip
        return built

    def begin(self, order: Order, member: Member) -> Built:
        """See `Framework`."""
        torch.set_num_threads(order.threads)
        recipe: Recipe = unpickled(order.recipe)
        if recipe.initialization_hook is not None:
            recipe.initialization_hook()
        built = self._whole(recipe, choose_device(member, recipe.config))
        if built.operator is not None:
            built.operator.info, built.operator.rank = order.info, member.rank
        return built

    def write(
        self, file: BinaryIO, built: Built, position: Position, extras: Mapping[str, Any]
    ) -> None:
        """See `Framework`."""
        write_state(file, built, position, extras)

    def read(self, blob: bytes) -> State:
        """See `Framework`."""
        return read_state(blob)

    def apply(self, built: Built, state: State) -> Position:
        """See `Framework`."""
        position = apply_state(built, state)
        if built.operator is not None:
            built.operator.position = position
        return position

    def settings(self, built: Built) -> dict[str, Any]:
        """See `Framework`."""
        return settings_of(built)

    def open(self, source: Source, member: Member) -> Feed:
        """See `Framework`."""
        if not isinstance(source, TensorSource):
            return open_loader(source, member)
        feed = open_feed(source, member, threads=torch.get_num_threads())
        return TensorBatches(feed, source.plan)

    def learner(self, built: Built, order: Order, place: Place, validation: Feed | None) -> Learner:
        """See `Framework`."""
        return learner_kind(built)(
            built,
            place,
            seed=order.seed,
            step_freq=built.step_freq,
            validation=validation,
            metrics=order.metrics,
            limits=order.limits,
        )

    def loop(self, learner: Learner) -> type[Loop]:
        """See `Framework`."""
        return OperatorLoop if isinstance(learner, StepsLearner) else Loop

    def evaluate(self, built: Built, order: Order, feed: Feed) -> Scorer:
        """See `Framework`."""
        if built.operator is not None:
            built.operator.start(built)
        scorer = make_scorer(built, order.metrics)
        with evaluating(built.model):
            score_batches(scorer, on_device(feed.epoch(0), built.device))
        return scorer

    def metrics(self, given: Any) -> dict[str, AnyMetric]:
        """See `Framework`."""
        return running_metrics(given)

    def scorer(self, built: Built, metrics: Mapping[str, AnyMetric]) -> Scorer:
        """See `Framework`."""
        return make_scorer(built, metrics)

    def evaluator(
        self, built: Built, metrics: Mapping[str, AnyMetric], info: Mapping[str, Any]
    ) -> SentEvaluator:
        """See `Framework`."""
        if built.operator is not None:
            built.operator.info = info
        return SentEvaluator(evaluated(built, metrics), evaluator)

    def predictors(self, built: Built, output: str) -> tuple[SentModel, Predictor]:
        """See `Framework`."""
        model = read_as(predicting(built).model, built.loss, output)
        return SentModel(pickled(model, "a model"), predictor), local_predictor(model)

    def as_given(self, built: Built, *, live: bool) -> Any:
        """See `Framework`."""
        return as_given(built.model if live else _copied(built.model))

    def float_dtype(self, built: Built) -> str:
        """See `Framework`."""
        return float_dtype(members(built.model)[0])

    def takes_one_input(self, built: Built) -> bool:
        """See `Framework`."""
        return takes_one_input(members(built.model)[0])

    def takes_text(self, built: Built) -> bool:
        """See `Framework`."""
        return False

    def creator(self, data: Any) -> Any:
        """See `Framework`."""
        return GivenLoader.of(data) if isinstance(data, DataLoader) else data

    def require_row_losses(self, built: Built) -> None:
        """See `Framework`."""
        host = built.operator
        own = ("forward_batch", "train_batch", "train_epoch", "validate", "validate_batch")
        if host is not None and replaces(host.kind, *own):
            raise InputError(
                "the steps of the library, to weigh rows in",
                f"{host.kind.__name__}, which has steps of its own",
                "Take the weights among the features, and weigh the rows in its forward_batch.",
            )
        loss = built.loss
        require_row_losses(loss.losses if isinstance(loss, LossPerOutput) else [loss])

    def as_taken(
        self,
        built: Built,
        plan: TensorPlan,
        fixed: frozenset[str],
        predictor: Predictor | None = None,
    ) -> TensorPlan:
        """See `Framework`."""
        return as_taken(built, plan, fixed, predictor)

    def _whole(self, recipe: Recipe, device: torch.device) -> Built:
        built = build(recipe, device)
        if recipe.operator is not None:
            add_operator(built, recipe.operator, recipe.config, recipe.use_tqdm)
        return built


def _copied(parts: Any) -> Any:
    """A copy, in which parameters that are shared stay shared."""
    try:
        return copy.deepcopy(parts)
    except (RuntimeError, TypeError):  # tensors that were computed, as old weight norms keep them
        return unpickled(pickled(parts, "a model"))
