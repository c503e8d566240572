"""Snapshots of a fit on disk: whole or not at all, checked when read, the last few kept.

A snapshot is what `torch.save` wrote, `<folder>/<yyyy-MM-dd_HH-mm-ss>/model.<iteration>`, one
folder a run. The checksum over it is the comment that a zip file may end with, so that the file
stays one that `torch.load(path, weights_only=True)` opens. Nothing here knows tensors: a snapshot
is bytes.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import operator
import os
import re
import time
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from zoo.errors import ContractError, InputError
from zoo.orca.data.storage import Location, locate

__all__ = [
    "Snapshot",
    "SnapshotError",
    "SnapshotStore",
    "find_checkpoint",
    "read_bytes",
    "seal",
    "unseal",
]

_log = logging.getLogger(__name__)

_FIRST, _END = b"PK\x03\x04", b"PK\x05\x06"
_END_BYTES = 22  # of a zip file's last record, without the comment that may follow
# Against accidents, not against people: CRC-32 sees every single flipped bit and every damaged
# stretch of 32 bits, and costs a fifth of a cryptographic sum while ranks want the cores.
_MARK, _DIGEST_DIGITS = b"zoo-snapshot-3 crc32:", 8
_COMMENT_BYTES = len(_MARK) + _DIGEST_DIGITS
_TAIL_BYTES = 2 + _COMMENT_BYTES

_RUN = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}_[0-9]{2}-[0-9]{2}-[0-9]{2})(?:-([0-9]{1,9}))?")
_MODEL = re.compile(r"model\.(0|[1-9][0-9]{0,17})")
_DRAFT = re.compile(r"\.model\.[0-9]+\.[0-9a-f]{8}\.writing")
_STALE_S = 3600.0
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EISDIR}


class SnapshotError(InputError):
    """A file is not a snapshot, or not a whole one."""


def seal(payload: bytes) -> bytes:
    """Return the payload with its checksum at the end.

    Args:
        payload: What `torch.save` wrote. One that is sealed already is checked and given back.

    Raises:
        SnapshotError: The payload is no zip file.
    """
    body, tail = _sealed_parts(payload)
    return b"".join([body, tail]) if tail else payload


def unseal(blob: bytes, source: str = "the file") -> bytes:
    """Check a sealed snapshot and return bytes that `torch.load` reads: the same ones.

    Args:
        blob: The whole content of a file.
        source: How to call the file when it is refused.

    Raises:
        SnapshotError: A bit is not as it was written, the end is missing, or nobody sealed it.
    """
    body = memoryview(blob)[: max(0, len(blob) - _TAIL_BYTES)]
    if blob.startswith(_FIRST) and blob[len(body) :] == _tail(body):
        return blob
    fault, remedy = _fault(blob)
    raise SnapshotError(f"a whole snapshot in {source}", fault, remedy)


def read_bytes(place: Location) -> bytes:
    """The content of a file.

    Raises:
        OSError: It cannot be read, also where the storage raises errors of its own.
    """
    try:
        return place.read_bytes()
    except OSError:
        raise
    except Exception as exc:
        raise OSError(f"{type(exc).__name__}: {exc}") from exc


@dataclass(frozen=True)
class Snapshot:
    """Where one snapshot is.

    Attributes:
        place: The file.
        iteration: Steps that were done in all; 0 when a single file's name does not tell.
        run: The name of its run's folder.
    """

    place: Location
    iteration: int
    run: str

    def read(self) -> bytes:
        """Return what `torch.load` reads, after a check.

        Raises:
            SnapshotError: The file is not a whole snapshot.
            OSError: It cannot be read.
        """
        return unseal(read_bytes(self.place), repr(str(self.place)))


class SnapshotStore:
    """The snapshots in a folder; one run writes, all runs are read. One thread at a time.

    Args:
        folder: Where the runs are, on any file system; made at the first write.
        keep: Snapshots of this run to keep; 0 or None keeps all.
        run: The folder name of a run to go on with; None starts one at the first write.

    Raises:
        InputError: `keep` or `run` cannot be used.
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, keep: int | None = 3, run: str | None = None
    ) -> None:
        self._keep = _whole("keep", 0 if keep is None else keep)
        if run is not None and not _RUN.fullmatch(run):
            raise InputError(
                "the name of a run's folder, such as 2026-01-31_18-00-00",
                repr(run),
                "Leave `run` out to start a new run.",
            )
        self._folder, self._run, self._open = locate(folder), run, False
        self._turns: dict[int, int] = {}
        self._clock = itertools.count(1)

    @property
    def run(self) -> str | None:
        """The folder name of this run; None before a new run's first write."""
        return self._run

    def write(self, iteration: int, payload: bytes) -> Snapshot:
        """Write a snapshot, then remove the oldest ones of this run that are too many.

        On a local disk the file appears whole or not at all. Elsewhere a torn one may stay when
        the process dies; its checksum tells.

        Args:
            iteration: Steps done in all.
            payload: What `torch.save` wrote.

        Raises:
            SnapshotError: The payload is no zip file.
            Exception: It could not be written: an `OSError`, or what the storage raises. Older
                snapshots are as they were.
        """
        iteration = _whole("iteration", iteration)
        parts = _sealed_parts(payload)
        run = self._open_run()
        place = self._folder / run / f"model.{iteration}"
        if isinstance(place, Path):
            _write_local(place, parts)
        else:
            _write_remote(place, parts)
        self._turns[iteration] = next(self._clock)
        self._remove_oldest(run)
        return Snapshot(place, iteration, run)

    def newest(self) -> tuple[Snapshot, bytes] | None:
        """The newest snapshot that is whole, and what `torch.load` reads; None without one.

        Each one that has to be skipped on the way is logged, with the reason.
        """
        for snapshot in self.candidates():
            try:
                return snapshot, snapshot.read()
            except SnapshotError as exc:
                why = f"{exc.received}. {exc.remedy}"
                _log.warning("skipped the snapshot %r: %s", str(snapshot.place), why)
            except OSError as exc:
                _log.warning("skipped the snapshot %r: %s", str(snapshot.place), exc)
        return None

    def candidates(self) -> Iterator[Snapshot]:
        """All snapshots, unread: the newest run first, in it the highest iteration."""
        return _of_all_runs(self._folder)

    def _open_run(self) -> str:
        if self._open and self._run:
            return self._run
        if self._run is None:
            self._run = _claim_run(self._folder)
        folder = self._folder / self._run
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(folder, Path):
            _sync_folder(folder.parent)
            _remove_stale_drafts(folder)
        self._open = True
        return self._run

    def _remove_oldest(self, run: str) -> None:
        if not self._keep:
            return
        # Oldest means written first, not fewest steps: a fit that went back to an earlier
        # snapshot counts its steps again, and what it writes then is worth more.
        found = sorted(_of_run(self._folder / run), key=lambda one: one.iteration)
        found.sort(key=lambda one: self._turns.get(one.iteration, 0))
        for old in found[: -self._keep]:
            try:
                _remove(old.place)
                self._turns.pop(old.iteration, None)
            except Exception as exc:  # noqa: BLE001 - every storage has errors of its own
                _log.warning("could not remove the old snapshot %r: %s", str(old.place), exc)


