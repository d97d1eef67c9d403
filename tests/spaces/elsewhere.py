"""Running a program where netsuke is not installed: the checkout and the editable install are out of sight."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_CHECK = """
import importlib.util, sys
for package in ("spaces", "trainers", "orchestrator", "cluster", "tests"):
    assert importlib.util.find_spec(package) is None, f"{package} can be imported: the test shows nothing"
"""


def run_elsewhere(program: str, folder: Path, *arguments: str | Path) -> str:
    """Run a Python program in an empty folder, without the network, and return what it prints; it has to succeed.

    Args:
        program: reads its arguments from ``sys.argv[1:]``.
        folder: where it runs, and keeps what Hugging Face caches.
        *arguments: of the program.
    """
    site = next(entry for entry in sys.path if Path(entry).name == "site-packages")
    # -S leaves .pth files unread, and with them the editable install; site-packages itself comes back as a plain path.
    prelude = f"import sys; sys.path.append({site!r})\n{_CHECK}"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(folder / "huggingface"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", prelude + program, *map(str, arguments)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
