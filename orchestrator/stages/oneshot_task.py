"""A one-shot search by a task instead of plain text: what is checked, trained, scored by and kept."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.evaluation.task_evaluator import TaskEvaluatorFactory
from orchestrator.recipe import Recipe
from orchestrator.recipe.sources import TUNED
from orchestrator.run_directory import HEADS_FILE, SUPERNET_FILE
from orchestrator.stages.base import RunContext, RunPlan
from orchestrator.stages.task_teachers import tuned_teacher
from orchestrator.stages.tuning import lasting_settings, task_source
from spaces.architecture import Architecture
from spaces.sampled_space import CostName, LatencyPrices
from trainers.oneshot_settings import OneShotSettings
from trainers.tasks.catalogue import Task, find_task
from trainers.tasks.headed_models import task_model
from trainers.tasks.models import save_for_task
from trainers.tasks.oneshot_task import OneShotTaskFactory, OneShotTaskSettings
from trainers.tasks.slices import TrainSlices
from trainers.teacher import TeacherSource


def searched_task(recipe: Recipe) -> Task | None:
    """The task that paths of the supernet learn; ``None`` where they learn of plain text what the teacher says."""
    name = recipe.supernet.one_shot.task
    return None if name is None else find_task(name)


def check_task_search(plan: RunPlan, task: Task) -> None:
    """Make sure that the supernet can be trained, and candidates be scored, by a task.

    Raises:
        UserError: something else of the recipe does not go with it.
        TrainingInputError: the task's data does not fit.
    """
    recipe = plan.recipe
    if recipe.search.rank_by != "hidden_states":
        raise UserError(
            f"search.rank_by: found {recipe.search.rank_by}, but supernet.oneshot.task scores by a task, for which no "
            f"token is predicted; expected hidden_states"
        )
    if recipe.rank_fidelity.architectures:
        raise UserError(
            f"rank_fidelity.architectures: found {recipe.rank_fidelity.architectures}, expected 0 with "
            f"supernet.oneshot.task, whose scores are none of text"
        )
    ordered = recipe.supernet.one_shot.order == "importance"
    if ordered and recipe.distillation.initialisation == "extracted":
        raise UserError(
            "distillation.initialisation: found extracted, but supernet.oneshot.task puts heads and neurons in order "
            "by the task's texts, and what is extracted by those of the corpus; expected inherited or scratch, or set "
            "supernet.oneshot.order: teacher"
        )
    task_source(recipe.finetuning).check(task)


def task_search_facts(plan: RunPlan, task: Task) -> Sequence[Any]:
    """Plain values that a search by a task depends on, besides the recipe's section and its inputs.

    Tuned teachers are one of the inputs.
    """
    recipe = plan.recipe
    data = task_source(recipe.finetuning).fingerprint(task)
    return asdict(lasting_settings(recipe.finetuning)), data


def task_search_factory(
    context: RunContext, task: Task, settings: OneShotSettings, cost: CostName | LatencyPrices
) -> OneShotTaskFactory:
    """What makes the workers' searches."""
    recipe, folder, section = context.recipe, context.folder, context.recipe.supernet.one_shot
    tuned = str(tuned_teacher(recipe, folder, task)) if section.task_teacher == TUNED else None
    return OneShotTaskFactory(
        folder.teacher,
        recipe.space.name,
        recipe.space.options,
        task,
        task_source(recipe.finetuning),
        OneShotTaskSettings(settings, lasting_settings(recipe.finetuning)),
        _slices(recipe),
        teacher=tuned,
        start=tuned,
        cost=cost,
    )


def task_scorer(
    plan: RunPlan, task: Task, settings: OneShotSettings, weights: Path, threads: int
) -> TaskEvaluatorFactory:
    """The factory of evaluators that score by the task's held-out rows.

    Args:
        plan: of the run.
        task: that was searched by.
        settings: of the search.
        weights: the folder of the supernet and the head.
        threads: of a processor; 0 leaves PyTorch's setting.
    """
    recipe, folder = plan.recipe, plan.folder
    return TaskEvaluatorFactory(
        teacher_folder=folder.teacher,
        weights=weights / SUPERNET_FILE,
        heads=weights / HEADS_FILE,
        space_name=recipe.space.name,
        space_options=recipe.space.options,
        task=task,
        source=task_source(recipe.finetuning),
        settings=OneShotTaskSettings(settings, lasting_settings(recipe.finetuning)),
        slices=_slices(recipe),
        device="cuda" if recipe.search.gpus_per_actor > 0 else "cpu",
        threads=threads,
    )


def keep_task_model(
    context: RunContext, task: Task, settings: OneShotSettings, architecture: Architecture, weights: Path
) -> Path:
    """Save what a search has come to with the task's head, as a model that others load.

    Args:
        context: of the stage.
        task: that was searched by.
        settings: of the search.
        architecture: what it has come to.
        weights: the folder of the supernet and the head.

    Returns:
        The model's folder, ``model`` in that of the weights.
    """
    pooling = OneShotTaskSettings(settings, lasting_settings(context.recipe.finetuning)).pooling
    model = task_model(context.space, architecture, weights / SUPERNET_FILE, weights / HEADS_FILE, task, pooling)
    folder = weights / "model"
    shutil.rmtree(folder, ignore_errors=True)
    save_for_task(model, TeacherSource(str(context.folder.teacher)).tokenizer(), folder)
    return folder


def _slices(recipe: Recipe) -> TrainSlices:
    section = recipe.supernet.one_shot
    return TrainSlices(section.training_share, section.held_out_share)
