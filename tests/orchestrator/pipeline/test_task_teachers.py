"""A whole run whose candidates are scored by a task, beside a teacher that the run tunes on it."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml

from orchestrator.errors import UserError
from orchestrator.evaluation.training_evaluator import TrainingEvaluatorFactory
from orchestrator.phases import phases_of
from orchestrator.pipeline import checked_plan, plan_recipe, prepare_run
from orchestrator.progress import Progress
from orchestrator.recipe import load_recipe
from orchestrator.run_directory import RunDirectory
from orchestrator.stages.candidates import candidate_factory
from orchestrator.stages.task_teachers import TASK_TEACHERS, tuned_tasks, tuned_teacher
from tests.orchestrator.pipeline.efficient_bert_run import EFFICIENT_BERT, TRAINING
from tests.orchestrator.pipeline.runs import FinishedRun, Run
from tests.orchestrator.pipeline.task_words import write_words
from trainers.tasks.models import load_for_task

ROWS, HELD_OUT, CANDIDATES = 48, 12, 3
LATER = ["selection", "distillation", "evaluation", "finetuning", "rank_fidelity", "report"]
PHASE = {
    "name": "tasked",
    "score": "training",
    "strategies": [{"name": "random", "evaluations": CANDIDATES}],
    "training": TRAINING
    | {
        "steps": 2,
        "task": "sst2",
        "task_teacher": "tuned",
        "training_share": 0.5,
        "held_out_share": HELD_OUT / ROWS,
        "tuning": {"epochs": 12, "batch_size": 8, "learning_rate": 0.01},
    },
}
TUNING = {
    "tasks": ["sst2"],
    "epochs": 20,
    "batch_size": 16,
    "learning_rate": 0.005,
    "max_length": 16,
    "pooling": "mean",
    "dropout": 0.0,
    "precision": "float32",
    "distillation_weight": 0.8,
    "actors": 1,
}

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def scored_by_task(place, local_ray, tmp_path_factory):
    """The run, from its start to its end in one go."""
    data = write_words(tmp_path_factory.mktemp("words"), ROWS)
    recipe = EFFICIENT_BERT | {
        "name": "tasked",
        "phases": [PHASE],
        "finetuning": TUNING | {"data": str(data)},
    }
    file = place / "tasked.yaml"
    file.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    run = Run(file, tmp_path_factory.mktemp("tasked") / "run")
    return FinishedRun(run.recipe, run.folder, run.start())


@pytest.fixture(scope="module")
def recipe(scored_by_task):
    return load_recipe(str(scored_by_task.recipe))


@pytest.fixture
def due(scored_by_task):
    """The stages that a start under changes, or with a stage's files gone, would run."""

    def due(*changes, folder=scored_by_task.folder):
        plan = plan_recipe(load_recipe(str(scored_by_task.recipe), changes), folder)
        return [stage.name for stage in plan.stages if stage.action != "skip"]

    return due


def folder_of_teacher(run, recipe):
    (task,) = tuned_tasks(recipe)
    return tuned_teacher(recipe, RunDirectory(run.folder), task), task


def test_the_teacher_is_tuned_once_and_serves_search_and_models(scored_by_task, recipe):
    runs = scored_by_task.table("runs")
    finished = runs[runs["status"] == "finished"].set_index("stage")["detail"]
    assert list(finished.index).index(TASK_TEACHERS) < list(finished.index).index("search.tasked")
    assert finished[TASK_TEACHERS].startswith("1 fine-tuning of the teacher; dev scores: sst2 ")
    assert finished["finetuning"].startswith("2 fine-tunings"), "winner and baseline: the teacher was there"
    rows = scored_by_task.table("task_scores")
    assert sorted(rows["model"]) == ["most", "most-uniform", "teacher"]
    by_model = rows.set_index("model")
    assert dict(by_model["stage"].dropna()) == {"teacher": TASK_TEACHERS}
    assert set(by_model["teacher"].dropna()) == {"teacher"}
    folder, task = folder_of_teacher(scored_by_task, recipe)
    assert load_for_task(str(folder), task, keep_head=True).config.netsuke_task == "sst2"
    assert [path.name for path in (scored_by_task.folder / "finetuned").iterdir()] == ["teacher"]
    stage = json.loads((scored_by_task.folder / "stages" / f"{TASK_TEACHERS}.json").read_text())
    assert stage["outputs"]["scores"] == {"sst2": by_model.loc["teacher", "value"]}
    assert by_model.loc["teacher", "value"] > 0.8, "whether a sentence has one of three words is soon learnt"


