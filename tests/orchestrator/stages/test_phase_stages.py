"""The stages of layer-wise supernets and of searches in phases, before anything runs: lists, signatures, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from orchestrator.errors import UserError
from orchestrator.evaluation.supernet_evaluator import SupernetEvaluatorFactory
from orchestrator.evaluation.training_evaluator import TrainingEvaluatorFactory
from orchestrator.phases import phases_of
from orchestrator.pipeline import checked_plan, plan_recipe, stage_signatures
from orchestrator.recipe import load_recipe
from orchestrator.results import ResultsWriter
from orchestrator.run_directory import RunDirectory
from orchestrator.stages import stages_of
from orchestrator.stages.base import RunContext
from orchestrator.stages.candidates import (
    candidate_factory,
    candidate_settings,
    candidate_task,
    scored_by,
    trial_size_of,
)
from orchestrator.stages.finetuning import tuning_settings
from orchestrator.stages.search import winner_of
from orchestrator.stages.warm_up import warm_up_factory
from spaces.errors import SpaceError
from spaces.narrowing import Narrowing
from spaces.registry import load_space
from tests.orchestrator.pipeline.efficient_bert_run import EFFICIENT_BERT, OPTIONS, PHASES
from tests.orchestrator.pipeline.microscopic_run import STAGES, shape_of_teacher, write_teacher
from trainers.candidate_training import CandidateSettings
from trainers.errors import TrainingInputError
from trainers.tasks.slices import TrainSlices

IN_PHASES = ["search.both", "search.expressions", "supernet.sizes", "search.sizes"]


@pytest.fixture(scope="module")
def recipe_file(place, tmp_path_factory):
    """Of a run in phases; the folder of ``place`` stays as it is."""
    file = tmp_path_factory.mktemp("recipe") / "efficient.yaml"
    paths = {"teacher": {"source": str(place / "teacher")}}
    corpus = {"corpus": EFFICIENT_BERT["corpus"] | {"source": str(place / "text.txt")}}
    file.write_text(yaml.safe_dump(EFFICIENT_BERT | paths | corpus | {"phases": PHASES}, sort_keys=False))
    return file


@pytest.fixture
def checked(recipe_file, tmp_path):
    return lambda *changes: checked_plan(load_recipe(str(recipe_file), changes), tmp_path / "run")


def test_the_list_of_stages_follows_from_the_recipe(recipe_file):
    names = [stage.name for stage in stages_of(load_recipe(str(recipe_file)))]
    place = STAGES.index("search")
    assert names == [*STAGES[:place], *IN_PHASES, *STAGES[place + 1 :]]
    assert [stage.name for stage in stages_of(load_recipe(str(recipe_file), ["phases=[]"]))] == list(STAGES)


def test_each_stage_builds_on_the_phases_before_it(checked):
    plan = checked()
    inputs = {stage.name: stage.inputs_for(plan) for stage in stages_of(plan.recipe)}
    assert inputs["search.both"] == ("supernet", "latency")
    assert inputs["search.expressions"] == ("supernet", "latency", "search.both")
    assert inputs["supernet.sizes"] == ("teacher", "corpus", "supernet", "search.expressions")
    assert inputs["search.sizes"] == ("supernet.sizes", "latency", "search.expressions")
    assert inputs["selection"] == ("search.sizes",)


def test_plans_say_what_phases_do(recipe_file, tmp_path):
    stages = {stage.name: stage for stage in plan_recipe(load_recipe(str(recipe_file)), tmp_path / "run").stages}
    assert stages["search.both"].evaluations == 10
    assert stages["search.both"].work.startswith("train each for 4 steps and judge them")
    assert "sizes as of the winner before" in stages["search.expressions"].work
    assert "ended after 8 without a lower loss" in stages["search.sizes"].work
    assert stages["supernet.sizes"].steps == 8
    longer = plan_recipe(load_recipe(str(recipe_file), ["phases.0.training.steps=40000"]), tmp_path / "run").stages
    assert {stage.name: stage.seconds for stage in longer}["search.both"] > 2 * stages["search.both"].seconds


def test_scores_are_known_by_what_decides_them(checked):
    plan = checked()
    both, expressions, sizes = phases_of(plan.recipe)
    outputs = {name: {"signature": name} for name in ("supernet", "supernet.sizes")}
    assert scored_by(sizes, outputs) == "supernet.sizes"
    assert scored_by(both, outputs) != scored_by(expressions, outputs), "other fidelities are other schedules"
    alike = phases_of(checked("phases.1.training.fidelities=2", "phases.1.training.company=1").recipe)[1]
    assert scored_by(alike, outputs) == scored_by(both, outputs), "phases that train alike share their scores"
    assert scored_by(alike, {"supernet": {"signature": "another"}}) != scored_by(both, outputs)


def test_each_phase_has_the_evaluator_that_it_asks_for(checked):
    plan = checked("search.candidates_per_trial=auto")
    both, _, sizes = phases_of(plan.recipe)
    trained, scored = candidate_factory(plan, both), candidate_factory(plan, sizes)
    assert isinstance(trained, TrainingEvaluatorFactory)
    assert (trained.weights, trained.settings.fidelities) == (plan.folder.supernet_weights, 2)
    assert isinstance(scored, SupernetEvaluatorFactory)
    assert scored.weights == plan.folder.phase_supernet("sizes")
    assert trial_size_of(plan, both, 1000, 4) == both.training.company
    assert trial_size_of(plan, both, 8, 4) == 1


def test_what_a_phase_says_of_training_reaches_the_trainers(checked):
    own = "steps: 7, batch_size: 3, learning_rate: 0.01, warmup_share: 0.2, weight_decay: 0.3, gradient_clip: null"
    how = "precision: bfloat16, layer_padding: masked, start: scratch, fidelities: 5, company: 6"
    tuning = "tuning: {epochs: 9, batch_size: 8, learning_rate: 0.07, warmup_share: 0.4}"
    change = f"phases.1.training={{{own}, {how}, task: sst2, training_share: 0.6, held_out_share: 0.2, {tuning}}}"
    recipe = load_recipe("quickstart", [f"phases={json.dumps(PHASES)}", change, "seed=11", "finetuning.pooling=first"])
    training = phases_of(recipe)[1].training
    folder = RunDirectory(Path("unused"))
    found, task = candidate_settings(recipe, training), candidate_task(recipe, folder, training)
    tuned = replace(tuning_settings(recipe.finetuning), epochs=9, batch_size=8, learning_rate=0.07, warmup_share=0.4)
    own = CandidateSettings(7, 3, 0.01, 0.2, 0.3, 0.0, 11, "bfloat16", "masked", "raw", "scratch", 5, 6, tuned)
    assert found == own
    assert found.tuning.pooling == "first"
    assert (task.task.name, task.slices, task.teacher) == ("sst2", TrainSlices(0.6, 0.2), None)
    assert candidate_task(recipe, folder, phases_of(recipe)[0].training) is None


def test_the_scale_of_losses_reaches_every_training(checked):
    plan = checked("supernet.layer_scale=relative", "phases.0.training.layer_scale=relative")
    both, expressions, _ = phases_of(plan.recipe)
    assert candidate_factory(plan, both).settings.scale == "relative"
    assert candidate_factory(plan, expressions).settings.scale == "raw"
    before = stage_signatures(checked())
    for change, stage in (
        ("supernet.layer_scale=relative", "supernet"),
        ("phases.0.training.layer_scale=relative", "search.both"),
        ("phases.2.supernet.layer_scale=relative", "supernet.sizes"),
    ):
        assert stage_signatures(checked(change))[stage] != before[stage]
        assert stage_signatures(checked(change.replace("relative", "raw"))) == before


def test_the_scale_and_the_start_of_a_supernet_reach_its_training(checked, tmp_path):
    plan = checked("supernet.layer_scale=relative", "supernet.init=paper", "phases.2.supernet.layer_scale=relative")
    context = RunContext(plan, None, None, "", {})
    main = warm_up_factory(context, plan.recipe.supernet).settings
    assert (main.scale, main.init) == ("relative", "paper")
    assert warm_up_factory(context, plan.recipe.phases[2].supernet, tmp_path).settings.scale == "relative"
    plain = checked()
    assert warm_up_factory(RunContext(plain, None, None, "", {}), plain.recipe.supernet).settings.init == "teacher"


def test_a_search_without_phases_depends_on_no_key_of_theirs(checked):
    plan = checked("phases=[]")
    signatures = stage_signatures(plan)
    assert set(signatures) == set(STAGES)
    assert stage_signatures(checked("phases=[]", "search.stop=5"))["search"] != signatures["search"]
    assert stage_signatures(checked("phases=[]", "search.stop=5"))["supernet"] == signatures["supernet"]


def test_a_narrowing_is_the_part_of_the_space_that_it_says():
    space = load_space("efficient_bert", OPTIONS, shape_of_teacher())
    one = space.smallest()
    part = Narrowing(str(one), ("sizes",)).of(space)
    assert part.contains(one)
    assert part.cardinality() < space.cardinality()
    assert Narrowing().of(space) is space


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (["supernet.paths_per_step=3"], "supernet.paths_per_step: found 3, expected 2, since 'efficient_bert' is"),
        (["supernet.teacher_cache=float32"], "supernet.teacher_cache: found float32, expected off, since"),
        (["phases.1.keep=[colour]"], "phases.1.keep: found colour, expected aspects of the space 'efficient_bert'"),
        (["phases.0.strategies=[{name: exact}]"], "phases.0.strategies: 'exact' adds up block losses, but"),
        (["phases.1.strategies=[{name: random, options: {x: 1}}]"], "strategy random"),
        (["search.objectives=[loss, latency_ms]"], "search.objectives.1: found latency_ms, but the space"),
        (["budgets=[{name: a, latency_ms: 5}]"], "budgets.a.latency_ms: found a limit, but the space"),
        (["phases.0.training={task: squad_v1}"], "phases.0.training.task: found squad_v1, a task of"),
        (["phases.0.training={task: sst2}", "finetuning.data=/nowhere"], "finetuning.data: '/nowhere' is not a folder"),
        (["phases.1.keep=[sizes, colour]"], "phases.1.keep: found colour, expected aspects of the space"),
        (["phases.1.strategies=[{name: lanas, options: {mode: greedier}}]"], "strategy lanas"),
        (
            ["space.options.parameter_window=[12000, 14000]", "budgets=[{name: a, parameters: 11k}]"],
            "budgets.a.parameters: found 11000 (11,000), but no architecture of the space has fewer than 12,0",
        ),
        (["space.options.parameter_window=[1, 2]"], "space.options.parameter_window: found [1, 2], in which no"),
    ],
)
def test_what_does_not_fit_a_layer_wise_space_is_refused(checked, changes, line):
    with pytest.raises((UserError, SpaceError, TrainingInputError)) as raised:
        checked(*changes)
    assert str(raised.value).startswith(line)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("supernet.architectures=sampled", "supernet.architectures: found sampled, expected largest, since the blocks"),
        ("supernet.layer_padding=masked", "supernet.layer_padding: found masked, expected counted, since the blocks"),
        ("supernet.layer_scale=relative", "supernet.layer_scale: found relative, expected raw, since the blocks"),
        ("phases=[{name: a, score: training}]", "phases.0.score: found training, which compares candidates with the"),
        ("phases=[{name: a, supernet: {steps: 5}}]", "phases.0.supernet: found a section, but the supernet of"),
        ("phases=[{name: a}, {name: b, keep: [sizes]}]", "phases.1.keep: found sizes, expected aspects of the space"),
    ],
)
def test_what_does_not_fit_a_space_of_blocks_is_refused(place, tmp_path, change, line):
    with pytest.raises((UserError, SpaceError)) as raised:
        checked_plan(load_recipe(str(place / "microscopic.yaml"), [change]), tmp_path / "run")
    assert str(raised.value).startswith(line)


def test_candidates_that_are_trained_are_not_ranked_by_what_they_predict(recipe_file, tmp_path):
    teacher = write_teacher(tmp_path / "teacher", with_head=True)
    recipe = load_recipe(str(recipe_file), [f"teacher.source={teacher}", "search.rank_by=masked_lm"])
    with pytest.raises(UserError, match=r"^search.rank_by: found masked_lm, but phases.0 scores by training, after wh"):
        checked_plan(recipe, tmp_path / "run")


def test_a_phase_hands_over_the_best_candidate_within_a_budget_or_says_that_there_is_none(checked):
    """Of its own search, scored to the end; those of other phases, of less training and failures do not count."""
    plan = checked()
    both, expressions, _ = phases_of(plan.recipe)
    outputs = {"supernet": {"signature": "supernet"}}
    plan.folder.path.mkdir(parents=True)
    with ResultsWriter(plan.folder.results, "run") as results:
        context = RunContext(plan, results, None, "signature", outputs)

        def record(text, loss, size, phase=both, fidelity=2, status="ok"):
            values = {"architecture": text, "arch_id": text, "loss": loss, "encoder_parameters": size}
            known = {"scope": "network", "supernet_signature": scored_by(phase, outputs), "phase": phase.name}
            results.append("evaluations", strategy="s", fidelity=fidelity, status=status, **values, **known)
            results.flush()

        record("large", 0.1, 10**6)
        with pytest.raises(UserError) as raised:
            winner_of(context, both)
        line = "phases.0.strategies: found 1 candidate with a score at full fidelity, none of them within a budget"
        assert str(raised.value).startswith(line)
        assert len(str(raised.value).splitlines()) == 1
        record("short", 0.2, 1, fidelity=1)
        record("other", 0.2, 1, phase=expressions, fidelity=1)
        record("failed", None, 1, status="failed")
        record("second", 0.4, 1)
        record("first", 0.3, 1)
        assert winner_of(context, both) == {"winner": "first", "loss": 0.3, "strategy": "s"}


def test_a_space_of_blocks_can_be_searched_in_phases_without_aspects(place, tmp_path):
    change = "phases=[{name: wide, strategies: [{name: random}]}, {name: long}]"
    plan = checked_plan(load_recipe(str(place / "microscopic.yaml"), [change]), tmp_path / "run")
    names = [stage.name for stage in stages_of(plan.recipe)]
    assert [name for name in names if name.startswith("search")] == ["search.wide", "search.long"]


def test_a_supernet_scores_layer_wise_architectures_by_the_error_of_their_last_state():
    """Also where candidates of a trial share nothing, since such a supernet runs them one by one."""
    from orchestrator.evaluation.supernet_evaluator import SupernetEvaluator
    from trainers.losses import masked_mse, masked_variance
    from trainers.validation import ValidationBatch

    torch.manual_seed(0)
    space = load_space("efficient_bert", OPTIONS, shape_of_teacher())
    supernet = space.supernet().eval()
    ids_BT, mask_BT = torch.randint(5, 300, (3, 8)), torch.ones(3, 8, dtype=torch.int64)
    mask_BT[1, 5:] = 0
    target_BTD = torch.randn(3, 8, 32)
    batch = ValidationBatch(ids_BT, mask_BT, [target_BTD], [masked_variance(target_BTD, mask_BT).item()])
    chosen = [space.smallest(), supernet.largest(), space.smallest()]
    scores = SupernetEvaluator(supernet, [batch], "float32").score(chosen, 1)
    for architecture, score in zip(chosen, scores, strict=True):
        with torch.no_grad():
            error = masked_mse(supernet(architecture, ids_BT, mask_BT), target_BTD, mask_BT)
        assert score.loss == pytest.approx(float(error) / batch.variances[0], rel=1e-5)
    assert scores[0].loss == scores[2].loss != scores[1].loss
