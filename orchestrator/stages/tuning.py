"""What stages that tune models on tasks have in common: the recipe's section in the trainers' terms, jobs, and rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cluster.resources import ResourceRequest
from orchestrator.evaluation.actor_pool import run_on_actors
from orchestrator.finetuning.plan import Comparison, PlannedJob
from orchestrator.finetuning.running import TASK_SCORES, rows_of, run_comparison
from orchestrator.progress import StageProgress
from orchestrator.recipe.finetuning import FineTuningSettings as Section
from orchestrator.results.parts import read_parts
from orchestrator.results.rows import find_table
from orchestrator.run_directory import RunDirectory
from orchestrator.stages.base import RunContext
from orchestrator.stages.text import not_looked_up
from trainers.tasks.answers import AnswerSettings
from trainers.tasks.catalogue import Task
from trainers.tasks.finetuning import FineTuningSettings
from trainers.tasks.jobs import JobResult
from trainers.tasks.losses import Imitation
from trainers.tasks.sources import HUB, TaskSource

START_SECONDS = 8.0
"""What plans assume that starting the actors takes."""


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
        layer_scale=section.layer_scale,
        precision=section.precision,
    )


def lasting_settings(section: Section) -> FineTuningSettings:
    """What of :func:`tuning_settings` a training with a schedule of its own takes: texts, teachers and heads."""
    asked, schedule = tuning_settings(section), FineTuningSettings()
    names = ("epochs", "batch_size", "learning_rate", "warmup_share", "weight_decay", "gradient_clip", "precision")
    unused: tuple[str, ...] = (*names, "keep", "max_eval_examples", "answers")
    values: dict[str, Any] = {name: getattr(schedule, name) for name in unused}
    return replace(asked, **values)


def teacher_settings(section: Section) -> FineTuningSettings:
    """The same for the teacher, whom nobody teaches."""
    return replace(
        tuning_settings(section),
        epochs=section.teacher_epochs or section.epochs,
        learning_rate=section.teacher_learning_rate or section.learning_rate,
        distillation_weight=0.0,
        layer_weight=0.0,
    )


def task_source(section: Section) -> TaskSource:
    """Where the tasks' data is."""
    return TaskSource(section.data or HUB, section.train_data, "finetuning.data")


def unchecked_data(stage: str, section: Section, tasks: Sequence[Task]) -> Sequence[str]:
    """A sentence about data of tasks that is on the hub, where nothing is looked up before a run; else none."""
    names = [task.name for task in tasks if not task.bundled]
    if not names or task_source(section).is_folder:
        return []
    return [not_looked_up(f"{stage}: the data of {', '.join(names)}")]


def actors_of(stage: str, section: Section) -> ResourceRequest:
    """What the processes that tune need of the cluster at least."""
    return ResourceRequest(stage, 1, section.cpus_per_actor, section.gpus_per_actor)


def seconds_on_actors(section: Section, one_core: float) -> float:
    """Roughly how long fine-tunings take, from the time they would take on one core."""
    return START_SECONDS + one_core / (section.actors * max(1.0, section.cpus_per_actor))


def tune(
    context: RunContext, comparison: Comparison, known: Sequence[Mapping[str, Any]], progress: StageProgress
) -> int:
    """Do what is left of a comparison on actors, and record it.

    Args:
        context: of the stage.
        comparison: what is to be tuned.
        known: rows of earlier starts that still hold.
        progress: of the stage.

    Returns:
        How many jobs were done.
    """
    section = context.recipe.finetuning

    def told(planned: PlannedJob, result: JobResult, done: int, total: int) -> None:
        if progress.done == 0:
            progress.follow(total, "fine-tunings", done)
        progress.update(done)
        progress.message(f"{planned.name}: {headline_text(result)} in {result.seconds:.0f} s")

    return run_comparison(
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


def known_rows(context: RunContext, comparison: Comparison) -> list[Mapping[str, Any]]:
    """What earlier starts, or other stages, have measured of a comparison and still holds.

    Scores carry the signature of all they depend on, so they outlive a change of the recipe that does not concern
    them (another task, another seed). Whoever relies on them records them once more (:func:`measured`), so that readers
    count them as the present ones.
    """
    context.results.flush()
    return rows_of(comparison, all_rows(context.folder))


def measured(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without what the writer adds to each."""
    return {name: value for name, value in row.items() if name not in ("run_id", "recorded_at")}


def all_rows(folder: RunDirectory) -> list[dict[str, Any]]:
    """Every row of the table, those of settings that have changed since among them."""
    rows: list[dict[str, Any]] = read_parts(folder.results / TASK_SCORES, find_table(TASK_SCORES)).to_pylist()
    newest = {
        (row["model"], row["task"], row["split"], row["metric"], row["seed"], row["signature"]): row for row in rows
    }
    return list(newest.values())


def headline_text(result: JobResult) -> str:
    """``matthews 0.412``: what stands for a task, of one fine-tuning."""
    return ", ".join(f"{score.metric} {score.value:.3f}" for score in result.scores if score.headline)
