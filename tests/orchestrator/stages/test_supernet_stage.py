"""The stage that trains and shrinks a supernet: its plan, its signature, and one real training."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from safetensors.torch import load_file

from orchestrator.errors import UserError
from orchestrator.pipeline import plan_recipe, stage_signatures
from orchestrator.progress import Progress
from orchestrator.recipe import load_recipe
from orchestrator.results import ResultsWriter, open_results
from orchestrator.run_directory import RunDirectory
from orchestrator.stages.base import RunContext, RunPlan
from orchestrator.stages.corpus import CorpusStage
from orchestrator.stages.latency import LatencyStage
from orchestrator.stages.supernet import SupernetStage
from orchestrator.stages.teacher import TeacherStage
from spaces.registry import load_space
from tests.orchestrator.pipeline.microscopic_run import shape_of_teacher
from tests.orchestrator.without_ray import trainings_here
from trainers.shrinking import load_alive

SHRINKING = "supernet.shrinking={steps_per_epoch: 4, warm_epochs: 1, bins: 3, sample: 40, keep: 5, batch_size: 4}"
ARCHITECTURES = 2 * (4 + 4**2 + 4**3 + 4**4)

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def planned(place, tmp_path):
    """What a run of the microscopic recipe is planned to do, stage by stage."""

    def plan(*changes: str):
        plan = plan_recipe(load_recipe(str(place / "microscopic.yaml"), changes), tmp_path / "run")
        return {stage.name: stage for stage in plan.stages}

    return plan


@pytest.fixture
def run_plan(place, tmp_path):
    def make(*changes: str) -> RunPlan:
        recipe = load_recipe(str(place / "microscopic.yaml"), changes)
        space = load_space(recipe.space.name, recipe.space.options, shape_of_teacher())
        return RunPlan(recipe, RunDirectory(tmp_path / "run"), shape_of_teacher(), space)

    return make


def test_a_plan_tells_rounds_evaluations_and_the_size_of_the_cache(planned):
    plain = planned()["supernet"]
    assert (plain.evaluations, plain.disk_bytes) == (None, None)
    stage = planned(SHRINKING, "supernet.teacher_cache=bfloat16", "supernet.shrinking.latency_rule=none")["supernet"]
    assert "shrunk in 5 rounds at most" in stage.work
    assert 3 * 2 * 40 < stage.evaluations <= 5 * 3 * 2 * 40
    rows = 24 * 8  # nothing is packed yet: every sequence of every step may be another
    assert stage.disk_bytes == rows * (3 * 16 * 32 * 2 + 1)
    assert "kept in bfloat16 (576.2 KiB)" in stage.work
    assert stage.seconds > plain.seconds


def test_what_comes_from_the_hub_is_named_as_unchecked(place, tmp_path):
    recipe = load_recipe(str(place / "microscopic.yaml"), ["corpus.source=dataset:some/text", "finetuning.tasks=[rte]"])
    notes = plan_recipe(recipe, tmp_path / "run").notes
    for what in ("corpus.source: 'dataset:some/text'", "finetuning: the data of rte"):
        (note,) = (note for note in notes if note.startswith(what))
        assert note.startswith(f"{what} could not be checked: this process is set to be offline")


def test_only_shrinking_by_the_table_depends_on_latency(run_plan):
    def of_supernet(*changes):
        plan = run_plan(*changes)
        return SupernetStage().inputs_for(plan), stage_signatures(plan)["supernet"]

    other_latency = "tables.latency.repeats=4"
    for changes, depends in [
        ((), False),
        ((SHRINKING,), True),
        ((SHRINKING, "supernet.shrinking.latency_from=flops"), False),
        ((SHRINKING, "supernet.shrinking.latency_rule=none"), False),
    ]:
        inputs, signature = of_supernet(*changes)
        assert ("latency" in inputs) == depends
        assert (of_supernet(*changes, other_latency)[1] != signature) == depends


def test_a_population_that_could_not_shrink_is_refused(planned):
    with pytest.raises(UserError) as raised:
        planned(SHRINKING, "supernet.shrinking.bins=200")
    message = str(raised.value)
    assert message.startswith("supernet.shrinking.keep: found 5 in each of 200 bins, but a block of the space has only")
    assert f"{ARCHITECTURES} architectures" in message


def test_a_shrunk_supernet_leaves_weights_survivors_rows_and_lines(run_plan, local_ray, tmp_path):
    plan = run_plan(
        SHRINKING,
        "supernet.teacher_cache=float32",
        "supernet.steps=200",
        "supernet.batch_size=16",
        "supernet.shrinking.latency_rule=upper",
        # Measured latencies may sort out so many, on a busy machine, that nothing is left for the bins to do.
        "supernet.shrinking.latency_from=flops",
        # So little text is seen twice however few the rounds are.
        "corpus.max_tokens=600",
    )
    stream = io.StringIO()
    outputs = {}
    abandoned = plan.folder.training / f"supernet-{'0' * 16}"
    abandoned.mkdir(parents=True)
    (plan.folder.training / "distillation-0123456789abcdef").mkdir()
    with ResultsWriter(plan.folder.results, "run-1") as results:
        context = RunContext(plan, results, local_ray, "f" * 16, outputs)
        for stage in (TeacherStage(), CorpusStage(), LatencyStage(), SupernetStage()):
            with trainings_here(), Progress("lines", stream, interval=0).stage(stage.name) as progress:
                result = stage.run(context, progress)
            outputs[stage.name] = {**result.outputs, "signature": "f" * 16}
        assert not abandoned.exists(), "what other settings left stays for ever"
        assert [path.name for path in plan.folder.training.glob("supernet-*-states/*/states-float32.bin")]
        stage.clean_up(context)
    assert [path.name for path in plan.folder.training.iterdir()] == ["distillation-0123456789abcdef"]
    assert stage.is_complete(plan)

    alive = load_alive(plan.folder.alive)
    assert [len(living) for living in alive] == [ARCHITECTURES] * 2
    rows = open_results(plan.folder.results).frame("shrinking")
    last = rows[rows["round"] == rows["round"].max()]
    assert last.groupby("block")["live_after"].sum().tolist() == [int(living.sum()) for living in alive]
    assert (last["live_after"] <= 5).all()
    assert set(rows["rule"]) == {"latency", "half_sampled"}
    assert set(rows["latency_rule"]) == {"upper (flops)"}
    training = open_results(plan.folder.results).frame("training")
    assert training["step"].max() == last["step"].max() < 200, "it did not stop when it was done"
    assert result.detail.endswith(f"of {ARCHITECTURES} architectures a block alive")
    assert result.outputs["steps"] == last["step"].max()
    lines = stream.getvalue()
    assert lines.count("before shrinking: the latency rule upper (flops) removed") == 1
    for number in range(1, int(last["round"].max()) + 1):
        assert lines.count(f"shrinking round {number}: ") >= 1, "every round is told, the first too"
    assert "blocks 0, 1: shrinking is over after round" in lines
    assert f"shrinking is over after {last['step'].max()} steps at the latest: the training, planned" in lines
    rates = training[training["stage"] == "supernet"].sort_values("step")["learning_rate"]
    assert rates.iloc[-1] < 0.1 * plan.recipe.supernet.learning_rate, "it was cut off high up"
    assert np.isfinite(load_file(plan.folder.supernet_weights)["blocks.0.exits.16.weight"].numpy()).all()

    unshrunk = dataclasses.replace(plan, recipe=run_plan().recipe)
    assert SupernetStage().is_complete(unshrunk)
    plan.folder.alive.unlink()
    assert not SupernetStage().is_complete(plan)
