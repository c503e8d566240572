"""Shards: the rows of one partition as typed arrays in local files.

A shard is a folder with one raw file for each tensor, row after row in C order; of cells that stay
bytes until they are used, their bytes and a second file with their lengths. Files are written as
batches arrive, so a partition is never held in memory, and read as memory maps, so what a rank
touches is page cache that the kernel can take back.
"""

from __future__ import annotations

import errno
import shutil
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import pyarrow as pa

from zoo.orca.data.plan import TensorPlan, TensorSpec

__all__ = ["Blobs", "Shard", "ShardWriter", "Tensor", "open_shard", "remove_shard"]


class Blobs:
    """Cells of bytes that lie one after another, such as image files.

    Args:
        data: All bytes, uint8.
        ends: Where each cell begins, and where the last ends; int64, shape (cells + 1,).
    """

    def __init__(self, data: np.ndarray, ends: np.ndarray) -> None:
        self.data, self.ends = data, ends

    @classmethod
    def from_arrow(cls, array: pa.Array) -> Blobs:
        """The cells of a binary column without nulls; shares its memory."""
        wide = np.int64 if pa.types.is_large_binary(array.type) else np.int32
        _, ends, data = array.buffers()
        # A buffer of a slice still has the cells of the whole array.
        cut = np.frombuffer(ends, wide)[array.offset : array.offset + len(array) + 1]
        cut = cut.astype(np.int64)
        held = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
        return cls(held[cut[0] : cut[-1]], cut - cut[0])

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, cell: int) -> bytes:
        return self.data[self.ends[cell] : self.ends[cell + 1]].tobytes()


Tensor = np.ndarray | Blobs
"""Rows of one tensor: an array with the rows in front, or cells to be decoded later."""


@dataclass(frozen=True)
class Shard:
    """Where the rows of a partition lie.

    Attributes:
        index: The partition.
        rows: Rows in it.
        host: Key of the host whose disk it is on.
        path: The folder; empty when the shard has no rows.
        bytes: Size of its files.
        checksum: Of the rows in their order: the same when they are computed again.
    """

    index: int
    rows: int
    host: str
    path: str
    bytes: int
    checksum: int = 0


class ShardWriter:
    """Writes one shard. Leaving the block with an error removes what was written."""

    def __init__(self, folder: Path, tensors: int) -> None:
        self.folder, self.rows, self.bytes = folder, 0, 0
        self._sums: dict[str, int] = {}
        folder.mkdir(parents=True, mode=0o700)
        self._files: list[BinaryIO] = [(folder / str(k)).open("wb") for k in range(tensors)]
        self._sizes: dict[int, BinaryIO] = {}

    def append(self, arrays: Sequence[Tensor]) -> None:
        """Add rows: one array, or blobs, of the same length for each tensor."""
        for k, array in enumerate(arrays):
            if isinstance(array, Blobs):
                self._write(self._files[k], array.data)
                self._write(self._sizes_file(k), np.diff(array.ends))
            else:
                self._write(self._files[k], array)
        self.rows += len(arrays[0])

    @property
    def checksum(self) -> int:
        """Of all that was written, in its order."""
        return zlib.crc32(repr(sorted(self._sums.items())).encode())

    def _write(self, file: BinaryIO, array: np.ndarray) -> None:
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        file.write(data)
        # File by file: how rows were cut into pieces does not matter.
        name = Path(file.name).name
        self._sums[name] = zlib.crc32(data, self._sums.get(name, 0))
        self.bytes += array.nbytes

    def _sizes_file(self, tensor: int) -> BinaryIO:
        if tensor not in self._sizes:
            self._sizes[tensor] = (self.folder / f"{tensor}.sizes").open("wb")
        return self._sizes[tensor]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in [*self._files, *self._sizes.values()]:
            file.close()
        if error is not None or not self.rows:
            shutil.rmtree(self.folder, ignore_errors=True)


def open_shard(shard: Shard, plan: TensorPlan) -> list[Any]:
    """Map the tensors of a shard; the mappings are read-only.

    Returns:
        For each tensor an array of shape (rows, *row shape), or `Blobs` when its cells are to be
        decoded later.

    Raises:
        FileNotFoundError: The shard is gone, or belongs to another host.
    """
    return [_open(shard, k, spec) for k, spec in enumerate(plan.tensors)]


def _open(shard: Shard, k: int, spec: TensorSpec) -> Tensor:
    assert spec.shape is not None
    path = Path(shard.path) / str(k)
    if spec.live:
        ends = np.zeros(shard.rows + 1, np.int64)
        if shard.rows:
            np.cumsum(_map(path.with_suffix(".sizes"), "int64"), out=ends[1:])
        return Blobs(_map(path, "uint8") if shard.rows else np.empty(0, np.uint8), ends)
    shape = (shard.rows, *spec.shape)
    if not shard.rows or not np.prod(spec.shape, dtype=np.int64):
        return np.empty(shape, dtype=spec.dtype)
    return _map(path, str(spec.dtype)).reshape(shape)


def _map(path: Path, dtype: str) -> np.ndarray:
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, "No such shard", str(path))
    # Not np.memmap: each of its mappings holds a file descriptor, and shards may be many.
    with pa.memory_map(str(path)) as file:
        return np.frombuffer(file.read_buffer(), dtype=dtype)


def remove_shard(shard: Shard) -> None:
    """Remove the files; a shard that is gone already is fine."""
    if shard.path:
        shutil.rmtree(shard.path, ignore_errors=True)
