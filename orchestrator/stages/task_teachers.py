"""The stage that tunes the teacher on the tasks by which a search scores candidates, where a phase asks for it.

It is a comparison (:mod:`orchestrator.finetuning`) in which only the teacher takes part, with the settings of the
recipe's section ``finetuning`` and the first of its seeds. The stage ``finetuning`` finds scores and tuned models where
it has the same task, and leaves the models of this stage where they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster.resources import ResourceRequest
from orchestrator.errors import UserError
from orchestrator.finetuning.estimate import estimated_seconds
from orchestrator.finetuning.plan import TEACHER, Comparison, Contestant, planned_jobs, with_start
from orchestrator.finetuning.running import TASK_SCORES
from orchestrator.formatting import plural
from orchestrator.plan import PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.recipe import Recipe
from orchestrator.recipe.sources import TUNED
from orchestrator.run_directory import RunDirectory
from orchestrator.stages.base import RunContext, RunPlan, Stage, StageResult
from orchestrator.stages.tuning import (
    actors_of,
    known_rows,
    measured,
    seconds_on_actors,
    task_source,
    teacher_settings,
    tune,
    tuning_settings,
    unchecked_data,
)
from trainers.tasks.catalogue import MNLI, Task, find_task

TASK_TEACHERS = "task_teachers"
"""The stage; whoever uses a tuned teacher has it among its inputs."""


def tuned_tasks(recipe: Recipe) -> tuple[Task, ...]:
    """The tasks that a one-shot search or some phase wants the run to tune a teacher for, each once, in that order."""
    section = recipe.supernet.one_shot
    searched = [section.task] if section.task is not None and section.task_teacher == TUNED else []
    names = dict.fromkeys([*searched, *(name for phase in recipe.phases for name in phase.taught_tasks)])
    return tuple(map(find_task, names))


def tuned_teacher(recipe: Recipe, folder: RunDirectory, task: Task) -> Path:
    """The folder of the teacher that the run tuned on a task, once the stage is done.

    Args:
        recipe: of the run.
        folder: of the run.
        task: one of :func:`tuned_tasks`.
    """
    comparison = _comparison(recipe, folder)
    return comparison.folder(_teacher(folder), task, comparison.seeds[0])


def check_imitated(recipe: Recipe, key: str, otherwise: str) -> None:
    """Make sure that somebody would learn from a tuned teacher.

    Args:
        recipe: of the run.
        key: where it asks for the teacher.
        otherwise: what a recipe in which nobody does may say there.

    Raises:
        UserError: the section ``finetuning`` has nobody imitate a teacher.
    """
    if not tuning_settings(recipe.finetuning).wants_teacher:
        raise UserError(
            f"{key}: found tuned, but by the section finetuning nobody imitates a teacher; expected distil: true there "
            f"with a distillation_weight or layer_weight above 0, {otherwise}"
        )


def tuning_facts(recipe: Recipe, tasks: Sequence[Task]) -> Sequence[Any]:
    """Plain values that decide what becomes of the teachers of some tasks, besides the teacher itself."""
    section = recipe.finetuning
    source = task_source(section)
    data = [[task.name, source.fingerprint(task)] for task in _with_start(recipe, tasks)]
    names = [task.name for task in tasks]
    return [asdict(teacher_settings(section)), section.seeds[0], section.start_from, names, data]


def teachers_to_keep(recipe: Recipe, folder: RunDirectory) -> list[Path]:
    """Folders of the models that this stage has tuned, for those who clean up; none where no phase asks for any."""
    tasks = tuned_tasks(recipe)
    return [tuned_teacher(recipe, folder, task) for task in _with_start(recipe, tasks)]


class TaskTeacherStage(Stage):
    """Tunes the teacher on each task that candidates are scored by, and keeps the tuned models."""

    name = TASK_TEACHERS
    inputs = ("teacher",)

    def depends_on(self, plan: RunPlan) -> Sequence[Any]:
        """How teachers are tuned, the tasks, and their data."""
        return tuning_facts(plan.recipe, tuned_tasks(plan.recipe))

    def check(self, plan: RunPlan) -> None:
        """Files and columns of every task are there."""
        source = task_source(plan.recipe.finetuning)
        for task in _with_start(plan.recipe, tuned_tasks(plan.recipe)):
            source.check(task)

    def unchecked(self, plan: RunPlan) -> Sequence[str]:
        """Tasks whose data is on the hub."""
        return unchecked_data(self.name, plan.recipe.finetuning, _with_start(plan.recipe, tuned_tasks(plan.recipe)))

    def requests(self, plan: RunPlan) -> ResourceRequest:
        """What the processes need of the cluster."""
        return actors_of("finetuning", plan.recipe.finetuning)

    def planned(self, plan: RunPlan) -> PlannedStage:
        """Jobs are exact; time is a rough estimate of one core's speed times the cores that work."""
        section, shape = plan.recipe.finetuning, plan.shape
        source, settings = task_source(section), teacher_settings(section)
        tasks = _with_start(plan.recipe, tuned_tasks(plan.recipe))
        one_core = sum(estimated_seconds(shape.encoder_parameters, task, source, settings) for task in tasks)
        return PlannedStage(
            self.name,
            "run",
            f"{plural(len(tasks), 'fine-tuning')}: the teacher on {', '.join(task.name for task in tasks)}, to score "
            f"candidates beside it",
            seconds=seconds_on_actors(section, one_core),
            disk_bytes=4 * (shape.encoder_parameters + shape.embedding_parameters) * len(tasks),
        )

    def run(self, context: RunContext, progress: StageProgress) -> StageResult:
        """Do what is left, and record it."""
        comparison = _comparison(context.recipe, context.folder)
        known = known_rows(context, comparison)
        context.results.extend(TASK_SCORES, [{**measured(row), "stage": self.name} for row in known])
        done = tune(context, comparison, known, progress)
        context.results.flush()
        scores = {row["task"]: row["value"] for row in known_rows(context, comparison) if row["headline"]}
        listed = ", ".join(f"{task} {100 * score:.1f}" for task, score in scores.items())
        return StageResult(f"{plural(done, 'fine-tuning')} of the teacher; dev scores: {listed}", {"scores": scores})

    def is_complete(self, plan: RunPlan) -> bool:
        """Whether the tuned models are there, and are those of the recipe's settings."""
        if not (plan.folder.teacher / "config.json").is_file():
            return False
        return all(job.is_kept for job in planned_jobs(_comparison(plan.recipe, plan.folder)))


def _teacher(folder: RunDirectory) -> Contestant:
    return Contestant(TEACHER, str(folder.teacher), TEACHER)


def _comparison(recipe: Recipe, folder: RunDirectory) -> Comparison:
    """The teacher alone, whose tuned models last."""
    section = recipe.finetuning
    return Comparison(
        (),
        _teacher(folder),
        tuned_tasks(recipe),
        section.seeds[:1],
        tuning_settings(section),
        task_source(section),
        folder.finetuned,
        start_from_mnli=section.start_from == MNLI,
        save_models=True,
        stage=TASK_TEACHERS,
        teacher_settings=teacher_settings(section),
    )


def _with_start(recipe: Recipe, tasks: Sequence[Task]) -> tuple[Task, ...]:
    return with_start(tasks, recipe.finetuning.start_from == MNLI)
