"""Where a benchmark ran: a number without its machine and versions says nothing."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("netsuke", "numpy", "torch", "ray", "transformers", "pyarrow", "pandas", "duckdb", "optuna")


def describe(packages: Sequence[str] = PACKAGES, accelerator: bool = False) -> dict[str, Any]:
    """The machine and the versions, ready for JSON.

    Args:
        packages: distributions whose versions matter; those that are not installed are left out.
        accelerator: whether to name the CUDA device too (imports PyTorch).
    """
    description: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "load_of_the_last_minute": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
        "python": platform.python_version(),
        "versions": {name: version for name in packages if (version := _version(name))},
    }
    if accelerator:
        description["accelerator"] = _accelerator()
    return description


def as_text(description: Mapping[str, Any]) -> str:
    """A description as two readable lines."""
    machine = f"{description['processor']}, {description['cores']} cores, {description['memory_gib']} GiB memory"
    if description.get("accelerator"):
        machine += f", {description['accelerator']}"
    versions = ", ".join(f"{name} {version}" for name, version in description["versions"].items())
    return (
        f"machine:  {machine}, {description['system']}, OMP_NUM_THREADS {description['threads']}, "
        f"load {description['load_of_the_last_minute']}\n"
        f"versions: Python {description['python']}, {versions}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown processor"


def _memory_bytes() -> int:
    """Without psutil, which a bare accelerator machine has not."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _accelerator() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
