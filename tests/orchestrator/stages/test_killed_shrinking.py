"""Progressive shrinking on Ray that loses its worker, or everything, in the middle: as if nothing had happened."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from cluster.processes import end_processes
from orchestrator.results import open_results
from orchestrator.run_directory import RunDirectory
from tests.orchestrator.stages.shrunk_training import train_shrunk
from trainers.shrinking import load_alive

REPOSITORY = Path(__file__).resolve().parents[3]
LAST_ROUND_BEFORE_THE_KILL = "shrinking round 3"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def recipe(place):
    return place / "microscopic.yaml"


@pytest.fixture(scope="module")
def undisturbed(recipe, local_ray, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shrunk") / "undisturbed"
    train_shrunk(recipe, folder, local_ray, io.StringIO())
    return folder


def rows(folder, table):
    return open_results(folder / "results").frame(table)


def check_like(mine, theirs):
    """Every round of every block and bin once, with the same fates; the same survivors; the same training rows."""
    key = ["round", "block", "bin"]
    fates = ["step", "live_before", "sampled", "removed", "live_after", "live_total", "best_loss", "worst_loss"]
    ours, others = (rows(folder, "shrinking") for folder in (mine, theirs))
    assert not ours.duplicated(key).any()
    rounds = sorted(ours["round"].unique())
    assert rounds == list(range(rounds[-1] + 1)), "no round is missing"
    assert rounds[-1] > 4, "killed too late to show anything"
    assert len(ours) == len(rounds) * 2 * 3
    pd.testing.assert_frame_equal(
        ours.set_index(key).sort_index()[fates].astype("float64"),
        others.set_index(key).sort_index()[fates].astype("float64"),
        rtol=1e-6,
        atol=0.0,
    )
    for before, after in zip(range(rounds[-1]), range(1, rounds[-1] + 1), strict=True):
        left, found = (ours[ours["round"] == number].sort_values(["block", "bin"]) for number in (before, after))
        assert left["live_after"].tolist() == found["live_before"].tolist()
    for block, other in zip(*(load_alive(RunDirectory(folder).alive) for folder in (mine, theirs)), strict=True):
        assert block.tolist() == other.tolist()
    key = ["stage", "subject", "block", "step"]
    one, another = (
        rows(folder, "training").set_index(key).sort_index()[["loss", "tokens"]].astype("float64")
        for folder in (mine, theirs)
    )
    pd.testing.assert_frame_equal(one, another, rtol=1e-6, atol=0.0)


def worker_pids():
    """Of the training workers below this process."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        try:
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.add(process.pid)
        except psutil.Error:  # it has ended meanwhile
            continue
    return found


def test_a_killed_worker_shrinks_on_as_if_nothing_had_happened(recipe, undisturbed, local_ray, tmp_path):
    stream = io.StringIO()
    before, killed = worker_pids(), []

    def kill_after_some_rounds() -> None:
        deadline = time.monotonic() + 300
        while LAST_ROUND_BEFORE_THE_KILL not in stream.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
        for pid in worker_pids() - before:
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    killer = threading.Thread(target=kill_after_some_rounds)
    killer.start()
    train_shrunk(recipe, tmp_path / "run", local_ray, stream)
    killer.join()
    assert len(killed) == 1
    check_like(tmp_path / "run", undisturbed)


def test_a_killed_driver_leaves_what_the_next_start_goes_on_from(recipe, undisturbed, local_ray, tmp_path):
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "tests.orchestrator.stages.shrunk_training", str(recipe), str(folder)]
    driver = subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    family: list[psutil.Process] = []
    try:
        assert driver.stdout is not None
        for line in driver.stdout:
            if LAST_ROUND_BEFORE_THE_KILL in line:
                break
        family = psutil.Process(driver.pid).children(recursive=True)
        driver.kill()
        assert driver.wait() == -signal.SIGKILL, "it ended before it could be killed"
    finally:
        if driver.poll() is None:
            driver.kill()
            driver.wait()
        if driver.stdout is not None:
            driver.stdout.close()
        end_processes(family, patience=0.0)
    assert not RunDirectory(folder).alive.exists()
    recorded = rows(folder, "shrinking")
    train_shrunk(recipe, folder, local_ray, io.StringIO())
    check_like(folder, undisturbed)
    assert recorded.empty or recorded["round"].max() < rows(folder, "shrinking")["round"].max()
