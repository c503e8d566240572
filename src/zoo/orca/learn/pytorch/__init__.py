"""Train PyTorch models on Spark data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from zoo.cluster.session.soon import needed_soon
from zoo.errors import require_extra
from zoo.orca.learn.recovery import KEPT, Recovery

if TYPE_CHECKING:
    from pyspark.ml import Pipeline, PipelineModel
    from torch import nn

    from zoo.orca.data.tensors.plan import Decoder
    from zoo.orca.learn.pytorch.estimator import TorchEstimator
    from zoo.orca.learn.pytorch.training_operator import TrainingOperator

__all__ = ["Estimator", "TrainingOperator"]

# Every module beside this one needs it, and Python comes by here first. It takes seconds to
# import, in which the driver JVM can start; ranks need nothing of the driver's side.
require_extra("torch", "torch")
needed_soon(f"{__name__}.estimator")


def __getattr__(name: str) -> object:
    if name == "TrainingOperator":
        from zoo.orca.learn.pytorch.training_operator import TrainingOperator

        return TrainingOperator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


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
        training_operator_cls: type[TrainingOperator] | None = None,
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
        keep_snapshots: int | None = KEPT,
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
        from zoo.orca.learn.pytorch.estimator import made_of

        return made_of(given)
