"""The stage that tunes teachers for a search, by itself: what it leaves for whom, and when it is to do it again."""

from __future__ import annotations

from typing import Any, cast

import pytest

from orchestrator.evaluation.actor_pool import run_here
from orchestrator.progress import Progress
from orchestrator.recipe import Recipe
from orchestrator.report.data import load
from orchestrator.report.task_sections import tasks
from orchestrator.results import ResultsWriter, open_results
from orchestrator.run_directory import RunDirectory
from orchestrator.stages import stages_of, tuning
from orchestrator.stages.base import RunContext, RunPlan, Stage
from orchestrator.stages.finetuning import FineTuningStage
from orchestrator.stages.task_teachers import TASK_TEACHERS, TaskTeacherStage, tuned_tasks, tuned_teacher
from tests.orchestrator.pipeline.microscopic_run import shape_of_teacher
from tests.trainers.tasks.toy_tasks import save_bert, save_nas_bert, write, write_sentiment
from trainers.tasks.catalogue import find_task

MODELS = [{"label": "half", "role": "winner", "budget": "half", "same_as": None}]


def phase(name: str, task: str, teacher: str | None = "tuned") -> dict[str, Any]:
    return {"name": name, "score": "training", "training": {"task": task, "task_teacher": teacher}}


class Runs:
    """Starts stages again and again on one run folder, without Ray."""

    def __init__(self, place) -> None:
        self.folder = RunDirectory(place / "run")
        self.section = {"data": str(place / "data"), "epochs": 1, "pooling": "mean", "max_length": 24}
        self.started = 0

    def recipe(self, *phases: dict[str, Any], **section: Any) -> Recipe:
        return Recipe(name="toy", finetuning=self.section | section, phases=phases)

    def plan(self, recipe: Recipe) -> RunPlan:
        return RunPlan(recipe, self.folder, shape_of_teacher(), cast(Any, None))

    def start(self, stage: Stage, recipe: Recipe) -> str:
        """Run a stage as the pipeline does; returns what it says of itself."""
        self.started += 1
        with ResultsWriter(self.folder.results, "toy") as writer:
            writer.append("runs", stage=stage.name, stage_signature=str(self.started), status="started")
            outputs = {"distillation": {"models": MODELS}}
            context = RunContext(self.plan(recipe), writer, cast(Any, None), "signature", outputs)
            stage.check(context.plan)
            with Progress("silent").stage(stage.name) as progress:
                result = stage.run(context, progress)
            stage.clean_up(context)
        return result.detail

    def tune(self, recipe: Recipe) -> str:
        return self.start(TaskTeacherStage(), recipe)

    def is_complete(self, recipe: Recipe) -> bool:
        return TaskTeacherStage().is_complete(self.plan(recipe))

    def rows(self) -> list[tuple[str, str, str | None]]:
        found = open_results(self.folder.results).table("task_scores").to_pylist()
        return sorted((row["model"], row["task"], row["stage"]) for row in found)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "run_on_actors", run_here)
    data = write_sentiment(tmp_path / "data", 32, 16)
    pairs = {"premise": ["w1", "w2", "w3"] * 4, "hypothesis": ["w4"] * 12, "label": [0, 1, 2] * 4}
    for split in ("train", "validation_matched"):
        write(data, f"glue/mnli/{split}", **pairs)
    for split in ("train", "validation"):
        write(data, f"glue/rte/{split}", sentence1=["w1", "w2"] * 4, sentence2=["w3"] * 8, label=[0, 1] * 4)
    save_bert(tmp_path / "run" / "teacher")
    save_nas_bert(tmp_path / "run" / "models" / "half")
    return Runs(tmp_path)


def test_tasks_are_those_that_phases_want_tuned_teachers_for(runs):
    recipe = runs.recipe(
        phase("a", "rte"), phase("b", "sst2"), phase("c", "rte"), phase("d", "mnli", None), {"name": "e"}
    )
    assert [task.name for task in tuned_tasks(recipe)] == ["rte", "sst2"]
    assert TASK_TEACHERS in [stage.name for stage in stages_of(recipe)]
    for without in (runs.recipe(), runs.recipe(phase("a", "rte", "./tuned"))):
        assert tuned_tasks(without) == ()
        assert TASK_TEACHERS not in [stage.name for stage in stages_of(without)]


def test_fine_tuning_finds_the_teacher_and_leaves_it(runs):
    recipe = runs.recipe(phase("a", "sst2"), tasks=["sst2", "rte"])
    assert runs.tune(recipe).startswith("1 fine-tuning of the teacher; dev scores: sst2 ")
    assert runs.is_complete(recipe)
    detail = runs.start(FineTuningStage(), recipe)
    assert detail.startswith("3 fine-tunings"), "the winner's two, and the teacher's on rte"
    assert runs.rows() == [
        ("half", "rte", None),
        ("half", "sst2", None),
        ("teacher", "rte", None),
        ("teacher", "sst2", TASK_TEACHERS),
    ]
    assert runs.is_complete(recipe), "its model is kept"
    folder = tuned_teacher(recipe, runs.folder, find_task("sst2"))
    assert (folder / "model.safetensors").is_file()
    assert not (runs.folder.finetuned / "teacher" / "rte").exists(), "this one only served"
    assert runs.tune(recipe).startswith("0 fine-tunings")


def test_its_scores_outlive_other_tasks_of_fine_tuning(runs):
    recipe = runs.recipe(phase("a", "sst2"), tasks=["sst2"])
    runs.tune(recipe)
    runs.start(FineTuningStage(), recipe)
    runs.start(FineTuningStage(), runs.recipe(phase("a", "sst2"), tasks=["rte"]))
    assert ("teacher", "sst2", TASK_TEACHERS) in runs.rows()
    runs.start(FineTuningStage(), runs.recipe(tasks=["sst2"]))
    runs.start(FineTuningStage(), runs.recipe(tasks=["rte"]))
    assert {task for _, task, stage in runs.rows() if stage is None} == {"rte"}


def test_it_keeps_its_models_where_nothing_else_is_tuned(runs):
    recipe = runs.recipe(phase("a", "sst2"))
    runs.tune(recipe)
    assert runs.start(FineTuningStage(), recipe) == "no tasks"
    assert runs.is_complete(recipe)
    assert "1 model, fine-tuned for 1 task" in tasks(load(runs.folder.path)).lead


def test_what_starts_from_mnli_does_so_here_too(runs):
    recipe = runs.recipe(phase("a", "rte"), tasks=["rte"], start_from="mnli")
    assert runs.tune(recipe).startswith("2 fine-tunings of the teacher; dev scores: ")
    assert runs.start(FineTuningStage(), recipe).startswith("2 fine-tunings"), "the winner's, on both"
    assert runs.is_complete(recipe)


def test_models_of_other_settings_in_its_folder_are_not_taken_for_its_own(runs):
    """Both settings write to one folder, and the scores of both are known."""
    once, twice = runs.recipe(phase("a", "sst2")), runs.recipe(phase("a", "sst2"), epochs=2)
    for recipe, other in ((once, twice), (twice, once), (once, twice)):
        assert runs.tune(recipe).startswith("1 fine-tuning ")
        assert runs.is_complete(recipe)
        assert not runs.is_complete(other)
