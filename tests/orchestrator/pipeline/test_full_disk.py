"""A disk that runs full: one line, exit code 1, and the same command goes on once there is room again."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.orchestrator.pipeline.microscopic_run import STAGES
from tests.orchestrator.pipeline.runs import Run

DISK_BYTES = 24 * 1024**2

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "netsuke-test", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only somebody who may mount a file system can fill one up")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def run(finished, small_disk) -> Run:
    return finished.copy(small_disk / "run")


def leave_free(folder: Path, free_bytes: int) -> Path:
    """Fill the disk of a folder but for so many bytes; the file that does it."""
    ballast = folder / "ballast"
    with ballast.open("wb") as file:
        file.write(bytes(shutil.disk_usage(folder).free - free_bytes))
        os.fsync(file.fileno())
    return ballast


@pytest.mark.parametrize(("stage", "lost", "free_kib"), [("report", "report.html", 64), ("teacher", "teacher", 96)])
def test_a_full_disk_is_one_line_and_no_loss(netsuke, run, small_disk, stage, lost, free_kib):
    """The stage has to write what is lost once more; the tables still fit."""
    (shutil.rmtree if (run.folder / lost).is_dir() else Path.unlink)(run.folder / lost)
    before = {name: len(run.table(name)) for name in ("training", "evaluations", "models")}
    ballast = leave_free(small_disk, free_kib * 1024)
    answer = netsuke("run", run.recipe, "--run-dir", run.folder, "--json")
    assert answer.code == 1, answer
    assert is_about_space(answer.error)

    ballast.unlink()
    answer = netsuke("run", run.recipe, "--run-dir", run.folder, "--json")
    assert answer.code == 0, answer.err
    assert run.last_attempt() == dict.fromkeys(STAGES, "skipped") | {stage: "finished"}
    assert {name: len(run.table(name)) for name in before} == before


def is_about_space(line: str) -> bool:
    return ("No space left" in line or "disk is full" in line) and "unexpected" not in line


@pytest.mark.slow
def test_a_disk_that_fills_up_in_a_training(netsuke, run, small_disk):
    """The students' folders still fit, their checkpoints do not."""
    ballast = leave_free(small_disk, 700 * 1024)
    changes = ["--set", "distillation.steps=3", "--set", "distillation.scaling.max_failures=0"]
    answer = netsuke("run", run.recipe, "--run-dir", run.folder, "--json", *changes)
    assert answer.code == 1, answer
    assert is_about_space(answer.error)

    ballast.unlink()
    answer = netsuke("run", run.recipe, "--run-dir", run.folder, "--json", *changes)
    assert answer.code == 0, answer.err
    assert set(run.table("models")["distillation_steps"].dropna()) == {3}
