"""A run in phases that is stopped, or killed, in the middle of a phase, and ends as one that was left alone."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager

import pandas as pd
import pytest

from cluster.processes import end_processes
from cluster.signals import Interrupted
from orchestrator.pipeline import checked_plan, prepare_run, run_recipe
from orchestrator.progress import Progress
from orchestrator.recipe import load_recipe
from tests.orchestrator.pipeline.efficient_bert_run import LANAS, PHASES, networks, winners_of
from tests.orchestrator.pipeline.runs import Run
from tests.orchestrator.pipeline.stopped_command import Command
from tests.orchestrator.without_ray import without_ray

UP_TO_THE_LAST_SEARCH = ("teacher", "corpus", "latency", "supernet", "block_losses", "search.both")
UP_TO_THE_LAST_SEARCH += ("search.expressions", "supernet.sizes", "search.sizes")
EVERY_STEP = "phases.2.supernet.checkpoint_every=1"
"""There is time to strike between two checkpoints."""

KNOWN = LANAS["options"]["initial"] + 1
"""Candidates of which one came from a region that was learned."""

pytestmark = pytest.mark.timeout(900)


def checkpoints(run):
    return [*run.folder.glob("training/supernet.sizes-*/checkpoint*/progress.json")]


def scored(run):
    """Everything that was scored, with what is the same in each run."""
    rows = pd.concat([networks(run, phase["name"]) for phase in PHASES])
    rows["proposal"] = rows["proposal"].fillna(-1)
    return rows.set_index(["phase", "strategy", "architecture", "fidelity"]).sort_index()


def finish(run):
    """Go on with it; models are nobody's business here."""
    prepare_run(checked_plan(load_recipe(str(run.recipe)), run.folder), UP_TO_THE_LAST_SEARCH, Progress("silent"))


def check_like(run, in_phases, before):
    """The same winners, evaluations and losses; what was scored ``before`` was not scored again."""
    assert winners_of(run) == winners_of(in_phases)
    mine, theirs = scored(run), scored(in_phases)
    assert mine.index.is_unique, "nothing was scored twice"
    columns = ["proposal", "loss", "status", "supernet_signature", "encoder_parameters"]
    pd.testing.assert_frame_equal(mine[columns], theirs[columns], rtol=1e-6, atol=0.0)
    measured = ["pid", "trial_id", "recorded_at", "loss"]
    pd.testing.assert_frame_equal(mine.loc[before.index, measured], before[measured])
    training = [one.table("training").query("stage == 'supernet.sizes'").set_index("step") for one in (run, in_phases)]
    pd.testing.assert_series_equal(*(rows["loss"].sort_index() for rows in training), rtol=1e-6)


class Stopping(Progress):
    """Stops its own process, as somebody else would, once the second phase has had some candidates scored."""

    @contextmanager
    def stage(self, name, *arguments, **options):
        with super().stage(name, *arguments, **options) as progress:
            update = progress.update

            def update_and_stop(done, note=None):
                update(done, note)
                if name == "search.expressions" and done >= KNOWN:
                    os.kill(os.getpid(), signal.SIGTERM)

            progress.update = update_and_stop
            yield progress


def test_a_run_stopped_in_a_search_ends_as_one_that_was_left_alone(in_phases, tmp_path):
    run = Run(in_phases.recipe, tmp_path / "run")
    with without_ray():
        with pytest.raises(Interrupted):
            run_recipe(load_recipe(str(run.recipe)), run.folder, Stopping("silent"))
        before = scored(run)
        assert KNOWN <= len(networks(run, "expressions")) < LANAS["evaluations"], "stopped too late to show anything"
        finish(run)
    skipped = dict.fromkeys(UP_TO_THE_LAST_SEARCH[:-3], "skipped")
    assert run.last_attempt() == skipped | dict.fromkeys(UP_TO_THE_LAST_SEARCH[-3:], "finished")
    check_like(run, in_phases, before)


@pytest.mark.slow
def test_a_run_killed_in_a_search_and_in_a_training_ends_as_one_that_was_left_alone(in_phases, tmp_path):
    run = Run(in_phases.recipe, tmp_path / "run")
    command = Command(run, EVERY_STEP)
    family = []
    try:
        command.wait_until(lambda: [*run.folder.glob("search/*/tune/lanas-1")], "the second search")
        command.hold_at(
            lambda: len(networks(run, "expressions")) >= KNOWN, "a candidate from a learned region", seconds=240
        )
        assert command.stop(signal.SIGKILL).code == -signal.SIGKILL
        family += command.family
        before = scored(run)
        assert KNOWN <= len(networks(run, "expressions")) < LANAS["evaluations"], "killed too late to show anything"

        command = Command(run, EVERY_STEP)
        command.wait_until(lambda: checkpoints(run), "the first checkpoint of the phase's supernet")
        assert command.stop(signal.SIGKILL).code == -signal.SIGKILL
        family += command.family
        assert not (run.folder / "stages" / "supernet.sizes.json").exists(), "killed too late to show anything"
    finally:
        command.end()
        end_processes([*family, *command.family], patience=0.0)
    finish(run)
    assert run.last_attempt() == dict.fromkeys(UP_TO_THE_LAST_SEARCH[:-2], "skipped") | dict.fromkeys(
        UP_TO_THE_LAST_SEARCH[-2:], "finished"
    )
    check_like(run, in_phases, before)
