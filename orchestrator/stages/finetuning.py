"""The stage that tunes the finished models on downstream tasks, with equal settings, and records their scores."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from cluster.resources import ResourceRequest
from orchestrator.evaluation.actor_pool import run_on_actors
from orchestrator.finetuning.estimate import estimated_seconds
from orchestrator.finetuning.plan import TEACHER, Comparison, Contestant, PlannedJob, with_start
from orchestrator.finetuning.running import TASK_SCORES, remove_tuned_models, rows_of, run_comparison
from orchestrator.finetuning.summary import summarise
from orchestrator.plan import PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.recipe.finetuning import FineTuningSettings as Section
from orchestrator.results.parts import read_parts
from orchestrator.results.rows import find_table
from orchestrator.run_directory import RunDirectory
from orchestrator.stages.base import RunContext, RunPlan, Stage, StageResult
from orchestrator.stages.text import not_looked_up
from trainers.tasks.answers import AnswerSettings
from trainers.tasks.catalogue import MNLI, Task, find_task
from trainers.tasks.finetuning import FineTuningSettings
from trainers.tasks.jobs import JobResult
from trainers.tasks.losses import Imitation
from trainers.tasks.sources import HUB, TaskSource

_START_SECONDS = 8.0


def tuning_settings(section: Section) -> FineTuningSettings:
    """The trainers' view of the recipe's section."""
    return FineTuningSettings(
        epochs=section.epochs,
        batch_size=section.batch_size,
        learning_rate=section.learning_rate,
        warmup_share=section.warmup_share,
        weight_decay=section.weight_decay,
        gradient_clip=section.gradient_clip or 0.0,
        max_length=section.max_length,
        answers=AnswerSettings(section.answer_length, section.answer_stride, answerability=section.answerability),
        dropout=section.dropout,
        pooling=section.pooling,
        keep=section.keep,
        max_train_examples=section.max_train_examples,
        max_eval_examples=section.max_eval_examples,
        distillation_weight=section.distillation_weight if section.distil else 0.0,
        imitation=Imitation(
            loss=section.imitation,
            over_classes=section.imitation_classes,
            numbers=section.imitation_numbers,
            first_token=section.imitation_first_token,
            temperature=section.temperature,
        ),
        layer_weight=section.layer_weight if section.distil else 0.0,
        layer_padding=section.layer_padding,
        precision=section.precision,
    )


def task_source(section: Section) -> TaskSource:
    """Where the tasks' data is."""
    return TaskSource(section.data or HUB, section.train_data, "finetuning.data")


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
        section = plan.recipe.finetuning
        if not section.tasks or task_source(section).is_folder:
            return []
        return [not_looked_up(f"finetuning: the data of {', '.join(task.name for task in all_tasks(section))}")]

    def requests(self, plan: RunPlan) -> ResourceRequest | None:
        """What the processes need of the cluster; ``None`` without tasks."""
        section = plan.recipe.finetuning
        if not section.tasks:
            return None
        return ResourceRequest(self.name, 1, section.cpus_per_actor, section.gpus_per_actor)

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
        models = [size for size in sizes for _ in range(copies)] + [whole] * section.distil
        one_core = sum(estimated_seconds(size, task, source, settings) for size in models for task in tasks)
        cores = section.actors * max(1.0, section.cpus_per_actor)
        jobs = len(models) * len(tasks) * len(section.seeds)
        how = "task distillation" if section.distil else "no teacher"
        at_most = "up to " if len(recipe.budgets) > 1 else ""
        return PlannedStage(
            self.name,
            "run",
            f"{at_most}{jobs} fine-tunings: {len(models)} models, {len(tasks)} tasks, "
            f"{len(section.seeds)} seeds ({how})",
            seconds=_START_SECONDS + one_core * len(section.seeds) / cores,
        )

    def run(self, context: RunContext, progress: StageProgress) -> StageResult:
        """Do what is left, and record it."""
        section = context.recipe.finetuning
        if not section.tasks:
            return StageResult("no tasks")
        comparison = self._comparison(context)
        known = self._known_rows(context, comparison)

        def told(planned: PlannedJob, result: JobResult, done: int, total: int) -> None:
            if progress.done == 0:
                progress.follow(total, "fine-tunings", done)
            progress.update(done)
            progress.message(f"{planned.name}: {headline_text(result)} in {result.seconds:.0f} s")

        done = run_comparison(
            comparison,
            writer=context.results,
            rows=known,
            runner=run_on_actors,
            actors=section.actors,
            cpus_per_actor=section.cpus_per_actor,
            gpus_per_actor=section.gpus_per_actor,
            threads=max(1, int(section.cpus_per_actor)),
            on_done=told,
        )
        rows = rows_of(comparison, _all_rows(context.folder))
        summaries = summarise([*rows, *self._copy(context, rows)], section.tasks, section.seeds)
        averages = {one.model: one.average.mean for one in summaries if one.average is not None}
        best = ", ".join(f"{model} {100 * value:.1f}" for model, value in averages.items())
        return StageResult(f"{done} fine-tunings; average of the tasks: {best}", {"averages": averages})

    def clean_up(self, context: RunContext) -> None:
        """Models that only served others go."""
        if not context.recipe.finetuning.save_models:
            remove_tuned_models(self._comparison(context))

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
                {**_measured(row), "model": label, "budget": facts["budget"]}
                for row in rows
                if row["model"] == original
            ]
            kept, folder = context.folder.finetuned / original, context.folder.finetuned / label
            if context.recipe.finetuning.save_models and kept.is_dir():
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(kept, folder)
        context.results.extend(TASK_SCORES, copies)
        return copies

    @staticmethod
    def _known_rows(context: RunContext, comparison: Comparison) -> list[Mapping[str, Any]]:
        """What earlier starts have measured and still holds.

        Scores carry the signature of all they depend on, so they outlive a change of the recipe that does not concern
        them (another task, another seed). They are recorded once more, so that readers count them as the present ones.
        """
        context.results.flush()
        known = rows_of(comparison, _all_rows(context.folder))
        context.results.extend(TASK_SCORES, [_measured(row) for row in known])
        return known


def _measured(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without what the writer adds to each."""
    return {name: value for name, value in row.items() if name not in ("run_id", "recorded_at")}


def _all_rows(folder: RunDirectory) -> list[dict[str, Any]]:
    """Every row of the table, those of settings that have changed since among them."""
    rows: list[dict[str, Any]] = read_parts(folder.results / TASK_SCORES, find_table(TASK_SCORES)).to_pylist()
    newest = {
        (row["model"], row["task"], row["split"], row["metric"], row["seed"], row["signature"]): row for row in rows
    }
    return list(newest.values())


def all_tasks(section: Section) -> tuple[Task, ...]:
    """The recipe's tasks, and MNLI where others start from it."""
    return with_start(map(find_task, section.tasks), section.start_from == MNLI)


def headline_text(result: JobResult) -> str:
    """``matthews 0.412``: what stands for a task, of one fine-tuning."""
    return ", ".join(f"{score.metric} {score.value:.3f}" for score in result.scores if score.headline)
