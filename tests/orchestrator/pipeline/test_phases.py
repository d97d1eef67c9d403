"""A whole run in three phases: what each searched and handed over, and what came of the last winner."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from orchestrator.pipeline import plan_recipe
from orchestrator.recipe import load_recipe
from spaces import huggingface as _registered  # noqa: F401 - AutoModel has to know the project's models
from spaces.registry import load_space
from tests.orchestrator.pipeline.efficient_bert_run import OPTIONS, SUPERNET, networks, winners_of
from tests.orchestrator.pipeline.microscopic_run import shape_of_teacher
from tests.spaces.microscopic import parameters_of

MODELS = ("most", "most-uniform")

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def space():
    return load_space("efficient_bert", OPTIONS, shape_of_teacher())


@pytest.fixture(scope="module")
def winners(in_phases):
    """What each phase handed over, by the name of its stage."""
    return winners_of(in_phases)


def test_every_phase_is_a_stage_of_its_own(in_phases):
    runs = in_phases.table("runs")
    names = ["teacher", "corpus", "latency", "supernet", "block_losses", "search.both", "search.expressions"]
    names += ["supernet.sizes", "search.sizes", "selection", "distillation", "evaluation", "finetuning"]
    names += ["rank_fidelity", "report"]
    expected = [(name, status) for name in names for status in ("started", "finished")]
    assert list(zip(runs["stage"], runs["status"], strict=True)) == expected
    details = runs[runs["status"] == "finished"].set_index("stage")["detail"]
    assert "names no parts" in details["latency"], "a stage that has nothing to do says why"
    assert "no blocks" in details["block_losses"]


def test_a_second_start_has_nothing_to_do(in_phases):
    plan = plan_recipe(load_recipe(str(in_phases.recipe)), in_phases.folder)
    assert plan.is_done


def test_a_phase_hands_over_its_best_candidate_at_full_fidelity(in_phases, winners):
    for phase, fidelity in (("both", 2), ("expressions", 1), ("sizes", 1)):
        rows = networks(in_phases, phase)
        full = rows[(rows["fidelity"] == fidelity) & (rows["status"] == "ok")]
        best = full.sort_values("loss").iloc[0]
        assert winners[f"search.{phase}"] == best["architecture"]
        assert math.isfinite(best["loss"])


def test_successive_halving_trains_few_to_the_end(in_phases):
    rows = networks(in_phases, "both")
    assert len(rows) == 10
    counts = rows["fidelity"].value_counts()
    assert set(counts.index) == {1, 2}
    assert counts[1] > counts[2] > 0
    trained_twice = set(rows[rows["fidelity"] == 2]["arch_id"])
    assert trained_twice <= set(rows[rows["fidelity"] == 1]["arch_id"])


def test_each_phase_keeps_what_it_says_of_the_winner_before(in_phases, space, winners):
    first = space.parse(winners["search.both"])
    second = space.parse(winners["search.expressions"])
    with_sizes = [space.parse(text) for text in networks(in_phases, "expressions")["architecture"]]
    assert {one.linear_ids for one in with_sizes} == {first.linear_ids}
    assert first in with_sizes, "a phase starts at the winner of the one before"
    assert len({one.expressions for one in with_sizes}) > 1
    with_expressions = [space.parse(text) for text in networks(in_phases, "sizes")["architecture"]]
    assert {one.expressions for one in with_expressions} == {second.expressions}
    assert len({one.linear_ids for one in with_expressions}) > 1


def test_losses_are_told_apart_by_what_scored_them(in_phases):
    rows = in_phases.table("evaluations")
    signatures = {phase: set(networks(in_phases, phase)["supernet_signature"]) for phase in rows["phase"].unique()}
    assert all(len(found) == 1 for found in signatures.values())
    assert len(set.union(*signatures.values())) == 3, "two trainings of other lengths, and a supernet"


def test_a_phase_s_supernet_goes_on_from_the_main_one(in_phases):
    main = load_file(in_phases.folder / "supernet" / "supernet.safetensors")
    own = load_file(in_phases.folder / "supernet.sizes" / "supernet.safetensors")
    assert main.keys() == own.keys()
    moved = sum(float((own[name] - main[name]).norm()) for name in main)
    assert 0 < moved < 0.5 * sum(float(tensor.norm()) for tensor in main.values())
    training = in_phases.table("training")
    for stage in ("supernet", "supernet.sizes"):
        assert training[training["stage"] == stage]["step"].max() == SUPERNET["steps"]


def test_the_winner_of_the_last_phase_is_distilled_and_exported(in_phases, winners, space):
    selections = in_phases.table("selections")
    (chosen,) = selections[selections["chosen"]]["architecture"]
    assert chosen == winners["search.sizes"]
    assert set(selections["arch_id"]) <= set(networks(in_phases, "sizes")["arch_id"])
    models = in_phases.table("models").set_index("model")
    assert models.loc["most", "parameters"] == space.cost(space.parse(chosen)).parameters
    assert models["predicted_latency_ms"].isna().all()
    for label in MODELS:
        folder = in_phases.folder / "models" / label
        model = AutoModel.from_pretrained(folder).eval()
        batch = AutoTokenizer.from_pretrained(folder)(["pito teku fo"], return_tensors="pt")
        with torch.inference_mode():
            assert bool(model(**batch).last_hidden_state.isfinite().all())
        pooler = getattr(model, "pooler", None)
        assert models.loc[label, "parameters"] == parameters_of(model) - (parameters_of(pooler) if pooler else 0)


def test_the_report_tells_of_the_phases(in_phases, winners):
    page = (in_phases.folder / "report.html").read_text()
    assert "Phases of the search" in page
    assert "a short training of each" in page
    assert winners["search.expressions"] in page


def test_what_changes_in_a_phase_runs_from_there_on(in_phases):
    def again(*changes):
        plan = plan_recipe(load_recipe(str(in_phases.recipe), changes), in_phases.folder)
        return [stage.name for stage in plan.stages if stage.action != "skip"]

    later = ["selection", "distillation", "evaluation", "finetuning", "rank_fidelity", "report"]
    assert again("phases.2.stop=9") == ["search.sizes", *later]
    assert again("phases.1.training.steps=5") == ["search.expressions", "supernet.sizes", "search.sizes", *later]
    assert again("phases.1.training.company=2") == [], "company changes no result"
    assert again("phases.2.supernet.steps=9")[:2] == ["supernet.sizes", "search.sizes"]
