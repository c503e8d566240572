"""Who shares memory and disks with whom."""

from __future__ import annotations

import contextlib
import os
import platform
from functools import cache
from pathlib import Path

__all__ = ["host_key", "memory_facts", "scratch_root"]


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
    except (OSError, ValueError, KeyError, IndexError):
        return {}
    with contextlib.suppress(OSError, ValueError):
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        held = int(Path("/sys/fs/cgroup/memory.current").read_text())
        inactive = Path("/sys/fs/cgroup/memory.stat").read_text().split("inactive_file ")[1]
        used = max(used, (held - int(inactive.split()[0])) / limit)
    return {
        "memory_bytes": float(resident * os.sysconf("SC_PAGE_SIZE")),
        "memory_used": round(used, 4),
    }


def scratch_root() -> Path:
    """Where a Spark task may put temporary files.

    Spark names its local directories to its Python workers and removes them with the executor, so
    what is put there goes away with the application, whatever becomes of us.
    """
    return Path(os.environ["SPARK_LOCAL_DIRS"].split(",")[0])
