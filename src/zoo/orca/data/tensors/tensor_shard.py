"""Shards: the rows of one partition as typed arrays in a local file.

A shard is one file. It holds a section for each tensor, row after row in C order, and for cells
that stay bytes until they are used their bytes and their lengths; at its end stands where the
sections are. They are written as batches arrive, large ones each in a file of its own, so a
partition is never held in memory; then the smaller ones are put behind the largest. A shard is read
as one memory map, so what a rank touches is page cache that the kernel can take back, and thousands
of shards stay below the number of maps that a process may have.
"""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import shutil
import socket
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import pyarrow as pa

from zoo.errors import ClusterError
from zoo.orca.data.tensors.plan import TEXT, TensorPlan, TensorSpec

__all__ = [
    "Blobs",
    "Place",
    "Tensor",
    "TensorShard",
    "TensorWriter",
    "is_whole",
    "open_tensors",
    "remove_tensors",
    "same_content",
]

# Sections up to here wait in memory: of a small shard no more than one file is made.
_SMALL_BYTES = 256 << 10
# Sections begin where any dtype may.
_ALIGNED = 64
_COPY_BYTES = 4 << 20
# A section in the index: what it is (twice its tensor, and one more for lengths of cells), where it
# begins, its bytes and their CRC-32.
_ENTRY = 4


class Blobs:
    """Cells of bytes that lie one after another, such as image files or texts.

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

    @classmethod
    def from_texts(cls, array: np.ndarray) -> Blobs:
        """The cells of an array of bytes, in C order."""
        cells = array.reshape(-1).tolist()
        ends = np.zeros(len(cells) + 1, np.int64)
        np.cumsum([len(cell) for cell in cells], out=ends[1:])
        return cls(np.frombuffer(b"".join(cells), np.uint8), ends)

    def take(self, rows: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Rows of so many cells each, as an array of bytes of shape (rows, *shape)."""
        width = math.prod(shape)
        cells = rows if width == 1 else (rows[:, None] * width + np.arange(width)).reshape(-1)
        buffers = [None, pa.py_buffer(self.ends), pa.py_buffer(self.data)]
        held = pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(self), buffers)
        taken: np.ndarray = held.take(pa.array(cells)).to_numpy(zero_copy_only=False)
        return taken.reshape(len(rows), *shape)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, cell: int) -> bytes:
        return self.data[self.ends[cell] : self.ends[cell + 1]].tobytes()


Tensor = np.ndarray | Blobs
"""Rows of one tensor: an array with the rows in front, or cells to be decoded later."""


@dataclass(frozen=True)
class Place:
    """Where a file lies.

    Attributes:
        host: Key of the host whose disk it is on.
        path: The file.
    """

    host: str
    path: str


@dataclass(frozen=True)
class TensorShard:
    """Where the rows of a partition lie.

    Attributes:
        index: The partition.
        rows: Rows in it.
        host: Key of the host whose disk it is on.
        path: The file; empty when the shard has no rows.
        bytes: Size of the file.
        checksum: Of the rows in their order: the same when they are computed again.
        copy: A second file like it, on another host; None when there is none.
    """

    index: int
    rows: int
    host: str
    path: str
    bytes: int
    checksum: int = 0
    copy: Place | None = None


class TensorWriter:
    """Writes one shard. Leaving the block with an error removes what was written.

    Args:
        path: The file; while it is written, its sections lie in a folder of that name and `.part`.
        tensors: How many.

    Attributes:
        path: The file.
        rows: Rows so far.
        bytes: Size of the file, once it is whole.

    Raises:
        ClusterError: The disk is full, or may not be written to.
    """

    def __init__(self, path: Path, tensors: int) -> None:
        self.path, self.rows, self.bytes = path, 0, 0
        self._folder = path.with_name(f"{path.name}.part")
        self._sums: dict[int, int] = {}
        self._files: dict[int, BinaryIO] = {2 * k: io.BytesIO() for k in range(tensors)}
        with self._explained():
            self._folder.mkdir(parents=True, mode=0o700)

    def append(self, arrays: Sequence[Tensor]) -> None:
        """Add rows: one array, or blobs, of the same length for each tensor."""
        for k, array in enumerate(arrays):
            plain = isinstance(array, np.ndarray) and array.dtype != TEXT
            cells = array if plain or isinstance(array, Blobs) else Blobs.from_texts(array)
            if isinstance(cells, Blobs):
                self._write(2 * k, cells.data)
                self._write(2 * k + 1, np.diff(cells.ends))
            else:
                self._write(2 * k, cells)
        self.rows += len(arrays[0])

    @property
    def checksum(self) -> int:
        """Of all that was written, in its order."""
        return _checksum(self._sums.items())

    def _write(self, section: int, array: np.ndarray) -> None:
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        file = self._files.setdefault(section, io.BytesIO())
        with self._explained():
            if isinstance(file, io.BytesIO) and file.tell() + len(data) > _SMALL_BYTES:
                file = self._spilled(section)
            file.write(data)
        # Section by section: how rows were cut into pieces does not matter.
        self._sums[section] = zlib.crc32(data, self._sums.get(section, 0))

    def _spilled(self, section: int) -> BinaryIO:
        """Go on with a section in a file."""
        held = self._files[section]
        file = self._files[section] = (self._folder / str(section)).open("wb+")
        held.seek(0)
        shutil.copyfileobj(held, file)
        return file

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None and self.rows:
                with self._explained():
                    self._join()
        finally:
            for file in self._files.values():
                with contextlib.suppress(OSError):  # what it still holds may find no room
                    file.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _join(self) -> None:
        """Put all sections into the file of the largest, which so is not copied."""
        sizes = {section: file.tell() for section, file in self._files.items()}
        largest, *others = sorted(self._files, key=lambda section: (-sizes[section], section))
        out, index = self._files[largest], [(largest, 0)]
        if isinstance(out, io.BytesIO):
            out = self._spilled(largest)
        for section in others:
            file = self._files[section]
            out.write(bytes(-out.tell() % _ALIGNED))
            index.append((section, out.tell()))
            file.seek(0)
            shutil.copyfileobj(file, out, _COPY_BYTES)
        out.write(bytes(-out.tell() % _ALIGNED))
        entries = [[s, at, sizes[s], self._sums.get(s, 0)] for s, at in index]
        out.write(np.array([*sum(entries, []), len(entries)], np.int64).tobytes())
        out.flush()
        self.bytes = out.tell()
        os.chmod(out.name, 0o600)
        os.replace(out.name, self.path)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise _no_room(self._folder.parent, exc) from exc


