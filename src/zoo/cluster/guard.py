"""Nothing of ours is left behind, not even after SIGKILL.

A `Guard` is a small process in a session of its own. It knows directories and processes, and when
its owner is gone it ends these processes and removes these directories. `session_dir` is the
private directory of this process, guarded so. `sweep` is the second line of defence: it removes
what is left when the guard itself was killed, or the machine went down.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import inspect
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from zoo.cluster import watcher
from zoo.cluster.watcher import start_time

__all__ = [
    "Guard",
    "close_session",
    "session_dir",
    "session_guard",
    "sweep",
]

_log = logging.getLogger(__name__)

CLOSE_S = 15.0
# Between its creation and the lock of its guard, a directory looks abandoned.
YOUNG_S = 60.0
_GROUP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_NAME = re.compile(r"zoo-(?P<uid>\d+)-(?P<pid>\d+)-(?P<start>\w+)-\w+")


class Guard:
    """A process that cleans up when this one is gone."""

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._entries: list[tuple[str, str]] = []
        self._closed = False
        self._lock = threading.RLock()
        self._watcher = self._start()

    @property
    def pid(self) -> int:
        """The process id of the watcher."""
        return self._watcher.pid

    def add_dir(self, path: str | os.PathLike[str]) -> None:
        """Remove this directory, with all it holds, when the owner is gone."""
        self._tell("dir", os.path.abspath(path))

    def forget_dir(self, path: str | os.PathLike[str]) -> None:
        """Leave this directory alone from now on."""
        absolute = os.path.abspath(path)
        with self._lock:
            self._entries = [entry for entry in self._entries if entry != ("dir", absolute)]
            self._tell("forget", absolute)

    def add_process(self, pid: int) -> None:
        """End this process, with all it started, when the owner is gone."""
        started = start_time(pid)
        if started is not None:
            self._tell("process", f"{pid}:{started}")

    def close(self) -> None:
        """Clean now, and wait until it is done. Doing it again does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._tell("clean")
            self._pipe.close()
        try:
            self._watcher.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            _log.warning("Cleaning up takes long; process %d goes on with it.", self.pid)

    def _start(self) -> subprocess.Popen[bytes]:
        # A package inside a zip file has no script that could be started by its path.
        file = watcher.__file__
        script = [file] if os.path.isfile(file) else ["-c", inspect.getsource(watcher)]
        arguments = [str(self._owner), str(start_time(self._owner))]
        keep = ("LD_LIBRARY_PATH", "PATH")
        # The watcher inherits what is blocked here: from its first moment on, nothing but
        # SIGKILL ends it before its work is done.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _GROUP_SIGNALS)
        try:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", *script, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                cwd="/",
                env={name: os.environ[name] for name in keep if name in os.environ},
                start_new_session=True,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @property
    def _pipe(self) -> IO[bytes]:
        assert self._watcher.stdin is not None
        return self._watcher.stdin

    def _tell(self, word: str, argument: str = "") -> None:
        with self._lock:
            if word in ("dir", "process"):
                self._entries.append((word, argument))
            try:
                self._pipe.write(_command(word, argument))
            except BrokenPipeError:
                _log.warning("The guard process %d was ended; starting another.", self.pid)
                self._pipe.close()
                self._watcher.wait()
                self._watcher = self._start()
                for entry in [*self._entries, (word, argument)]:
                    self._pipe.write(_command(*entry))


def _command(word: str, argument: str) -> bytes:
    return os.fsencode(f"{word} {argument}") + b"\0"


@dataclass(frozen=True)
class _Session:
    pid: int
    path: Path
    guard: Guard


_session: _Session | None = None
_session_lock = threading.Lock()


def _current(base: str | os.PathLike[str] | None = None) -> _Session:
    global _session
    with _session_lock:
        if _session is None:
            folder = Path(base or tempfile.gettempdir()).absolute()
            sweep(folder)
            guard = Guard()
            prefix = f"zoo-{os.getuid()}-{os.getpid()}-{start_time(os.getpid())}-"
            path = Path(tempfile.mkdtemp(prefix=prefix, dir=folder))
            guard.add_dir(path)
            _session = _Session(os.getpid(), path, guard)
        return _session


def session_dir(base: str | os.PathLike[str] | None = None) -> Path:
    """The private directory of this process, made on first use and removed when it ends.

    Args:
        base: The folder to make it in; the usual one for temporary files when None. Only the
            first call decides.
    """
    return _current(base).path


def session_guard() -> Guard:
    """The guard that cleans up when this process is gone."""
    return _current().guard


@atexit.register
def close_session() -> None:
    """End the guarded processes and remove the session directory now.

    A later `session_dir` makes a new one. A forked child leaves that of its parent alone.
    """
    global _session
    with _session_lock:
        session, _session = _session, None
    if session is not None and session.pid == os.getpid():
        session.guard.close()


def sweep(base: str | os.PathLike[str] | None = None) -> list[Path]:
    """Remove session directories of this user whose owner and guard are both gone.

    Args:
        base: The folder to look in; the usual one for temporary files when None.

    Returns:
        The directories that were removed.
    """
    removed = []
    with contextlib.suppress(OSError):
        for entry in os.scandir(base or tempfile.gettempdir()):
            if _NAME.fullmatch(entry.name) and _abandoned(Path(entry.path)):
                shutil.rmtree(entry.path, ignore_errors=True)
                removed.append(Path(entry.path))
    return removed


def _abandoned(path: Path) -> bool:
    match = _NAME.fullmatch(path.name)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        facts = os.fstat(descriptor)
        if match is None or facts.st_uid != os.getuid():
            return False
        if start_time(int(match["pid"])) == match["start"]:
            return False
        # The owner may live in another container that shares this folder: no process of that
        # id is seen from here. But its guard's lock is.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return time.time() - facts.st_mtime > YOUNG_S
    except OSError:
        return False
    finally:
        os.close(descriptor)
