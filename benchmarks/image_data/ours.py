"""The library itself."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from typing import Any

from image_data.job import (
    PROCESSES,
    Figure,
    Job,
    access_figures,
    case_of,
    drop_page_cache,
    middle,
    read_figures,
    records_of,
    size_mib,
)
from zoo.orca import init_orca_context, stop_orca_context
from zoo.orca.data.image import (
    DType,
    FeatureType,
    ImageDecoder,
    ParquetDataset,
    SchemaField,
    read_parquet,
    read_records,
    write_parquet,
)


def write(job: Job) -> list[Figure]:
    """Start Spark, which is a figure of its own, then write: a first time, and warm."""
    start = time.perf_counter()
    init_orca_context(cores=PROCESSES, memory="2g", conf={"spark.ui.enabled": "false"})
    seconds = time.perf_counter() - start
    figures = [Figure("write", "start of Spark", case_of(job), "", seconds, 0.0)]
    figures.append(_written(job, "ours", "first of a session, warm"))
    figures.append(middle([_written(job, "ours", "warm") for _ in range(job.rounds)]))
    if job.cold and drop_page_cache():
        figures.append(_written(job, "ours", "cold"))
    stop_orca_context()
    return figures


def _written(job: Job, name: str, how: str) -> Figure:
    target = job.dataset("ours")
    shutil.rmtree(target, ignore_errors=True)
    start = time.perf_counter()
    write_parquet("image_folder", target, directory=str(job.images))
    seconds = time.perf_counter() - start
    rate, mib = job.files / seconds, size_mib(target)
    return Figure("write", name, case_of(job), how, seconds, rate, mib=mib)


def read(job: Job) -> list[Figure]:
    """Our loader."""
    decoder = ImageDecoder(size=(job.pixels, job.pixels))

    def loader(workers: int, shuffled: bool) -> Iterable[Any]:
        found: Iterable[Any] = read_parquet(
            "dataloader",
            job.dataset("ours"),
            config={"num_workers": workers},
            batch_size=job.batch,
            columns=["image", "label"],
            decoders={"image": decoder},
            shuffle=shuffled,
        )
        return found

    return read_figures("ours", job, loader)


def access(job: Job) -> list[Figure]:
    """Write the records from one process, then look some up."""
    schema = {
        "number": SchemaField(FeatureType.SCALAR, DType.INT32, ()),
        "data": SchemaField(FeatureType.SCALAR, DType.BYTES, ()),
    }
    start = time.perf_counter()
    ParquetDataset.write(
        job.dataset("ours"),
        ({"number": number, "data": data} for number, data in records_of(job)),
        schema,
        block_size=100_000,
    )
    seconds = time.perf_counter() - start
    mib = size_mib(job.dataset("ours"))
    written = Figure(
        "access", "ours", case_of(job), "written by one process", seconds, job.files / seconds,
        mib=mib,
    )  # fmt: skip
    records = read_records(job.dataset("ours"), columns=["data"])

    def one(number: int) -> bytes:
        found: bytes = records[number]["data"]
        return found

    def many(numbers: list[int]) -> list[bytes]:
        return [record["data"] for record in records.__getitems__(numbers)]

    return [written, *access_figures("ours", job, one, many)]