def test_candidates_are_scored_by_the_task_beside_that_teacher(scored_by_task, recipe):
    """Trained again in this process, candidates have the losses of the run's rows."""
    rows = scored_by_task.table("evaluations")
    assert len(rows) == CANDIDATES
    assert set(rows["phase"]) == {"tasked"}
    assert set(rows["status"]) == {"ok"}
    right = (1 - rows["loss"]) * HELD_OUT
    assert right.round(9).apply(float.is_integer).all(), "a loss is 1 minus the share of the held-out rows"
    plan = checked_plan(recipe, scored_by_task.folder)
    (phase,) = phases_of(recipe)
    factory = candidate_factory(plan, phase)
    assert isinstance(factory, TrainingEvaluatorFactory)
    folder, _ = folder_of_teacher(scored_by_task, recipe)
    assert factory.task.teacher == str(folder)
    threads = torch.get_num_threads()
    try:
        evaluator = factory()
        soft = evaluator.training.task.soft
        again = evaluator.score([plan.space.parse(one) for one in rows["architecture"]], 1)
    finally:
        torch.set_num_threads(threads)
    assert [one.loss for one in again] == pytest.approx(list(rows["loss"]))
    assert len(soft) == ROWS // 2
    assert {len(logits) for logits in soft} == {2}


def test_a_second_start_has_nothing_to_do(due):
    assert due() == []


def test_a_change_runs_what_it_concerns(due):
    search = ["search.tasked", *LATER]
    assert due("phases.0.training.tuning.epochs=1") == search, "the teacher is tuned as before"
    assert due("finetuning.learning_rate=0.001") == [TASK_TEACHERS, *search]
    assert due("finetuning.seeds=[1, 2]") == ["finetuning", "report"], "the teacher of the first seed is there"
    assert due("finetuning.actors=2", "finetuning.save_models=true") == []
    assert due("phases.0.training.task_teacher=null") == search


def test_a_tuned_teacher_that_is_gone_or_another_s_is_tuned_again(scored_by_task, recipe, due, tmp_path):
    copy = scored_by_task.copy(tmp_path / "run")
    shutil.rmtree(copy.folder / "finetuned")
    assert TASK_TEACHERS in due(folder=copy.folder)
    more = "phases.0.strategies.0.evaluations=4"
    plan = checked_plan(load_recipe(str(copy.recipe), [more]), copy.folder)
    prepare_run(plan, ["teacher", "corpus", "latency", TASK_TEACHERS, "supernet", "search.tasked"], Progress("silent"))
    assert copy.last_attempt()[TASK_TEACHERS] == "finished"
    assert copy.last_attempt()["supernet"] == "skipped"
    rows = copy.table("evaluations").set_index("arch_id")
    first = scored_by_task.table("evaluations").set_index("arch_id")
    assert len(rows) == CANDIDATES + 1
    assert dict(rows["recorded_at"][first.index]) == dict(first["recorded_at"]), "scores beside an equal teacher hold"
    assert due(more, folder=copy.folder) == LATER
    folder, _ = folder_of_teacher(copy, recipe)
    (folder / "tuning.txt").write_text("other settings")
    assert TASK_TEACHERS in due(more, folder=copy.folder)


def test_a_teacher_that_nobody_imitates_is_refused(due):
    for change in ("finetuning.distil=false", "finetuning.distillation_weight=0"):
        with pytest.raises(UserError, match=r"^phases.0.training.task_teacher: found tuned, but .* nobody imitates"):
            due(change)

    assert "search.tasked" in due("finetuning.distillation_weight=0", "finetuning.layer_weight=1")
