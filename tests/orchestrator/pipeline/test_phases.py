"""A whole run of EfficientBERT's space in three phases: candidates are trained, trained, and scored by a task."""

from __future__ import annotations

import math

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from orchestrator.phases import phases_of
from orchestrator.pipeline import checked_plan, plan_recipe
from orchestrator.recipe import load_recipe
from orchestrator.stages.candidates import candidate_factory
from spaces import huggingface as _registered  # noqa: F401 - AutoModel has to know the project's models
from spaces.registry import load_space
from tests.orchestrator.pipeline.efficient_bert_run import OPTIONS, SUPERNET, in_tuned_phases, networks, winners_of
from tests.orchestrator.pipeline.microscopic_run import shape_of_teacher
from tests.orchestrator.pipeline.runs import FinishedRun, Run
from tests.orchestrator.without_ray import without_ray
from tests.spaces.microscopic import parameters_of

MODELS = ("most", "most-uniform")

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def tuned_run(place, local_ray, tmp_path_factory):
    """The run, from its start to its end in one go, without Ray."""
    recipe = place / "efficient.yaml"
    described = in_tuned_phases(tmp_path_factory.mktemp("tasks"))
    recipe.write_text(yaml.safe_dump(described, sort_keys=False), encoding="utf-8")
    run = Run(recipe, tmp_path_factory.mktemp("phases") / "run")
    with without_ray():
        return FinishedRun(run.recipe, run.folder, run.start())


@pytest.fixture(scope="module")
def space():
    return load_space("efficient_bert", OPTIONS, shape_of_teacher())


@pytest.fixture(scope="module")
def winners(tuned_run):
    """What each phase handed over, by the name of its stage."""
    return winners_of(tuned_run)


def test_every_phase_is_a_stage_of_its_own(tuned_run):
    runs = tuned_run.table("runs")
    names = ["teacher", "corpus", "task_teachers", "latency", "supernet", "block_losses", "search.both"]
    names += ["search.expressions", "supernet.sizes", "tuning.sizes", "search.sizes", "selection", "distillation"]
    names += ["evaluation", "finetuning", "rank_fidelity", "report"]
    expected = [(name, status) for name in names for status in ("started", "finished")]
    assert list(zip(runs["stage"], runs["status"], strict=True)) == expected
    details = runs[runs["status"] == "finished"].set_index("stage")["detail"]
    assert "names no parts" in details["latency"], "a stage that has nothing to do says why"
    assert "no blocks" in details["block_losses"]


def test_a_second_start_has_nothing_to_do(tuned_run):
    plan = plan_recipe(load_recipe(str(tuned_run.recipe)), tuned_run.folder)
    assert plan.is_done


def test_a_phase_hands_over_its_best_candidate_at_full_fidelity(tuned_run, winners):
    for phase, fidelity in (("both", 2), ("expressions", 1), ("sizes", 1)):
        rows = networks(tuned_run, phase)
        full = rows[(rows["fidelity"] == fidelity) & (rows["status"] == "ok")]
        best = full.sort_values(["loss", "arch_id"]).iloc[0]
        assert winners[f"search.{phase}"] == best["architecture"]
        assert math.isfinite(best["loss"])


def test_successive_halving_trains_few_to_the_end(tuned_run):
    rows = networks(tuned_run, "both")
    assert len(rows) == 10
    counts = rows["fidelity"].value_counts()
    assert set(counts.index) == {1, 2}
    assert counts[1] > counts[2] > 0
    trained_twice = set(rows[rows["fidelity"] == 2]["arch_id"])
    assert trained_twice <= set(rows[rows["fidelity"] == 1]["arch_id"])


def test_each_phase_keeps_what_it_says_of_the_winner_before(tuned_run, space, winners):
    first = space.parse(winners["search.both"])
    second = space.parse(winners["search.expressions"])
    with_sizes = [space.parse(text) for text in networks(tuned_run, "expressions")["architecture"]]
    assert {one.linear_ids for one in with_sizes} == {first.linear_ids}
    assert first in with_sizes, "a phase starts at the winner of the one before"
    assert len({one.expressions for one in with_sizes}) > 1
    with_expressions = [space.parse(text) for text in networks(tuned_run, "sizes")["architecture"]]
    assert {one.expressions for one in with_expressions} == {second.expressions}
    assert len({one.linear_ids for one in with_expressions}) > 1


def test_losses_are_told_apart_by_what_scored_them(tuned_run):
    rows = tuned_run.table("evaluations")
    signatures = {phase: set(networks(tuned_run, phase)["supernet_signature"]) for phase in rows["phase"].unique()}
    assert all(len(found) == 1 for found in signatures.values())
    assert len(set.union(*signatures.values())) == 3, "two trainings of other lengths, and a tuned supernet"


