"""Who shares memory and disks with whom."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

__all__ = ["host_key", "scratch_root"]


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


def scratch_root() -> Path:
    """Where a Spark task may put temporary files.

    Spark names its local directories to its Python workers and removes them with the executor, so
    what is put there goes away with the application, whatever becomes of us.
    """
    return Path(os.environ["SPARK_LOCAL_DIRS"].split(",")[0])
