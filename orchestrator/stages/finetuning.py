"""The stage that tunes the finished models on downstream tasks, with equal settings, and records their scores."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.resources import ResourceRequest
from orchestrator.finetuning.estimate import estimated_seconds
from orchestrator.finetuning.plan import TEACHER, Comparison, Contestant, with_start
from orchestrator.finetuning.running import TASK_SCORES, remove_tuned_models, rows_of
from orchestrator.finetuning.summary import summarise
from orchestrator.formatting import plural
from orchestrator.plan import PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.recipe.finetuning import FineTuningSettings as Section
from orchestrator.stages.base import RunContext, RunPlan, Stage, StageResult
from orchestrator.stages.task_teachers import teachers_to_keep, tuned_tasks
from orchestrator.stages.tuning import (
    actors_of,
    all_rows,
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


class FineTuningStage(Stage):
    """Tunes the teacher, then every winner and uniform baseline, on every task with every seed."""

    name = "finetuning"
    inputs = ("teacher", "distillation")

    def depends_on(self, plan: RunPlan) -> Sequence[Any]:
        """The recipe's section and the data of its tasks; without tasks nothing."""
        section = plan.recipe.finetuning
        if not section.tasks:
            return []
        source = task_source(section)
        return [section, [source.fingerprint(task) for task in all_tasks(section)]]

    def check(self, plan: RunPlan) -> None:
        """Files and columns of every task are there."""
        section = plan.recipe.finetuning
        for task in all_tasks(section):
            task_source(section).check(task)

    def unchecked(self, plan: RunPlan) -> Sequence[str]:
        """Tasks whose data is on the hub."""
        return unchecked_data(self.name, plan.recipe.finetuning, all_tasks(plan.recipe.finetuning))

    def requests(self, plan: RunPlan) -> ResourceRequest | None:
        """What the processes need of the cluster; ``None`` without tasks."""
        section = plan.recipe.finetuning
        return actors_of(self.name, section) if section.tasks else None

    def planned(self, plan: RunPlan) -> PlannedStage:
        """Jobs are exact; time is a rough estimate of one core's speed times the cores that work."""
        recipe, section = plan.recipe, plan.recipe.finetuning
        if not section.tasks:
            return PlannedStage(self.name, "run", "no tasks: nothing to do", seconds=0.0)
        tasks, source, settings = all_tasks(section), task_source(section), tuning_settings(section)
        whole = plan.shape.encoder_parameters
        copies = 2 if recipe.distillation.uniform_baseline else 1
        sizes = [
            budget.encoder_parameters.resolve(whole) if budget.encoder_parameters else whole
            for budget in recipe.budgets
        ]
        models = [(size, settings) for size in sizes for _ in range(copies)]
        models += [(whole, teacher_settings(section))] * section.distil
        one_core = sum(estimated_seconds(size, task, source, own) for size, own in models for task in tasks)
        jobs = len(models) * len(tasks) * len(section.seeds)
        how = "task distillation" if section.distil else "no teacher"
        at_most = "up to " if len(recipe.budgets) > 1 else ""
        return PlannedStage(
            self.name,
            "run",
            f"{at_most}{plural(jobs, 'fine-tuning')}: {plural(len(models), 'model')}, {plural(len(tasks), 'task')}, "
            f"{plural(len(section.seeds), 'seed')} ({how})",
            seconds=seconds_on_actors(section, one_core * len(section.seeds)),
        )

    def run(self, context: RunContext, progress: StageProgress) -> StageResult:
        """Do what is left, and record it."""
        section = context.recipe.finetuning
        if not section.tasks:
            return StageResult("no tasks")
        comparison = self._comparison(context)
        known = known_rows(context, comparison)
        needed = [task.name for task in tuned_tasks(context.recipe)]  # their teachers' rows outlive this stage's tasks
        for row in known:
            stage = row["stage"] if row["task"] in needed else None
            context.results.append(TASK_SCORES, **{**measured(row), "stage": stage})
        done = tune(context, comparison, known, progress)
        rows = rows_of(comparison, all_rows(context.folder))
        summaries = summarise([*rows, *self._copy(context, rows)], section.tasks, section.seeds)
        averages = {one.model: one.average.mean for one in summaries if one.average is not None}
        best = ", ".join(f"{model} {100 * value:.1f}" for model, value in averages.items())
        return StageResult(f"{done} fine-tunings; average of the tasks: {best}", {"averages": averages})

    def clean_up(self, context: RunContext) -> None:
        """Models that only served others go, but those that candidates of the search were scored beside."""
        remove_tuned_models(self._comparison(context), teachers_to_keep(context.recipe, context.folder))

    def _comparison(self, context: RunContext) -> Comparison:
        section, folder = context.recipe.finetuning, context.folder
        contestants = tuple(
            Contestant(facts["label"], str(folder.model(facts["label"])), facts["role"], facts["budget"])
            for facts in context.outputs["distillation"]["models"]
            if facts["same_as"] is None
        )
        teacher = Contestant(TEACHER, str(folder.teacher), TEACHER) if section.distil else None
        return Comparison(
            contestants,
            teacher,
            tuple(find_task(name) for name in section.tasks),
            section.seeds,
            tuning_settings(section),
            task_source(section),
            folder.finetuned,
            start_from_mnli=section.start_from == MNLI,
            save_models=section.save_models,
            teacher_settings=teacher_settings(section),
        )

    @staticmethod
    def _copy(context: RunContext, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Record the scores of models that several budgets share under each one's label, and copy what is kept of them.

        Returns:
            The rows recorded.
        """
        copies: list[dict[str, Any]] = []
        for facts in context.outputs["distillation"]["models"]:
            label, original = facts["label"], facts["same_as"]
            if original is None:
                continue
            copies += [
                {**measured(row), "model": label, "budget": facts["budget"]} for row in rows if row["model"] == original
            ]
            kept, folder = context.folder.finetuned / original, context.folder.finetuned / label
            if context.recipe.finetuning.save_models and kept.is_dir():
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(kept, folder)
        context.results.extend(TASK_SCORES, copies)
        return copies


def all_tasks(section: Section) -> tuple[Task, ...]:
    """The recipe's tasks, and MNLI where others start from it."""
    return with_start(map(find_task, section.tasks), section.start_from == MNLI)