def test_a_phase_s_supernet_goes_on_from_the_main_one(tuned_run):
    main = load_file(tuned_run.folder / "supernet" / "supernet.safetensors")
    own = load_file(tuned_run.folder / "supernet.sizes" / "supernet.safetensors")
    assert main.keys() == own.keys()
    moved = sum(float((own[name] - main[name]).norm()) for name in main)
    assert 0 < moved < 0.5 * sum(float(tensor.norm()) for tensor in main.values())
    training = tuned_run.table("training")
    for stage in ("supernet", "supernet.sizes"):
        assert training[training["stage"] == stage]["step"].max() == SUPERNET["steps"]


def test_the_supernet_is_tuned_on_both_tasks_beside_their_teachers(tuned_run):
    trained = load_file(tuned_run.folder / "supernet.sizes" / "supernet.safetensors")
    tuned = load_file(tuned_run.folder / "tuning.sizes" / "supernet.safetensors")
    heads = load_file(tuned_run.folder / "tuning.sizes" / "heads.safetensors")
    assert trained.keys() == tuned.keys()
    assert sum(float((tuned[name] - trained[name]).norm()) for name in trained) > 0
    assert {name for name in heads if name.endswith("weight")} == {
        "pooler.weight",
        "classifiers.sst2.weight",
        "classifiers.stsb.weight",
    }
    rows = tuned_run.table("training")
    rows = rows[rows["stage"] == "tuning.sizes"]
    assert set(rows["subject"]) == {"sst2", "stsb"}
    assert set(rows["step"]) == {6, 12}
    scores = tuned_run.table("task_scores")
    assert set(zip(scores["model"], scores["task"], scores["stage"], strict=True)) == {
        ("teacher", task, "task_teachers") for task in ("sst2", "stsb")
    }


def test_candidates_of_the_last_phase_are_scored_by_a_task_without_training(tuned_run):
    """Scored again in this process, they have the losses of the run's rows: 1 minus a correlation each."""
    rows = networks(tuned_run, "sizes")
    assert set(rows["status"]) == {"ok"}
    assert rows["loss"].between(0, 2).all()
    assert rows["loss"].nunique() > 1
    plan = checked_plan(load_recipe(str(tuned_run.recipe)), tuned_run.folder)
    threads = torch.get_num_threads()
    try:
        evaluator = candidate_factory(plan, phases_of(plan.recipe)[-1])()
        again = evaluator.score([plan.space.parse(one) for one in rows["architecture"]], 1)
    finally:
        torch.set_num_threads(threads)
    assert [one.loss for one in again] == pytest.approx(list(rows["loss"]))


def test_the_winner_of_the_last_phase_is_distilled_and_exported(tuned_run, winners, space):
    selections = tuned_run.table("selections")
    (chosen,) = selections[selections["chosen"]]["architecture"]
    assert chosen == winners["search.sizes"]
    assert set(selections["arch_id"]) <= set(networks(tuned_run, "sizes")["arch_id"])
    models = tuned_run.table("models").set_index("model")
    assert models.loc["most", "parameters"] == space.cost(space.parse(chosen)).parameters
    assert models["predicted_latency_ms"].isna().all()
    for label in MODELS:
        folder = tuned_run.folder / "models" / label
        model = AutoModel.from_pretrained(folder).eval()
        batch = AutoTokenizer.from_pretrained(folder)(["pito teku fo"], return_tensors="pt")
        with torch.inference_mode():
            assert bool(model(**batch).last_hidden_state.isfinite().all())
        pooler = getattr(model, "pooler", None)
        assert models.loc[label, "parameters"] == parameters_of(model) - (parameters_of(pooler) if pooler else 0)


def test_the_report_tells_of_the_phases(tuned_run, winners):
    page = (tuned_run.folder / "report.html").read_text()
    assert "Phases of the search" in page
    assert "a short training of each" in page
    assert "stsb, by the supernet of its own, tuned on tasks" in page
    assert "loss (1 - the metric of stsb)" in page
    assert "by 1 - the metric of stsb on held-out rows" in page
    assert "tuning.sizes on stsb" in page
    assert winners["search.expressions"] in page


def test_what_changes_in_a_phase_runs_from_there_on(tuned_run):
    def again(*changes):
        plan = plan_recipe(load_recipe(str(tuned_run.recipe), changes), tuned_run.folder)
        return [stage.name for stage in plan.stages if stage.action != "skip"]

    later = ["selection", "distillation", "evaluation", "finetuning", "rank_fidelity", "report"]
    assert again("phases.2.stop=9") == ["search.sizes", *later]
    own = ["supernet.sizes", "tuning.sizes", "search.sizes", *later]
    assert again("phases.1.training.steps=5") == ["search.expressions", *own]
    assert again("phases.1.training.company=2") == [], "company changes no result"
    assert again("phases.2.supernet.steps=9") == own
    assert again("phases.2.supernet.tuning.steps=13") == own[1:]
    assert again("phases.2.supernet.tuning.judged_by=sst2") == ["search.sizes", *later]
    assert again("phases.2.supernet.tuning.held_out_share=0.1") == ["search.sizes", *later]
    assert again("phases.2.supernet.tuning.teachers=null") == own[1:]
    assert again("phases.2.supernet.tuning.report_every=3") == []
    assert again("finetuning.imitation_classes=sum") == ["task_teachers", *own[1:]]
