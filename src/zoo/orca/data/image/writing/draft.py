"""Where a dataset is while it is written: a hidden folder beside its place, owned by a lock.

The folder's name tells the work, so the same write finds what an earlier one left; the lock tells
whether its writer lives: the kernel drops it with the process, however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shutil
import socket
import time
import uuid
from pathlib import Path

from zoo.orca.data.image.layout.dataset_folder import FAILED, METADATA, WRITING
from zoo.orca.data.image.layout.manifest import MANIFEST

__all__ = ["Claim", "claim_draft", "remove_abandoned", "remove_folder"]

_log = logging.getLogger(__name__)

_TRIES = 5


class Claim:
    """A draft folder that this process writes; nobody else does while the claim is held."""

    def __init__(self, folder: Path, lock: int | None) -> None:
        self.folder, self._lock = folder, lock

    def release(self) -> None:
        """Let others have the folder, wherever it is now."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def claim_draft(place: Path, name: str | None) -> Claim:
    """Make the draft folder of a place, or take over what an earlier write left of it.

    Args:
        place: Where the dataset will be.
        name: Tells the work; None when nothing else can go on with it. When another process is
            at the same work, this one gets a folder of its own.
    """
    if name is not None:
        folder = _draft(place, name)
        claim = _claim(folder, make=True)
        if claim is not None:
            _tidy(folder)
            return claim
        _log.warning("another process writes %s, too; this one starts from nothing", place)
    folder = _draft(place, uuid.uuid4().hex)
    folder.mkdir()
    # Without a lock, where a file system has none, the folder is never taken for abandoned.
    return _claim(folder, make=False) or Claim(folder, None)


def remove_abandoned(place: Path, name: str | None) -> None:
    """Remove the drafts of other work for a place whose writers are gone."""
    pattern = re.compile(rf"\.{re.escape(place.name)}\.writing-[0-9a-f]{{32}}")
    own = _draft(place, name).name if name is not None else None
    for entry in os.listdir(place.parent):
        if entry == own or not pattern.fullmatch(entry):
            continue
        claim = _claim(place.with_name(entry), make=False)
        if claim is not None:
            _log.info("removing %s, which a write that is gone has left", claim.folder)
            remove_folder(claim.folder)
            claim.release()


def remove_folder(folder: Path) -> None:
    """Remove a folder, even while a late task drops files into it; warn when that fails."""
    for _ in range(_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.2)
    _log.warning("%s could not be removed; delete it when nobody writes into it", folder)


def _draft(place: Path, name: str) -> Path:
    return place.with_name(f".{place.name}.writing-{name}")


def _claim(folder: Path, *, make: bool) -> Claim | None:
    """Lock a folder; None when somebody has it, it is gone, or there are no locks here."""
    for _ in range(_TRIES):
        if make:
            folder.mkdir(exist_ok=True)
        try:
            lock = os.open(folder / WRITING, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError:
            if make:
                continue  # removed by one who held it; made anew above
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return None
        if _is_at(lock, folder / WRITING):
            with contextlib.suppress(OSError):  # a full disk; it is for people only
                os.pwrite(lock, f"{socket.gethostname()} {os.getpid()}\n".encode(), 0)
            return Claim(folder, lock)
        os.close(lock)  # the folder was published or removed in between
    return None


def _is_at(lock: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), os.stat(path))
    except FileNotFoundError:
        return False


def _tidy(folder: Path) -> None:
    """Remove what a killed write left half done."""
    for name in (FAILED, METADATA, MANIFEST):
        (folder / name).unlink(missing_ok=True)
    for half in folder.glob("*/.*"):
        half.unlink(missing_ok=True)
