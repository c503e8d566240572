"""One contender's program: `python -m keras_frame NAME ORDER ANSWER`."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    import numpy as np
    from tabular.job import Job

Answer = dict[str, Any]
BACKEND = "backend"


def network(columns: int) -> keras.Model:
    """The tabular network of the other benchmarks; weights are the same everywhere."""
    import keras

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((columns,)),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(1),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="mse")
    return model


def ours(job: Job) -> Answer:
    """Two fits of one session, on the frame itself."""
    import keras  # noqa: F401 - the backend, as in a program that defines a model
    from tabular.job import LABEL, make_frame
    from tabular.ours import start_spark

    from zoo.orca import stop_orca_context
    from zoo.orca.learn.tf2 import Estimator

    frame = make_frame(start_spark(job), job)
    runs = {}
    for turn in ("first", "second"):
        estimator = Estimator.from_keras(
            model_creator=lambda config: network(config["columns"]),
            config={"columns": job.columns}, workers_per_node=job.ranks,
        )  # fmt: skip
        start = time.perf_counter()
        epochs = estimator.fit(
            frame, epochs=job.epochs, batch_size=job.batches[0], profile=True,
            feature_cols=job.features, label_cols=[LABEL],
        )  # fmt: skip
        runs[f"{turn} fit"] = {
            "seconds": time.perf_counter() - start,
            "epoch_s": [each["profile"]["mean_train_epoch_s"] for each in epochs],
            "loss": epochs[-1]["train_loss"],
        }
    stop_orca_context()
    return runs


def topandas(job: Job) -> Answer:
    """All rows into the driver, and Keras's own `fit` there."""
    from tabular.job import LABEL, make_frame
    from tabular.ours import start_spark

    from zoo.orca import stop_orca_context

    frame = make_frame(start_spark(job), job)
    start = time.perf_counter()
    rows = frame.toPandas()
    x, y = rows[job.features].to_numpy(), rows[LABEL].to_numpy()
    found = _plain_fit(job, x, y, job.ranks, start)
    stop_orca_context()
    return {"fit": found}


def limit(job: Job) -> Answer:
    """Keras's own `fit` on arrays in memory, on as many threads as ours has ranks."""
    from tabular.job import make_arrays

    return {"fit": _plain_fit(job, *make_arrays(job), job.ranks, time.perf_counter())}


def _plain_fit(job: Job, x: np.ndarray, y: np.ndarray, threads: int, start: float) -> Answer:
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
    elif keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(threads)

    class Clock(keras.callbacks.Callback):
        """Seconds of each epoch."""

        def __init__(self) -> None:
            super().__init__()
            self.epoch_s: list[float] = []

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self._start = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.epoch_s.append(time.perf_counter() - self._start)

    clock, model = Clock(), network(job.columns)
    found = model.fit(
        x, y, batch_size=job.batches[0], epochs=job.epochs, verbose=0, callbacks=[clock]
    )
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "epoch_s": clock.epoch_s, "loss": found.history["loss"][-1]}


CONTENDERS = {program.__name__: program for program in (ours, topandas, limit)}


def main() -> None:
    order = json.loads(Path(sys.argv[2]).read_text())
    os.environ["KERAS_BACKEND"] = order.pop(BACKEND)
    from tabular.job import Job

    order["batches"] = tuple(order["batches"])
    Path(sys.argv[3]).write_text(json.dumps(CONTENDERS[sys.argv[1]](Job(**order))))


if __name__ == "__main__":
    main()