def find_checkpoint(
    path: str | os.PathLike[str], version: int | None = None, prefix: str | None = None
) -> Iterator[Snapshot]:
    """Find the snapshots that a program may mean, the likeliest first, unread.

    Args:
        path: The `model_dir` of a fit, the folder of one run, or one file; with a version the
            folder of the run itself.
        version: The iteration of the snapshot; None for the newest.
        prefix: Must be given with a version, as programs do, and is otherwise not used: it named
            a second file, of the optimizer, and here one file holds both.

    Raises:
        ContractError: There is a version and no prefix.
        InputError: There is no such snapshot.
    """
    place = locate(path)
    if version is not None:
        return iter([_exact(place, version, prefix)])
    found = _below(place)
    first = next(found, None)
    if first is None:
        raise InputError(
            "a model_dir with <yyyy-MM-dd_HH-mm-ss>/model.<iteration> in it, or the folder or "
            "file of one snapshot",
            f"{str(place)!r}, where there is none",
            "Give the model_dir of a fit whose checkpoint_trigger has fired.",
        )
    return itertools.chain([first], found)


# Seals


def _sealed_parts(payload: bytes) -> tuple[memoryview, bytes]:
    """What a sealed file is made of, the payload not copied; no second part if sealed already."""
    view = memoryview(payload)
    plain_end = payload[-_END_BYTES:].startswith(_END) and payload.endswith(b"\0\0")
    if payload.startswith(_FIRST) and plain_end:
        return view[:-2], _tail(view[:-2])
    unseal(payload, "the payload")
    return view, b""


def _tail(body: memoryview) -> bytes:
    """The length of the comment, and the comment."""
    digest = f"{zlib.crc32(body):0{_DIGEST_DIGITS}x}"
    return _COMMENT_BYTES.to_bytes(2, "little") + _MARK + digest.encode()


