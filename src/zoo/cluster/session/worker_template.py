"""A process that imports what Python workers need while the driver JVM starts.

Executors on this machine then have their daemons forked from it: a worker is there sooner by what
the imports take, and on several executors they are made once. Where it cannot serve, since a
variable of the environment is another one there or it has ended, the daemon imports by itself.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

__all__ = [
    "DAEMON",
    "NAMES",
    "PLACE",
    "STAND_IN",
    "Template",
    "call_process",
    "fork_from_template",
    "load_modules",
]

NAMES = "ZOO_PRELOADED_MODULES"
"""The variable with the modules that workers need."""
PLACE = "ZOO_WORKER_TEMPLATE"
"""The variable with the socket of the template."""
STAND_IN = "zoo-for-"
"""How the process is called that an executor has started, before the id of its daemon."""
DAEMON = "python-daemon"
"""How the daemon is called, and the workers that it forks."""
# What Spark and shells set for processes of their own; all else may matter to what is imported.
_OF_SPARK = ("SPARK", "_SPARK", "PYSPARK", "_PYSPARK", "PYTHON_", "ZOO_")
_OF_SHELLS = {"_", "JAVA_HOME", "LC_ALL", "OLDPWD", "PWD", "PYTHONPATH", "SHLVL"}


class Template:
    """Starts the process; it ends with this one, or by `stop`.

    Args:
        place: The path of its socket, in a folder of this user alone.
        modules: What it imports.
        environment: That workers will have, but for what Spark and shells set.
    """

    def __init__(self, place: str, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(place)
            listener.listen(64)
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(listener.fileno())],
                pass_fds=[listener.fileno()],
                env={**environment, NAMES: ",".join(modules)},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                process_group=0,
            )
        self.place = place

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """End it. What was forked from it ends with the executors."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError):
            os.unlink(self.place)


def load_modules() -> bool:
    """Import what the environment names.

    Returns:
        Whether forks may follow: there is no thread that a fork would lose, with its locks.
    """
    # What cannot be imported here is the task's to tell of.
    for name in ("pyspark.worker", *filter(None, os.environ.get(NAMES, "").split(","))):
        if name not in sys.modules:
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    # Each worker collects garbage after each task: 0.1 s among all that torch has made.
    gc.freeze()
    # Each worker has all of these read their archive, pyspark.zip, twenty times: 0.3 s.
    for place in [place for place in sys.path_importer_cache if ".zip" in place]:
        del sys.path_importer_cache[place]
    return threading.active_count() == 1


def call_process(name: str) -> None:
    """Have the system call this process so, in at most 15 letters."""
    Path("/proc/self/comm").write_text(name)


def fork_from_template() -> bool:
    """Have Spark's daemon forked from the template, with the streams of this process.

    Returns:
        Whether it was, and has ended since; else nothing has happened.
    """
    place = os.environ.get(PLACE)
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as line:
        if place is None:
            return False
        line.connect(place)
        order = {
            "arguments": sys.argv,
            "environment": dict(os.environ),
            "folder": os.getcwd(),
            "path": sys.path,
        }
        socket.send_fds(line, [b"\0"], [0, 1, 2])
        line.sendall(json.dumps(order).encode())
        line.shutdown(socket.SHUT_WR)
        daemon = line.recv(16).decode()
        if not daemon:
            return False
        # Who looks for the daemon of this executor finds its process id in the name of this one.
        call_process(f"{STAND_IN}{daemon}")
        # The executor sees these end with the daemon, and not with this process.
        os.close(0)
        os.close(1)
        with contextlib.suppress(OSError):
            line.recv(1)
        return True
    return False


def _relevant(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(_OF_SPARK) and name not in _OF_SHELLS
    }


def _serve(listener: socket.socket) -> None:
    """Fork a daemon for each executor that asks, until the driver is gone."""
    begun_with = _relevant(os.environ)
    if not load_modules():
        return
    while True:
        ready, _, _ = select.select([0, listener.fileno()], [], [])
        if 0 in ready:
            return
        line, _ = listener.accept()
        with line, contextlib.suppress(OSError, ValueError):
            _, streams, _, _ = socket.recv_fds(line, 1, 3)
            with line.makefile("rb") as said:
                order = json.load(said)
            if _relevant(order["environment"]) == begun_with and os.fork() == 0:
                listener.close()
                _become_daemon(line, streams, order)
            for stream in streams:
                os.close(stream)


def _become_daemon(
    line: socket.socket, streams: Sequence[int], order: dict[str, object]
) -> NoReturn:
    status = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.environ.clear()
        os.environ.update(order["environment"])  # type: ignore[call-overload]
        os.chdir(str(order["folder"]))
        sys.argv[:], sys.path[:] = order["arguments"], order["path"]  # type: ignore[call-overload]
        load_modules()
        call_process(DAEMON)
        line.sendall(str(os.getpid()).encode())
        from pyspark.daemon import manager

        manager()
        status = 0
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else 1
    finally:
        os._exit(status)


def main() -> None:
    """Serve on the socket that was handed down."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # daemons end when they like
    with socket.socket(fileno=int(sys.argv[1])) as listener:
        _serve(listener)


if __name__ == "__main__":
    main()
