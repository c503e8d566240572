"""Shards: the rows of one partition as typed arrays in local files.

A shard is a folder with one raw file for each tensor, row after row in C order. Files are written
as batches arrive, so a partition is never held in memory, and read as memory maps, so what a rank
touches is page cache that the kernel can take back.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import pyarrow as pa

from zoo.orca.data.plan import TensorPlan

__all__ = ["Shard", "ShardWriter", "open_shard", "remove_shard"]


@dataclass(frozen=True)
class Shard:
    """Where the rows of a partition lie.

    Attributes:
        index: The partition.
        rows: Rows in it.
        host: Key of the host whose disk it is on.
        path: The folder; empty when the shard has no rows.
        bytes: Size of its files.
    """

    index: int
    rows: int
    host: str
    path: str
    bytes: int


class ShardWriter:
    """Writes one shard. Leaving the block with an error removes what was written."""

    def __init__(self, folder: Path, tensors: int) -> None:
        self.folder, self.rows, self.bytes = folder, 0, 0
        folder.mkdir(parents=True, mode=0o700)
        self._files: list[BinaryIO] = [(folder / str(k)).open("wb") for k in range(tensors)]

    def append(self, arrays: Sequence[np.ndarray]) -> None:
        """Add rows: one array of the same length for each tensor."""
        for file, array in zip(self._files, arrays, strict=True):
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            self.bytes += array.nbytes
        self.rows += len(arrays[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files:
            file.close()
        if error is not None or not self.rows:
            shutil.rmtree(self.folder, ignore_errors=True)


def open_shard(shard: Shard, plan: TensorPlan) -> list[np.ndarray]:
    """Map the arrays of a shard, shape (rows, *row shape) each; the mappings are read-only.

    Raises:
        FileNotFoundError: The shard is gone, or belongs to another host.
    """
    arrays = []
    for k, spec in enumerate(plan.tensors):
        assert spec.shape is not None
        shape = (shard.rows, *spec.shape)
        if not shard.rows or not np.prod(spec.shape, dtype=np.int64):
            arrays.append(np.empty(shape, dtype=spec.dtype))
            continue
        path = Path(shard.path) / str(k)
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, "No such shard", str(path))
        # Not np.memmap: each of its mappings holds a file descriptor, and shards may be many.
        with pa.memory_map(str(path)) as file:
            arrays.append(np.frombuffer(file.read_buffer(), dtype=spec.dtype).reshape(shape))
    return arrays


def remove_shard(shard: Shard) -> None:
    """Remove the files; a shard that is gone already is fine."""
    if shard.path:
        shutil.rmtree(shard.path, ignore_errors=True)
