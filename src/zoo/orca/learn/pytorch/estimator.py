"""The estimator for PyTorch models: train, evaluate and predict on Spark data."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

from torch import nn

from zoo.cluster.ranks.crew import Crew
from zoo.errors import InputError, NotYetError
from zoo.orca.data.tensors.plan import Decoder
from zoo.orca.learn.estimator import SparkEstimator, require_count
from zoo.orca.learn.estimator_settings import EstimatorSettings
from zoo.orca.learn.pytorch.operator.host import checked_operator
from zoo.orca.learn.pytorch.recipe import Recipe
from zoo.orca.learn.pytorch.training_operator import TrainingOperator
from zoo.orca.learn.recovery import Recovery

if TYPE_CHECKING:
    from pyspark.ml import Pipeline, PipelineModel

__all__ = ["Estimator", "TorchEstimator"]

_log = logging.getLogger(__name__)
# Newest snapshots of a fit.
_KEPT = 3
_log = logging.getLogger(__name__)

_EARLIER = ("bigdl", "horovod", "torch_distributed")
_LATER = ("ray",)


class Estimator:
    """Makes estimators for PyTorch models."""

    @staticmethod
    def from_torch(  # noqa: PLR0913 - the arguments that existing programs pass
        *,
        model: nn.Module | Callable[[dict[str, Any]], Any],
        optimizer: Any = None,
        loss: Any = None,
        metrics: Any = None,
        scheduler_creator: Callable[..., Any] | None = None,
        training_operator_cls: type[TrainingOperator] | None = TrainingOperator,
        initialization_hook: Callable[[], object] | None = None,
        config: Mapping[str, Any] | None = None,
        scheduler_step_freq: str | None = "batch",
        use_tqdm: bool = False,
        workers_per_node: int = 1,
        model_dir: str | None = None,
        backend: str = "spark",
        decoders: Mapping[str, Decoder] | None = None,
        min_workers: int = 1,
        max_workers: int | None = None,
        precision: str | None = None,
        gradient_accumulation: int = 1,
        recovery: Recovery | None = None,
        keep_snapshots: int | None = _KEPT,
        preprocess: Pipeline | PipelineModel | None = None,
    ) -> TorchEstimator:
        """Make an estimator; nothing runs yet.

        Args:
            model: A module, or a function `f(config)` that makes one.
            optimizer: A torch optimizer over the module's parameters, one of
                `zoo.orca.learn.optimizers`, a function `f(model, config)` that makes one, or None
                for plain SGD.
            loss: A torch loss, any function `(output, target)`, a function `f(config)` that makes
                one, a list with one loss for each output, or None when the model's output is the
                loss.
            metrics: One or several of `zoo.orca.learn.metrics`; a list of lists has those of each
                output in turn.
            scheduler_creator: `f(optimizer, config)` that makes a learning-rate schedule.
            training_operator_cls: A class derived from `TrainingOperator`, for training of another
                kind. With one, creators may return a list of models, optimizers or schedules.
            initialization_hook: Called in every rank, whenever one begins, before the model is
                made.
            config: Handed to every creator function. Read here: `seed`, of first weights (when
                given), the order of rows and dropout (0), and `shuffle` (True).
            scheduler_step_freq: The schedule advances every `"batch"`, every `"epoch"`, or not at
                all (None).
            use_tqdm: Show a progress bar even when nobody seems to look.
            workers_per_node: Ranks of each executor, which share its cores.
            model_dir: Where snapshots are kept, on any file system that the driver reaches:
                after every epoch unless `fit` is told otherwise.
            backend: `"spark"`: ranks are Spark tasks.
            decoders: For binary columns, a function from bytes to an array, such as
                `zoo.orca.data.image.ImageDecoder`; for columns of numbers, a dtype.
            min_workers: Ranks with which training begins, or goes on after a loss, when no more
                are there.
            max_workers: Most ranks; None for `workers_per_node` on every executor that Spark has
                when a round begins. With dynamic allocation, ask for as many as you want: Spark
                starts executors for them, and ranks join while the fit runs.
            precision: `"bf16"` or `"fp16"`: forward and loss in mixed precision.
            gradient_accumulation: Parts in which each rank goes through its rows of a step: the
                update of a large batch with the memory of a small one.
            recovery: What is put up with when ranks are lost; `Recovery()` by default.
            keep_snapshots: Newest snapshots of a fit to keep in `model_dir`; None keeps all.
            preprocess: Stages of `pyspark.ml.feature` that every DataFrame goes through first, such
                as those of `zoo.orca.learn.preprocess.encode`. A `Pipeline` is fitted by the first
                `fit`, on the rows to train on. They are saved with the model.

        Raises:
            InputError: An argument cannot be used.
            NotYetError: The backend is known and not available yet.
        """
        given = dict(locals())
        _require_backend(backend)
        if initialization_hook is not None and not callable(initialization_hook):
            raise InputError(
                "initialization_hook as a function", repr(initialization_hook), "Pass a function."
            )
        recipe = Recipe(
            model=model,
            optimizer=optimizer,
            loss=loss,
            scheduler_creator=scheduler_creator,
            scheduler_step_freq=scheduler_step_freq,
            config=_checked_config(config),
            precision=precision,
            accumulate=gradient_accumulation,
            operator=checked_operator(training_operator_cls, gradient_accumulation),
            initialization_hook=initialization_hook,
            use_tqdm=use_tqdm,
        )
        if scheduler_step_freq not in ("batch", "epoch", None):
            raise InputError(
                "scheduler_step_freq 'batch', 'epoch' or None",
                repr(scheduler_step_freq),
                "Choose one of the three.",
            )
        if precision not in ("bf16", "fp16", None):
            raise InputError("precision 'bf16', 'fp16' or None", repr(precision), "Choose one.")
        require_count("workers_per_node", workers_per_node)
        require_count("gradient_accumulation", gradient_accumulation)
        require_count("min_workers", min_workers)
        if max_workers is not None:
            require_count("max_workers", max_workers)
            if max_workers < min_workers:
                raise InputError(
                    "max_workers of at least min_workers", f"{max_workers} and {min_workers}",
                    "Swap them.",
                )  # fmt: skip
        if not isinstance(recovery, Recovery | None):
            raise InputError(
                "recovery as a zoo.orca.learn.recovery.Recovery", type(recovery).__name__,
                "Pass Recovery(retries=3), for example.",
            )  # fmt: skip
        if keep_snapshots is not None:
            require_count("keep_snapshots", keep_snapshots)
        if model_dir is None and keep_snapshots != _KEPT:
            raise InputError(
                "a model_dir to keep snapshots in", f"keep_snapshots={keep_snapshots!r} alone",
                "Pass model_dir as well.",
            )  # fmt: skip
        made = TorchEstimator(
            "pytorch",
            recipe,
            metrics=metrics,
            crew=Crew(min_workers, max_workers, workers_per_node),
            snapshots=(model_dir, keep_snapshots),
            decoders=decoders,
            show_progress=True if use_tqdm else None,
            recovery=recovery or Recovery(),
            preprocess=preprocess,
        )
        made._given = given
        return made


def _require_backend(backend: str) -> None:
    if backend == "spark":
        return
    if backend in _EARLIER:
        _log.warning(
            "backend=%r is trained as backend='spark': in ranks that are tasks of Spark, with "
            "batch_size as the rows of a step over all ranks.", backend,
        )  # fmt: skip
        return
    if backend in _LATER:
        raise NotYetError("backend='spark'", repr(backend), "This version trains in Spark tasks.")
    names = ", ".join(["spark", *_EARLIER, *_LATER])
    raise InputError(f"backend as one of {names}", repr(backend), "Use 'spark'.")


def _checked_config(config: Mapping[str, Any] | None) -> dict[str, Any]:
    if config is not None and not isinstance(config, Mapping):
        raise InputError("config as a dict", type(config).__name__, "Pass config={'lr': 0.1}.")
    settings = dict(config or {})
    if "batch_size" in settings:
        raise InputError(
            "config without batch_size (Please do not specify batch_size in config)",
            f"batch_size={settings['batch_size']!r}",
            "Pass batch_size to fit, evaluate and predict.",
        )
    return settings


class TorchEstimator(SparkEstimator):
    """Trains a PyTorch model on Spark data, and predicts and evaluates with it.

    Made by `Estimator.from_torch`. A data creator returns a torch DataLoader; `info` goes to the
    `training_operator_cls`; `load` also takes a bare `torch.save(model.state_dict())`.
    `get_params`, `set_params` and `clone` are those of scikit-learn, whose `sklearn.base.clone`
    works on it.
    """

    _given: dict[str, Any]

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """What `from_torch` was given, by name.

        Args:
            deep: With each entry of `config` besides, as `config__<name>`.
        """
        nested = dict(self._given["config"] or {}) if deep else {}
        return {**self._given, **{f"config__{name}": value for name, value in nested.items()}}

    def set_params(self, **params: Any) -> Self:
        """Change what `from_torch` was given, before anything is trained.

        Args:
            params: By name; `config__lr=0.1` changes one entry of `config`.

        Raises:
            InputError: There is no such name, a value cannot be used, or something is trained.
        """
        if not params:
            return self
        if not self._training.fresh:
            raise InputError(
                "an estimator that has trained nothing, to change what it is made of",
                repr(self), "Change a copy: est.clone().set_params(...).",
            )  # fmt: skip
        given, entries = dict(self._given), {}
        for name, value in params.items():
            entry = name.removeprefix("config__")
            if entry != name:
                entries[entry] = value
            elif name in given:
                given[name] = value
            else:
                names = ", ".join(given)
                raise InputError(f"{names}, or config__<name>", repr(name), "Correct the name.")
        if entries:
            given["config"] = {**(given["config"] or {}), **entries}
        kept = vars(EstimatorSettings())
        made = vars(Estimator.from_torch(**given))
        vars(self).update({name: part for name, part in made.items() if name not in kept})
        return self

    def clone(self) -> TorchEstimator:
        """An estimator made of the same, which has trained nothing."""
        return Estimator.from_torch(**self._given)

    __sklearn_clone__ = clone
