"""Makes estimators of functions that make Keras models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from zoo.cluster.session.soon import needed_soon
from zoo.errors import require_extra
from zoo.orca.learn.recovery import KEPT, Recovery

if TYPE_CHECKING:
    from pyspark.ml import Pipeline, PipelineModel

    from zoo.orca.data.tensors.plan import Decoder
    from zoo.orca.learn.keras.estimator import KerasEstimator

__all__ = ["Estimator"]

# Keras and its backend take seconds to import, in which the driver JVM can start.
require_extra("keras", "keras")
needed_soon("zoo.orca.learn.keras.estimator")


class Estimator:
    """Makes estimators of functions that make Keras models."""

    @staticmethod
    def from_keras(  # noqa: PLR0913 - the arguments that existing programs pass
        *,
        model_creator: Callable[[dict[str, Any]], Any],
        config: Mapping[str, Any] | None = None,
        verbose: bool = False,
        workers_per_node: int = 1,
        compile_args_creator: Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
        backend: str = "tf2",
        cpu_binding: bool = False,
        metrics: Any = None,
        model_dir: str | None = None,
        decoders: Mapping[str, Decoder] | None = None,
        min_workers: int = 1,
        max_workers: int | None = None,
        recovery: Recovery | None = None,
        keep_snapshots: int | None = KEPT,
        preprocess: Pipeline | PipelineModel | None = None,
    ) -> KerasEstimator:
        """Make an estimator; nothing runs yet.

        Args:
            model_creator: `f(config)` that returns a `keras.Model`: compiled, unless
                `compile_args_creator` is given, or the model only predicts.
            config: Handed to all functions. Read here: `seed`, of first weights (when given), the
                order of rows and dropout (0), and `shuffle` (True).
            verbose: Show a progress bar even when nobody seems to look.
            workers_per_node: Ranks of each executor, which share its cores.
            compile_args_creator: `f(config)` that returns the arguments of `compile` as a dict.
            backend: `"tf2"`, `"spark"` or `"horovod"`, which are the same: ranks are Spark tasks.
                The backend of Keras is that of the environment variable KERAS_BACKEND.
            cpu_binding: Kept for older programs: Spark places its tasks.
            metrics: Of validation and evaluation, besides those that the model is compiled with.
            model_dir: Where snapshots are kept, on any file system that the driver reaches.
            decoders: For binary columns, a function from bytes to an array; for columns of
                numbers, a dtype.
            min_workers: Ranks with which training begins, or goes on after a loss.
            max_workers: Most ranks; None for `workers_per_node` on every executor.
            recovery: What is put up with when ranks are lost; `Recovery()` by default.
            keep_snapshots: Newest snapshots of a fit to keep in `model_dir`; None keeps all.
            preprocess: Stages of `pyspark.ml.feature` that every DataFrame goes through first.

        Raises:
            InputError: An argument cannot be used.
            NotYetError: The backend is known and not available yet.
        """
        given = dict(locals())
        from zoo.orca.learn.given_estimator import require_backend
        from zoo.orca.learn.keras.estimator import make_estimator

        if backend != "tf2":
            require_backend(backend, ("horovod",))
        made = make_estimator(
            model_creator=model_creator,
            compile_args_creator=compile_args_creator,
            metrics=metrics,
            config=config,
            model_dir=model_dir,
            workers_per_node=workers_per_node,
            min_workers=min_workers,
            max_workers=max_workers,
            decoders=decoders,
            recovery=recovery,
            keep_snapshots=keep_snapshots,
            preprocess=preprocess,
            show_progress=True if verbose else None,
        )
        made._given, made._maker = given, Estimator.from_keras
        return made
