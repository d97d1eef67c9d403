"""A run that is stopped and killed, and ends as one that was left alone.

It is one long story, so it is lived through once (the fixture ``survivor``) and looked at from several sides.
"""

from __future__ import annotations

import math
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from cluster.processes import end_processes, is_alive
from tests.cluster.test_connect import LAST_HELPERS
from tests.orchestrator.cli.conftest import Answer, call_here
from tests.orchestrator.pipeline.microscopic_run import STAGES
from tests.orchestrator.pipeline.runs import Run
from tests.orchestrator.pipeline.stopped_command import Command
from tests.orchestrator.without_ray import trainings_here

OWN_RAY_GONE_AFTER_SECONDS = 60.0
"""Of a driver that was killed; on a busy machine, else it is a matter of a few."""

EVERY_STEP = "supernet.checkpoint_every=1"
"""There is time to strike between two checkpoints."""

pytestmark = pytest.mark.timeout(900)


@dataclass
class Survivor:
    """What was seen on the way.

    Attributes:
        run: finished in the end.
        answers: of the commands that were stopped, in order.
        rival: what a second command said while the first one ran.
        plan: what a dry run said after the first stop.
        rows_before: evaluations on disk when the second command was killed.
        family: every process below the commands.
        last_kill: on the monotonic clock.
    """

    run: Run
    answers: list[Answer] = field(default_factory=list)
    rival: Any = None
    plan: Any = None
    rows_before: pd.DataFrame = field(default_factory=pd.DataFrame)
    family: list[psutil.Process] = field(default_factory=list)
    last_kill: float = 0.0


def checkpoints(run: Run) -> set[str]:
    return {path.parent.name for path in run.folder.glob("training/supernet-*/checkpoint*/progress.json")}


def scored_networks(run: Run) -> pd.DataFrame:
    if not (run.folder / "results" / "evaluations").is_dir():
        return pd.DataFrame()
    rows = run.table("evaluations")
    return rows[rows["scope"] == "network"]


def search_states(run: Run) -> list[Path]:
    return [*run.folder.glob("search/*/regularised_evolution*.json")]


@pytest.fixture(scope="module")
def survivor(place, local_ray, finished, tmp_path_factory):
    run = Run(place / "microscopic.yaml", tmp_path_factory.mktemp("stopped") / "microscopic")
    story = Survivor(run)
    command = Command(run, EVERY_STEP)
    try:
        command.wait_until(lambda: (run.folder / "results").exists(), "the lock")
        story.rival = call_here(*command.arguments)
        command.wait_until(lambda: checkpoints(run), "the supernet's first checkpoint")
        story.answers.append(command.stop(signal.SIGTERM))
        story.family += command.family

        assert not (run.folder / "stages" / "supernet.json").exists(), "stopped too late to show anything"
        story.plan = call_here(*command.arguments, "--dry-run", "--json").json

        command = Command(run, EVERY_STEP)
        command.wait_until(lambda: search_states(run), "the search's first state")
        command.hold_at(lambda: len(scored_networks(run)) >= 4, "the first scored candidates")
        story.answers.append(command.stop(signal.SIGKILL))
        story.family += command.family
        story.last_kill = time.monotonic()
        assert not (run.folder / "stages" / "search.json").exists(), "killed too late to show anything"
        story.rows_before = scored_networks(run)

        with trainings_here():  # what is left to train are students, from their start
            run.start()
        yield story
    finally:
        command.end()
        end_processes([*story.family, *command.family], patience=0.0)


def test_a_second_command_on_a_running_folder_is_refused(survivor):
    assert survivor.rival.code == 2
    assert survivor.rival.error.startswith(f"run folder {survivor.run.folder} is in use by process ")
    assert survivor.rival.error.endswith("wait until it ends, stop it, or give another --run-dir")


def test_sigterm_ends_in_order_and_says_how_to_go_on(survivor):
    answer = survivor.answers[0]
    assert answer.code == 130
    last = answer.err.splitlines()[-1]
    assert last.startswith(
        "netsuke: interrupted; what was measured is kept. The same command goes on from there: netsuke"
    )
    assert str(survivor.run.folder) in last
    assert "Traceback" not in answer.err
    runs = survivor.run.table("runs")
    first = runs[(runs["attempt"] == 1) & (runs["stage"] == "supernet")]
    assert list(first["status"]) == ["started", "interrupted"]
    actions = {stage["name"]: stage["action"] for stage in survivor.plan["stages"]}
    assert [actions[name] for name in STAGES[:4]] == ["skip", "skip", "skip", "resume"]


def test_the_second_command_was_killed(survivor):
    assert survivor.answers[1].code == -signal.SIGKILL
    assert survivor.run.last_attempt() == dict.fromkeys(STAGES[:5], "skipped") | dict.fromkeys(STAGES[5:], "finished")


def test_training_rows_are_those_of_a_run_that_was_left_alone(survivor, finished):
    key = ["stage", "subject", "block", "step"]
    columns = ["loss", "relative_mse", "learning_rate", "tokens", "path_updates", "workers"]
    mine, theirs = (
        run.table("training").set_index(key).sort_index()[columns].astype("float64") for run in (survivor.run, finished)
    )
    assert list(mine.index) == list(theirs.index)
    pd.testing.assert_frame_equal(mine, theirs, rtol=1e-6, atol=0.0)


def test_evaluated_architectures_are_those_of_a_run_that_was_left_alone(survivor, finished):
    key = ["scope", "strategy", "block", "architecture"]
    mine, theirs = (run.table("evaluations").set_index(key).sort_index() for run in (survivor.run, finished))
    assert list(mine.index) == list(theirs.index)
    assert list(mine["proposal"].fillna(-1)) == list(theirs["proposal"].fillna(-1))
    assert list(mine["supernet_signature"]) == list(theirs["supernet_signature"])
    for one, other in zip(mine["loss"], theirs["loss"], strict=True):
        assert math.isclose(one, other, rel_tol=1e-6)


def test_what_was_measured_before_the_kill_is_not_measured_again(survivor):
    before = survivor.rows_before.set_index(["strategy", "arch_id"])[["pid", "trial_id", "recorded_at", "loss"]]
    after = scored_networks(survivor.run).set_index(["strategy", "arch_id"])
    assert len(before) >= 4
    pd.testing.assert_frame_equal(after.loc[before.index, before.columns], before)


def test_models_and_winners_are_those_of_a_run_that_was_left_alone(survivor, finished):
    mine, theirs = (run.table("models").set_index("model") for run in (survivor.run, finished))
    assert list(mine["architecture"]) == list(theirs["architecture"])
    for column in ("cosine_similarity", "initial_cosine_similarity", "relative_mse"):
        pd.testing.assert_series_equal(mine[column], theirs[column], rtol=1e-5)


def test_nothing_is_left_of_the_commands_but_the_last_helpers(survivor):
    """These follow within two minutes, which a test of Ray's start and end waits for."""
    assert len(survivor.family) > 10
    deadline = survivor.last_kill + OWN_RAY_GONE_AFTER_SECONDS
    while left := [process for process in survivor.family if is_alive(process) and not is_last_helper(process)]:
        assert time.monotonic() < deadline, f"still running: {left}"
        time.sleep(0.5)
    assert not list((survivor.run.folder / "training").glob("*"))
    assert not list(survivor.run.folder.glob("search/*/tune"))


def is_last_helper(process):
    with suppress(psutil.Error):
        return process.name() in LAST_HELPERS
    return False  # it has ended meanwhile, and is not alive when it is looked at again
