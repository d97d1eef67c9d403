"""``netsuke run`` as a process that tests stop or kill, by its id, when something has happened in its run folder."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.orchestrator.cli.conftest import Answer
from tests.orchestrator.pipeline.runs import Run

REPOSITORY = Path(__file__).resolve().parents[3]


class Command:
    """``netsuke run`` in a process group of its own, with a Ray of its own.

    Args:
        run: recipe and folder.
        changes: of the recipe. Where every step is saved, there is time to strike between two checkpoints.
    """

    def __init__(self, run: Run, *changes: str) -> None:
        entry = "from orchestrator.cli.main import entry_point; entry_point()"
        self.arguments = ["run", str(run.recipe), "--run-dir", str(run.folder)]
        for change in (*changes, "cluster.num_cpus=2"):
            self.arguments += ["--set", change]
        self.process = subprocess.Popen(
            [sys.executable, "-c", entry, *self.arguments],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.family: list[psutil.Process] = []

    def wait_until(self, happened: Callable[[], Any], what: str, seconds: float = 240.0) -> None:
        deadline = time.monotonic() + seconds
        while not happened():
            assert self.process.poll() is None, f"ended before {what}: {self.process.communicate()}"
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            time.sleep(0.03)
        self.family = psutil.Process(self.process.pid).children(recursive=True)

    def hold_at(self, happened: Callable[[], Any], what: str, seconds: float = 60.0) -> None:
        """Let it go on in short steps until something has happened, and keep it there: it cannot run away meanwhile."""
        driver, deadline = psutil.Process(self.process.pid), time.monotonic() + seconds
        driver.suspend()
        while not happened():
            assert self.process.poll() is None, f"ended before {what}: {self.process.communicate()}"
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            driver.resume()
            time.sleep(0.02)
            driver.suspend()
        self.family = driver.children(recursive=True)

    def stop(self, how: signal.Signals) -> Answer:
        self.process.send_signal(how)
        out, err = self.process.communicate(timeout=120)
        return Answer(self.process.returncode, out, err)

    def end(self) -> None:
        """Kill it, if it still runs; its family is known afterwards."""
        if self.process.poll() is None:
            self.family = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            self.process.communicate()
