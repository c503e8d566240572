"""mosaicml-streaming: its MDS files. It has no parallel writer; two processes write halves."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import shutil
import sys
import time
import types
from collections.abc import Iterable, Sequence
from multiprocessing import get_context
from typing import Any

from image_data.job import (
    PROCESSES,
    Figure,
    Job,
    access_figures,
    case_of,
    drop_page_cache,
    listed,
    middle,
    read_figures,
    records_of,
    size_mib,
)

_UNUSED = (
    "azure", "boto3", "botocore", "databricks", "datasets", "google", "huggingface_hub",
    "matplotlib", "oci", "paramiko", "pydantic", "snappy", "torchvision", "transformers",
)  # fmt: skip
_COLUMNS = {"image": "bytes", "label": "int", "image_id": "str", "label_str": "str"}


class _StandIn(types.ModuleType):
    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname.split(".")[0] not in _UNUSED:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Leave it empty."""


def load_streaming() -> Any:
    """Import `streaming`, with empty stand-ins for what it imports and MDS files do not use.

    Those are the clients of clouds, and the packages of its ready-made text and vision datasets.
    Where one is installed, it is the real one that is imported.

    Raises:
        ModuleNotFoundError: mosaicml-streaming is not installed.
    """
    if importlib.util.find_spec("streaming") is None:
        raise ModuleNotFoundError("No module named 'streaming'", name="streaming")
    finder = _StandIns()
    sys.meta_path.append(finder)
    try:
        return importlib.import_module("streaming")
    finally:
        sys.meta_path.remove(finder)


def write(job: Job) -> list[Figure]:
    """Two processes write halves, then the index is merged."""
    figures = [middle([_written(job, "warm") for _ in range(job.rounds)])]
    if job.cold and drop_page_cache():
        figures.append(_written(job, "cold"))
    return figures


def _written(job: Job, how: str) -> Figure:
    streaming = load_streaming()
    target = job.dataset("mosaicml")
    shutil.rmtree(target, ignore_errors=True)
    context = get_context("fork")
    start = time.perf_counter()
    files = listed(job)
    halves = [
        context.Process(target=_write_half, args=(f"{target}/{k}", files[k::PROCESSES]))
        for k in range(PROCESSES)
    ]
    for process in halves:
        process.start()
    for process in halves:
        process.join()
        if process.exitcode:
            raise RuntimeError(f"a writer ended with {process.exitcode}")
    streaming.base.util.merge_index(target, keep_local=True)
    seconds = time.perf_counter() - start
    rate, mib = job.files / seconds, size_mib(target)
    return Figure("write", "mosaicml", case_of(job), how, seconds, rate, mib=mib)


def _write_half(target: str, files: Sequence[tuple[str, int]]) -> None:
    with load_streaming().MDSWriter(columns=_COLUMNS, out=target) as writer:
        for path, label in files:
            with open(path, "rb") as file:
                data = file.read()
            writer.write({"image": data, "label": label, "image_id": path, "label_str": str(label)})


def read(job: Job) -> list[Figure]:
    """Its dataset under torch's loader, with the decoder that everyone has."""
    streaming = load_streaming()
    from torch.utils.data import DataLoader

    from zoo.orca.data.image import ImageDecoder

    decoder = ImageDecoder(size=(job.pixels, job.pixels))
    base: Any = streaming.StreamingDataset

    class Decoded(base):  # type: ignore[misc]
        """Records with decoded images."""

        def __getitem__(self, at: int) -> dict[str, Any]:
            record = super().__getitem__(at)
            return {"image": decoder(record["image"]), "label": record["label"]}

    def loader(workers: int, shuffled: bool) -> Iterable[Any]:
        streaming.base.util.clean_stale_shared_memory()
        data = Decoded(local=job.dataset("mosaicml"), shuffle=shuffled, batch_size=job.batch)
        return DataLoader(data, job.batch, num_workers=workers)

    return read_figures("mosaicml", job, loader)


def access(job: Job) -> list[Figure]:
    """Write the records from one process, then look some up."""
    streaming = load_streaming()
    target = job.dataset("mosaicml")
    start = time.perf_counter()
    with streaming.MDSWriter(columns={"number": "int", "data": "bytes"}, out=target) as writer:
        for number, data in records_of(job):
            writer.write({"number": number, "data": data})
    seconds = time.perf_counter() - start
    written = Figure(
        "access", "mosaicml", case_of(job), "written by one process", seconds,
        job.files / seconds, mib=size_mib(target),
    )  # fmt: skip
    records = streaming.StreamingDataset(local=target, shuffle=False, batch_size=1)

    def one(number: int) -> bytes:
        found: bytes = records[number]["data"]
        return found

    def many(numbers: list[int]) -> list[bytes]:
        return [records[number]["data"] for number in numbers]

    figures = [written, *access_figures("mosaicml", job, one, many)]
    shutil.rmtree(target)
    return figures
