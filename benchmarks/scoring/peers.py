"""Other ways to predict on the same images, and the limits: loops without any frame."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from contest import NOT_INSTALLED

from scoring.job import Job, as_numbers, open_frame, pixels, predict_frame, timed
from zoo.orca import stop_orca_context

Loop = Callable[[np.ndarray], Any]


def pandas_udf(job: Job) -> list[float]:
    """What somebody writes by hand: a pandas UDF that loads the model once for each task."""
    import torch
    from pyspark.sql import functions as F

    from scoring.network import resnet

    frame = open_frame(job)
    weights = frame.sparkSession.sparkContext.broadcast(resnet().state_dict())
    batch, shape = job.batch, job.shape

    def predict(parts: Iterator[pd.Series]) -> Iterator[pd.Series]:
        torch.set_num_threads(1)
        model = resnet()
        model.load_state_dict(weights.value)
        for part in parts:
            images = np.frombuffer(b"".join(part), np.uint8).reshape(-1, *shape)
            outputs = []
            with torch.no_grad():
                for low in range(0, len(images), batch):
                    found = model(torch.from_numpy(as_numbers(images[low : low + batch])))
                    outputs.extend(found.double().numpy())
            yield pd.Series(outputs)

    column = F.pandas_udf(predict, "array<double>")  # type: ignore[call-overload]
    seconds = predict_frame(job, frame, lambda rows: rows.withColumn("prediction", column("image")))
    stop_orca_context()
    return seconds


def ray_data(job: Job) -> list[float]:
    """Ray Data, with one actor on each core."""
    try:
        import ray
    except ImportError as exc:
        print(exc)
        sys.exit(NOT_INSTALLED)
    import torch

    from scoring.network import resnet

    class Network:
        def __init__(self) -> None:
            torch.set_num_threads(1)
            self.model = resnet()

        def __call__(self, part: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            images = np.frombuffer(b"".join(part["image"]), np.uint8).reshape(-1, *job.shape)
            with torch.no_grad():
                found = self.model(torch.from_numpy(as_numbers(images)))
            return {"id": part["id"], "prediction": found.numpy()}

    ray.init(num_cpus=job.cores)

    def run(few: bool) -> None:
        rows = ray.data.read_parquet(f"{job.folder}/images")
        rows = rows.limit(4 * job.batch) if few else rows
        # Half a core each: else no core is left for the tasks that read, and nothing ever ends.
        scored = rows.map_batches(
            Network, batch_size=job.batch, concurrency=job.cores, num_cpus=0.5
        )
        for _ in scored.iter_batches(batch_size=None):
            pass

    return timed(job, run)


def torch_loop(job: Job) -> dict[str, list[float]]:
    return loops(job, _torch)


def openvino_loop(job: Job) -> dict[str, list[float]]:
    return loops(job, _openvino)


def int8_loop(job: Job) -> dict[str, list[float]]:
    return loops(job, _int8)


def onnx_loop(job: Job) -> dict[str, list[float]]:
    return loops(job, _onnx)


def keras_loop(job: Job) -> dict[str, list[float]]:
    return loops(job, _keras)


def loops(job: Job, make: Callable[[Job, int], Loop]) -> dict[str, list[float]]:
    """The bare loop on all cores: a process on each, and one process with all."""
    images = pixels(job)
    found = {f"{job.cores} processes": _processes(job, make, images)}
    found["one process"] = _processes(job, make, images, processes=1)
    return found


def _processes(
    job: Job, make: Callable[[Job, int], Loop], images: np.ndarray, processes: int = 0
) -> list[float]:
    processes = processes or job.cores
    context = multiprocessing.get_context("spawn")
    gate, answers = context.Barrier(processes), context.Queue()
    parts = np.array_split(images, processes)
    threads = job.cores // processes
    workers = [
        context.Process(target=_work, args=(job, make, part, threads, gate, answers))
        for part in parts
    ]
    for worker in workers:
        worker.start()
    rounds = [answers.get() for _ in workers]
    for worker in workers:
        worker.join()
    return [max(seconds) for seconds in zip(*rounds, strict=True)]


def _work(  # noqa: PLR0913 - the target of a process
    job: Job, make: Callable[[Job, int], Loop], images: np.ndarray, threads: int, gate: Any,
    answers: Any,
) -> None:  # fmt: skip
    predict = make(job, threads)
    predict(images[: job.batch])
    seconds = []
    for _ in range(job.rounds):
        gate.wait()
        start = time.perf_counter()
        for low in range(0, len(images), job.batch):
            predict(images[low : low + job.batch])
        seconds.append(time.perf_counter() - start)
    answers.put(seconds)


def _torch(job: Job, threads: int) -> Loop:
    import torch

    from scoring.network import resnet

    torch.set_num_threads(threads)
    model = resnet()

    def predict(images: np.ndarray) -> Any:
        with torch.no_grad():
            return model(torch.from_numpy(as_numbers(images))).numpy()

    return predict


def _keras(job: Job, threads: int) -> Loop:
    import tensorflow as tf

    from scoring.network import keras_resnet

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = tf.function(keras_resnet(job.size), reduce_retracing=True)
    return lambda images: model(as_numbers(images.transpose(0, 2, 3, 1)), training=False).numpy()


def _openvino(job: Job, threads: int, file: str = "floats.xml") -> Loop:
    from openvino import Core

    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False}
    settings["INFERENCE_PRECISION_HINT"] = "f32"
    request = Core().compile_model(job.model(file), "CPU", settings).create_infer_request()
    return lambda images: request.infer([as_numbers(images)], share_inputs=True)[0]


def _int8(job: Job, threads: int) -> Loop:
    return _openvino(job, threads, "int8.xml")


def _onnx(job: Job, threads: int) -> Loop:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    path = job.model("floats.onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: as_numbers(images)})