def _no_room(folder: Path, error: OSError) -> ClusterError:
    return ClusterError(
        "room for the rows in Spark's scratch folders on every executor",
        f"{error.strerror or error} in {folder} on {socket.gethostname()}",
        "Free space there, or name other folders with spark.local.dir (SPARK_LOCAL_DIRS of "
        "standalone workers, LOCAL_DIRS on YARN) and start Spark again.",
    )


def is_whole(path: str | Path, size: int) -> bool:
    """Whether the file of a shard is there, as long as it was when it was written."""
    try:
        return os.stat(path).st_size == size
    except OSError:
        return False


def same_content(path: str | Path, checksum: int) -> bool:
    """Whether a file holds what its index says, and rows with this checksum."""
    try:
        data = _map(Path(path))
        entries = _index(data)
    except (OSError, ValueError):
        return False
    sums = [(s, zlib.crc32(data[at : at + size].data)) for s, at, size, _ in entries]
    return _checksum(sums) == checksum


def _checksum(sums: Iterable[tuple[int, int]]) -> int:
    # By these names since there are snapshots, which hold it to know the data again.
    named = [(f"{s // 2}{'.sizes' if s % 2 else ''}", crc) for s, crc in sums]
    return zlib.crc32(repr(sorted(named)).encode())


def open_tensors(shard: TensorShard, plan: TensorPlan) -> list[Any]:
    """Map the tensors of a shard; the mapping is read-only.

    Returns:
        For each tensor an array of shape (rows, *row shape), or `Blobs` when its cells are texts or
        are to be decoded later.

    Raises:
        FileNotFoundError: The shard is gone, or damaged, or belongs to another host.
        ClusterError: The process may have no more maps.
    """
    sections: dict[int, np.ndarray] = {}
    if shard.rows:
        data = _map(Path(shard.path))
        try:
            sections = {s: data[at : at + size] for s, at, size, _ in _index(data)}
        except ValueError as exc:
            raise FileNotFoundError(errno.ENOENT, f"No whole shard: {exc}", shard.path) from exc
    return [_tensor(shard.rows, sections, k, spec) for k, spec in enumerate(plan.tensors)]


def _tensor(rows: int, sections: Mapping[int, np.ndarray], k: int, spec: TensorSpec) -> Tensor:
    assert spec.shape is not None
    data = sections.get(2 * k, _NOTHING)
    if spec.live or spec.is_text:
        sizes = sections.get(2 * k + 1, _NOTHING).view("int64")
        ends = np.zeros(len(sizes) + 1, np.int64)
        np.cumsum(sizes, out=ends[1:])
        return Blobs(data, ends)
    shape = (rows, *spec.shape)
    if not rows or not np.prod(spec.shape, dtype=np.int64):
        return np.empty(shape, dtype=spec.dtype)
    return data.view(str(spec.dtype)).reshape(shape)


_NOTHING = np.empty(0, np.uint8)


def _index(data: np.ndarray) -> list[list[int]]:
    """The sections of a shard.

    Raises:
        ValueError: The file has been cut.
    """
    count = int(data[-8:].view(np.int64)[0]) if len(data) >= 8 else 0
    start = len(data) - 8 * (_ENTRY * count + 1)
    if count < 1 or start < 0:
        raise ValueError("without an index")
    entries: list[list[int]] = data[start:-8].view(np.int64).reshape(count, _ENTRY).tolist()
    if any(at < 0 or size < 0 or at + size > start for _, at, size, _ in entries):
        raise ValueError("shorter than its index says")
    return entries


def _map(path: Path) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(errno.ENOENT, "No such shard", str(path))
    try:
        # Not np.memmap: each of its mappings holds a file descriptor, and shards may be many.
        with pa.memory_map(str(path)) as file:
            return np.frombuffer(file.read_buffer(), dtype=np.uint8)
    except OSError as exc:
        if exc.errno != errno.ENOMEM:
            raise
        raise ClusterError(
            "as many memory maps as a host has partitions with rows",
            "no more of them (vm.max_map_count of the system)",
            "Use fewer partitions, with df.coalesce(1000) for example, or raise vm.max_map_count.",
        ) from exc


def remove_tensors(path: str | Path) -> None:
    """Remove the file of a shard; one that is gone already is fine."""
    with contextlib.suppress(OSError):
        Path(path).unlink()
