"""Makes estimators of compiled Keras models, and of graphs of TensorFlow 1."""

from __future__ import annotations

from collections.abc import Mapping
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
    """Makes estimators of compiled Keras models, and of graphs of TensorFlow 1."""

    @staticmethod
    def from_keras(  # noqa: PLR0913 - the arguments that existing programs pass
        keras_model: Any,
        metrics: Any = None,
        model_dir: str | None = None,
        optimizer: Any = None,
        backend: str = "bigdl",
        *,
        config: Mapping[str, Any] | None = None,
        workers_per_node: int = 1,
        decoders: Mapping[str, Decoder] | None = None,
        min_workers: int = 1,
        max_workers: int | None = None,
        recovery: Recovery | None = None,
        keep_snapshots: int | None = KEPT,
        preprocess: Pipeline | PipelineModel | None = None,
    ) -> KerasEstimator:
        """Make an estimator that trains this very model; nothing runs yet.

        `get_model()` is the model that was given, and has the trained weights after `fit` and
        `load`. It may be compiled again between two fits. It travels to the ranks as its config,
        with classes and functions of your own, and is made again once here to see that it can be.

        Args:
            keras_model: Compiled. One that is not compiled only predicts.
            metrics: Of validation and evaluation, besides those that the model is compiled with.
            model_dir: Where snapshots are kept, on any file system that the driver reaches: after
                every epoch unless `fit` is told otherwise.
            optimizer: Takes the place of the compiled one: of Keras, or of
                `zoo.orca.learn.optimizers`.
            backend: `"bigdl"` or `"spark"`, which are the same: ranks are Spark tasks.
            config: Read here: `seed`, of the order of rows and of dropout (0), and `shuffle`
                (True); handed to data creators.
            workers_per_node: Ranks of each executor, which share its cores.
            decoders: For binary columns, a function from bytes to an array; for columns of
                numbers, a dtype.
            min_workers: Ranks with which training begins, or goes on after a loss.
            max_workers: Most ranks; None for `workers_per_node` on every executor.
            recovery: What is put up with when ranks are lost; `Recovery()` by default.
            keep_snapshots: Newest snapshots of a fit to keep in `model_dir`; None keeps all.
            preprocess: Stages of `pyspark.ml.feature` that every DataFrame goes through first.

        Raises:
            InputError: The model cannot be sent to the ranks, or an argument cannot be used.
            NotYetError: The backend is known and not available yet.
        """
        given = dict(locals())
        from zoo.orca.learn.given_estimator import require_backend
        from zoo.orca.learn.keras.estimator import make_estimator

        if backend != "bigdl":
            require_backend(backend, ())
        made = make_estimator(
            model=keras_model,
            optimizer=optimizer,
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
        )
        made._given, made._maker = given, Estimator.from_keras
        return made

    @staticmethod
    def load_keras_model(path: str, **options: Any) -> KerasEstimator:
        """Make an estimator of a model that Keras has saved.

        Args:
            path: Of a `.keras` or `.h5` file, on any file system. No code in it is run.
            options: Of `keras.saving.load_model`, such as `custom_objects`.

        Raises:
            InputError: Keras cannot read it.
        """
        from zoo.orca.learn.keras.model_files import read_model

        return Estimator.from_keras(read_model(path, **options))

    @staticmethod
    def from_graph(**given: Any) -> Any:
        """Make an estimator of a graph of TensorFlow 1.

        Args:
            given: See `zoo.orca.learn.graph.estimator.from_graph`.
        """
        from zoo.orca.learn.graph.estimator import from_graph

        return from_graph(**given)
