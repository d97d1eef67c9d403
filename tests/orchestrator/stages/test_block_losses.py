"""The stage block_losses on a run whose supernet is random: what it records, resumes, plans and warns of."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from orchestrator.progress import Progress
from orchestrator.recipe import load_recipe
from orchestrator.results import ResultsWriter, open_results
from orchestrator.stages.base import RunContext, RunPlan
from orchestrator.stages.block_losses import BlockLossStage
from spaces.registry import load_space
from tests.orchestrator.pipeline.microscopic_run import RECIPE, shape_of_teacher
from tests.orchestrator.trained_run import make_trained_run
from tests.orchestrator.without_ray import without_ray

SPACE = load_space("nas_bert", RECIPE["space"]["options"], shape_of_teacher())
STAGE = BlockLossStage()


@pytest.fixture
def plan_of(place, tmp_path):
    """A plan with other keys, in a run folder with a trained supernet."""

    def make(*changes: str, **options) -> RunPlan:
        recipe = load_recipe(str(place / "microscopic.yaml"), changes)
        folder = make_trained_run(place, tmp_path / "run", **options)
        return RunPlan(recipe, folder, shape_of_teacher(), SPACE)

    return make


def run(plan: RunPlan, cluster) -> tuple[str, str]:
    """The stage's detail, and what the terminal showed."""
    records = {name: plan.folder.stage_record(name) for name in ("supernet", "latency")}
    outputs = {name: {**record.outputs, "signature": record.signature} for name, record in records.items()}
    stream = io.StringIO()
    with ResultsWriter(plan.folder.results, "run") as results:
        context = RunContext(plan, results, cluster, "signature", outputs)
        with without_ray(), Progress("lines", stream).stage("block_losses") as progress:
            result = STAGE.run(context, progress)
    return result.detail, stream.getvalue()


def table(plan: RunPlan, name: str):
    return open_results(plan.folder.results).frame(name)


def test_losses_and_signals_are_recorded_and_not_scored_twice(plan_of, local_ray):
    plan = plan_of("tables.signal_architectures=3", "tables.signal_batches=2")
    detail, _ = run(plan, local_ray)
    losses, signals = table(plan, "block_losses"), table(plan, "signals")
    assert losses.groupby("block").size().to_dict() == {0: 5, 1: 5}
    assert (losses["latency_ms"] == 0.5 * losses["layers"]).all()
    assert losses["alive"].isna().all()
    assert sorted(zip(signals["block"], signals["hidden_size"], strict=True)) == [(0, 16), (0, 32), (1, 16), (1, 32)]
    assert (signals["signal"] == signals["spread"] / signals["noise"]).all()
    assert (signals["batches"] == RECIPE["tables"]["block_batches"]).all()
    assert detail.startswith("10 architectures of 2 blocks")
    changes = ["tables.block_architectures=7", "tables.signal_architectures=0"]
    run(replace(plan, recipe=load_recipe(str(plan.folder.path / "recipe.yaml"), changes)), local_ray)
    assert len(table(plan, "block_losses")) == 14
    again = table(plan, "block_losses").set_index(["block", "architecture"])["recorded_at"]
    assert (again[losses.set_index(["block", "architecture"]).index] == losses["recorded_at"].to_numpy()).all()


def test_the_living_are_scored_or_all_where_nothing_was_shrunk(plan_of, local_ray):
    plan = plan_of("tables.block_architectures=alive", "tables.signal_architectures=0", alive_every=40)
    run(plan, local_ray)
    living = [str(block) for block in SPACE.enumerate_blocks()][::40]
    first = table(plan, "block_losses").query("block == 0")
    assert sorted(first["architecture"]) == sorted(living)
    assert first["alive"].all()
    plan.folder.supernet_weights.with_name("alive.npz").unlink()
    planned = STAGE.planned(plan)
    assert planned.evaluations == 2 * SPACE.block_cardinality()
    assert "the living" in planned.work


def test_weak_signals_are_warned_of_in_the_detail_and_on_the_terminal(plan_of, local_ray, monkeypatch):
    monkeypatch.setattr("orchestrator.loss_signal.WEAK_SIGNAL", 1e9)
    plan = plan_of("tables.block_architectures=0", "tables.signal_architectures=3", "tables.signal_batches=2")
    detail, shown = run(plan, local_ray)
    assert "block 1: the ranking within hidden size 16 (signal" in detail
    assert "warning: block 0: the ranking within hidden size 16" in shown
    assert "more supernet steps" in shown


def test_plans_name_counts_and_time(plan_of):
    plan = plan_of("tables.block_architectures=all", "tables.signal_architectures=3")
    planned = STAGE.planned(plan)
    assert planned.evaluations == 2 * SPACE.block_cardinality() + 2 * 2 * 3
    assert "score all architectures of each of 2 blocks (1,360 in all), 12 more for the signal" in planned.work
    assert planned.seconds > 10


def test_nothing_is_scored_where_nothing_is_asked_for(plan_of, local_ray):
    plan = plan_of("tables.block_architectures=0", "tables.signal_architectures=0")
    assert run(plan, local_ray)[0].startswith("nothing to score: tables.block_architectures and signal_architectures")
    assert STAGE.planned(plan).evaluations == 0
    assert table(plan, "block_losses").empty
