"""A whole run whose one-shot search learns a task, from a teacher that the run tuned on it."""

from __future__ import annotations

import pytest
import torch
import yaml
from transformers import AutoModelForSequenceClassification

from orchestrator.errors import UserError
from orchestrator.phases import last_phase
from orchestrator.pipeline import checked_plan, plan_recipe
from orchestrator.progress import Progress
from orchestrator.recipe import load_recipe
from orchestrator.results import open_results
from orchestrator.run_directory import RunDirectory
from orchestrator.stages.candidates import factory_without_training
from orchestrator.sweep.loading import load_sweep
from orchestrator.sweep.running import check_sweep, run_sweep
from spaces import huggingface as _registered  # noqa: F401 - AutoModel has to know the project's models
from tests.orchestrator.pipeline.components_run import ONE_SHOT, components_recipe
from tests.orchestrator.pipeline.efficient_bert_run import FINETUNING, ROWS
from tests.orchestrator.pipeline.microscopic_run import RECIPE
from tests.orchestrator.pipeline.runs import FinishedRun, Run
from tests.orchestrator.pipeline.task_words import write_words
from tests.orchestrator.without_ray import without_ray

pytestmark = pytest.mark.timeout(900)
TUNING = {name: value for name, value in FINETUNING.items() if name != "layer_weight"}


@pytest.fixture(scope="module")
def recipe(place, tmp_path_factory):
    data = write_words(tmp_path_factory.mktemp("words"), ROWS)
    one_shot = ONE_SHOT | {"task": "sst2", "sweep": [8.0], "training_share": 0.75, "held_out_share": 0.25}
    described = components_recipe(
        name="task",
        supernet=RECIPE["supernet"] | {"steps": 12, "report_every": 2, "oneshot": one_shot},
        finetuning=TUNING | {"data": str(data)},
    )
    file = place / "task.yaml"
    file.write_text(yaml.safe_dump(described, sort_keys=False), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def run(recipe, local_ray, tmp_path_factory):
    started = Run(recipe, tmp_path_factory.mktemp("task") / "run")
    with without_ray():
        return FinishedRun(started.recipe, started.folder, started.start())


def test_the_run_tunes_its_teacher_first(run):
    stages = run.table("runs")["stage"].drop_duplicates().tolist()
    assert stages.index("task_teachers") < stages.index("supernet") < stages.index("lambdas") < stages.index("search")


def test_paths_learn_the_task(run):
    rows = run.table("training")
    rows = rows[rows["stage"] == "supernet"]
    assert rows["step"].max() == 12
    assert rows["kl_divergence"].notna().all(), "paths imitate the tuned teacher"
    assert rows["relative_mse"].isna().all(), "and no states"


def test_candidates_are_scored_by_held_out_rows(run, recipe):
    rows = run.table("evaluations")
    searched = rows[rows["strategy"] != "oneshot"]
    assert (searched["fidelity"] == 1).all()
    plan = checked_plan(load_recipe(str(recipe)), run.folder)
    evaluator = factory_without_training(plan, last_phase(plan.recipe), threads=1)()
    first = searched.iloc[0]
    (score,) = evaluator.score([plan.space.parse(first["architecture"])], 1)
    assert score.loss == pytest.approx(first["loss"], abs=1e-6)
    accuracies = 1 - searched["loss"]
    assert ((accuracies * 20) % 1).abs().lt(1e-6).all(), "accuracies of a quarter of 80 rows"


def test_what_was_found_is_kept_with_its_head(run):
    for weights in (RunDirectory(run.folder).supernet_weights.parent, RunDirectory(run.folder).lambda_folder(0)):
        model = AutoModelForSequenceClassification.from_pretrained(weights / "model").eval()
        with torch.no_grad():
            logits_BC = model(torch.tensor([[2, 5, 7, 3]])).logits
        assert logits_BC.shape == (1, 2)


def test_the_report_shows_the_tasks_loss(run):
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "Loss: of what was drawn, on the task’s labels" in page
    assert "Relative error: squared error" not in page


def test_a_second_start_has_nothing_to_do(run):
    assert plan_recipe(load_recipe(str(run.recipe)), run.folder).is_done


SWEEP = """
recipe: {recipe}
set: {{search.validation_batches: 2}}
strategies:
- name: sampling_distribution
  options: {{cost: latency_ms, cost_weights: [1.0], paths: 2, certainty: 0.6}}
evaluations: [12]
"""


@pytest.mark.parametrize("reuse", [True, False])
def test_strategies_are_compared_by_the_task(run, recipe, tmp_path, reuse):
    """By the tuned teacher's supernet, with the latency table's prices and the scores that are known already."""
    file, folder = tmp_path / "sweep.yaml", tmp_path / "swept"
    file.write_text(SWEEP.format(recipe=recipe), encoding="utf-8")
    with without_ray():
        checked = check_sweep(load_sweep(str(file)), folder)
        summary = run_sweep(checked, Progress("silent"), run.folder if reuse else None)
    rows = open_results(folder / "results").frame("evaluations")
    assert len(rows) == 12
    assert (rows["fidelity"] == 1).all()
    assert (rows["status"] == "ok").all()
    (member,) = summary.members
    assert member["best_loss"] == rows["loss"].min()
    tuned = RunDirectory(folder / "spaces" / "components").finetuned / "teacher"
    assert (tuned / "sst2" / "seed-1" / "model.safetensors").is_file()
    if reuse:
        assert set(rows["supernet_signature"]) <= set(run.table("evaluations")["supernet_signature"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["supernet.oneshot.task=wnut17"], r"supernet\.oneshot\.task: found wnut17, a task of"),
        (["supernet.oneshot.start=teacher"], r"supernet\.oneshot\.start: found .* expected null with a task"),
        (["supernet.oneshot.intermediate_weight=1"], r"supernet\.oneshot\.intermediate_weight: found 1, expected 0"),
        (["supernet.oneshot.held_out_share=0.5"], r"supernet\.oneshot\.held_out_share: found 0\.5, expected at most"),
        (["search.rank_by=masked_lm"], r"search\.rank_by: found masked_lm, but supernet\.oneshot\.task scores by"),
        (["rank_fidelity.architectures=8"], r"rank_fidelity\.architectures: found 8, expected 0 with"),
        (["distillation.initialisation=extracted"], r"distillation\.initialisation: found extracted, but supernet\."),
    ],
)
def test_what_does_not_go_with_a_task_is_refused(recipe, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        plan_recipe(load_recipe(str(recipe), changes), tmp_path / "run")


def test_components_in_the_teachers_order_can_be_extracted(recipe, tmp_path):
    changes = ["distillation.initialisation=extracted", "supernet.oneshot.order=teacher"]
    assert plan_recipe(load_recipe(str(recipe), changes), tmp_path / "run")