def _fault(blob: bytes) -> tuple[str, str]:
    """What is wrong with bytes that are no snapshot, and what to do."""
    other = "Take another snapshot, and remove this file."
    if not blob.startswith(_FIRST):
        return f"{len(blob)} bytes that are not a zip file", other
    end = blob.rfind(_END, -(_END_BYTES + 0xFFFF))
    comment = len(blob) - end - _END_BYTES
    length = int.from_bytes(blob[end + _END_BYTES - 2 : end + _END_BYTES], "little")
    if end < 0 or comment != length or length == _COMMENT_BYTES:
        return f"{len(blob)} bytes whose checksum is missing or wrong: cut off or damaged", other
    return (
        "a zip file without our seal, written by an older version or another program",
        "Give it to the estimator's `load()`, which takes files that torch.save wrote.",
    )


# Names and places


def _listed(folder: Location) -> list[str]:
    if not isinstance(folder, Path):
        folder.fs.invalidate_cache()  # another process may have written since we looked
    try:
        return [entry.name for entry in folder.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _runs(folder: Location) -> list[tuple[str, int, str]]:
    """The runs in a folder, oldest first: second they began in, which one of it, name."""
    matches = (_RUN.fullmatch(name) for name in _listed(folder))
    return sorted((found[1], int(found[2] or 1), found[0]) for found in matches if found)


def _claim_run(folder: Location) -> str:
    """Make the folder of a new run. Its name sorts after all others, whatever the clock says."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        name = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
        second, turn, _ = max(_runs(folder), default=("", 0, ""))
        if second >= name:
            name = f"{second}-{turn + 1:03d}"
        try:
            (folder / name).mkdir()
        except FileExistsError:
            continue  # another run began in this moment
        return name


def _of_all_runs(folder: Location) -> Iterator[Snapshot]:
    for _, _, name in reversed(_runs(folder)):
        yield from _of_run(folder / name)


def _of_run(folder: Location) -> Iterator[Snapshot]:
    try:
        matches = [found for name in _listed(folder) if (found := _MODEL.fullmatch(name))]
    except Exception as exc:  # noqa: BLE001 - every storage has errors of its own
        _log.warning("skipped the snapshots in %r: %s", str(folder), exc)
        return
    for found in sorted(matches, key=lambda one: int(one[1]), reverse=True):
        yield Snapshot(folder / found[0], int(found[1]), folder.name)


def _below(place: Location) -> Iterator[Snapshot]:
    """What a path may mean: one file, the folder of a run, or a folder of runs."""
    if place.is_file():
        found = _MODEL.fullmatch(place.name)
        yield Snapshot(place, int(found[1]) if found else 0, place.parent.name)
        return
    inside = list(_of_run(place))
    yield from inside or _of_all_runs(place)


def _exact(folder: Location, version: int, prefix: str | None) -> Snapshot:
    if prefix is None:
        raise ContractError(
            "a prefix with a version",
            f"version={version!r} and no prefix",
            "Give the prefix of the optimizer's file, or leave both out for the newest.",
        )
    version = _whole("version", version)
    snapshot = Snapshot(folder / f"model.{version}", version, folder.name)
    if not snapshot.place.is_file():
        raise InputError(
            f"the snapshot {str(snapshot.place)!r}",
            "nothing there",
            "Give the folder of the run itself, <model_dir>/<yyyy-MM-dd_HH-mm-ss>.",
        )
    return snapshot


def _whole(name: str, value: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if number < 0 or isinstance(value, bool):
        raise InputError(f"{name} to be a whole number, 0 or more", repr(value), "Give one.")
    return number


# Writing


def _write_local(place: Path, parts: tuple[memoryview, bytes]) -> None:
    draft = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}.writing")
    try:
        with draft.open("xb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(place)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    _sync_folder(place.parent)


def _write_remote(place: Location, parts: tuple[memoryview, bytes]) -> None:
    # Renaming is a copy on object stores and may lose a race on others; the checksum is enough.
    try:
        with place.open("wb") as file:
            for part in parts:
                file.write(part)
    except BaseException:
        with contextlib.suppress(Exception):
            _remove(place)
        raise


def _remove(place: Location) -> None:
    if isinstance(place, Path):
        place.unlink()
    else:
        place.fs.rm_file(place.path)  # `unlink` takes brackets and stars of the name as a pattern


def _sync_folder(folder: Path) -> None:
    """Make the names in a folder last through a power cut, where the file system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as exc:
        if exc.errno not in _NO_FOLDER_SYNC:
            raise


def _remove_stale_drafts(folder: Path) -> None:
    """Remove what a writer left that died in the middle, long enough ago to be sure."""
    for name in _listed(folder):
        draft = folder / name
        if _DRAFT.fullmatch(name):
            with contextlib.suppress(OSError):
                if time.time() - draft.stat().st_mtime > _STALE_S:
                    draft.unlink()
