"""Who shares memory and disks with whom."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["OneAtATime", "host_key", "memory_facts", "scratch_folder", "scratch_folders"]


@cache
def host_key() -> str:
    """Equal for two processes exactly when they see the same files and shared memory.

    The host name cannot tell: containers of one machine have names of their own, and two machines
    may have the same. The kernel's boot id names the machine, the namespaces of mounts and
    processes name the container.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/mnt')}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return platform.node()


def memory_facts() -> dict[str, float]:
    """How much memory this process has, and how much of what it may have is in use.

    Returns:
        `memory_bytes`, and `memory_used` from 0 to 1, by the limit of its control group or by the
        machine; empty where the system does not tell.
    """
    try:
        resident = int(Path("/proc/self/statm").read_text().split()[1])
        lines = Path("/proc/meminfo").read_text().splitlines()
        machine = {name: int(text.split()[0]) for name, text in (x.split(":") for x in lines)}
        used = 1.0 - machine["MemAvailable"] / machine["MemTotal"]
    except (OSError, ValueError, KeyError, IndexError, ZeroDivisionError):
        return {}
    # A kernel may leave out lines, or a container show a file that is empty.
    with contextlib.suppress(OSError, ValueError, IndexError, ZeroDivisionError):
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        held = int(Path("/sys/fs/cgroup/memory.current").read_text())
        inactive = Path("/sys/fs/cgroup/memory.stat").read_text().split("inactive_file ")[1]
        used = max(used, (held - int(inactive.split()[0])) / limit)
    return {
        "memory_bytes": float(resident * os.sysconf("SC_PAGE_SIZE")),
        "memory_used": round(used, 4),
    }


def scratch_folders() -> list[Path]:
    """The folders in which this process may put temporary files.

    Spark names them to its Python workers and removes them with the executor, so what is put there
    goes away with the application, whatever becomes of us. Outside Spark it is the temporary
    folder of the system.
    """
    named = [Path(name) for name in os.environ.get("SPARK_LOCAL_DIRS", "").split(",") if name]
    return named or [Path(tempfile.gettempdir())]


def scratch_folder() -> Path:
    """Of these folders the one with the most room."""
    named, free = scratch_folders(), {}
    for folder in named:
        with contextlib.suppress(OSError):
            if os.access(folder, os.W_OK):
                free[folder] = shutil.disk_usage(folder).free
    # Without any, the first: the error that comes of it is told with its name.
    return max(free, key=lambda folder: free[folder], default=named[0])


@dataclass(frozen=True)
class OneAtATime:
    """A function that one process of a machine runs at a time; the others wait for their turn."""

    function: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        """Wait for its turn, and call the function."""
        # The folder itself is locked: there is no file to leave behind, and a process that dies
        # lets go of it.
        folder = os.open(tempfile.gettempdir(), os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            return self.function(*args)
        finally:
            # Processes that the function forked hold the folder open as well.
            fcntl.flock(folder, fcntl.LOCK_UN)
            os.close(folder)
