"""What this machine grants this process: cores, memory, shared memory; containers' limits included."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from pathlib import Path

CGROUP_ROOT = Path("/sys/fs/cgroup")
SHARED_MEMORY = Path("/dev/shm")


def usable_cores() -> int:
    """Cores this process may use: the machine's, less those the affinity mask or the container's quota withholds."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota = cpu_quota()
    return max(1, affinity if quota is None else min(affinity, math.ceil(quota)))


def cpu_quota(root: Path = CGROUP_ROOT) -> float | None:
    """The container's CPU quota in cores (cgroup v2, else v1), or None where there is none."""
    version_two = _read(root / "cpu.max").split()
    if len(version_two) == 2 and version_two[0] != "max":
        return int(version_two[0]) / int(version_two[1])
    quota, period = _read(root / "cpu/cpu.cfs_quota_us"), _read(root / "cpu/cpu.cfs_period_us")
    if quota and period and int(quota) > 0:
        return int(quota) / int(period)
    return None


def memory_bytes(root: Path = CGROUP_ROOT) -> int:
    """Memory this process may use, in bytes: the machine's, or the container's limit where that is smaller."""
    import psutil  # not on every accelerator machine, and needed only here

    total = int(psutil.virtual_memory().total)
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = _read(root / name)
        if limit.isdigit():
            return min(total, int(limit))
    return total


def shared_memory_free_bytes() -> int | None:
    """Free bytes of /dev/shm, where Ray's object store lives on Linux; None where the system has no such folder."""
    return shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else None


def temporary_folder() -> Path:
    """The folder for what may be lost at a restart of the machine."""
    return Path(tempfile.gettempdir())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
