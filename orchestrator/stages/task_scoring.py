"""How candidates are scored by a supernet that was tuned on tasks: as it is, by the held-out rows of one of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from orchestrator.errors import UserError
from orchestrator.evaluation.task_evaluator import TaskEvaluatorFactory
from orchestrator.finetuning.estimate import count_training_rows, typical_tokens
from orchestrator.phases import Phase
from orchestrator.plan import CORE_FLOPS_PER_SECOND
from orchestrator.recipe import Recipe
from orchestrator.recipe.phases import TaskTuningSettings
from orchestrator.stages.base import RunPlan
from orchestrator.stages.evaluators import typical_flops
from orchestrator.stages.joint_tuning import joint_tuning_settings, judging_task, slices_of
from orchestrator.stages.tuning import task_source, tuning_settings
from trainers.tasks.catalogue import Task


def task_factory(plan: RunPlan, phase: Phase, section: TaskTuningSettings, threads: int) -> TaskEvaluatorFactory:
    """The factory of evaluators that hold a phase's tuned supernet.

    Args:
        plan: of the run.
        phase: whose candidates are scored.
        section: how its supernet is tuned.
        threads: of a processor; 0 leaves PyTorch's setting.
    """
    recipe, folder = plan.recipe, plan.folder
    return TaskEvaluatorFactory(
        teacher_folder=folder.teacher,
        weights=phase.weights(folder),
        heads=folder.tuned_heads(phase.name),
        space_name=recipe.space.name,
        space_options=recipe.space.options,
        task=judging_task(section),
        source=task_source(recipe.finetuning),
        settings=joint_tuning_settings(recipe, section),
        slices=slices_of(section),
        device="cuda" if recipe.search.gpus_per_actor > 0 else "cpu",
        threads=threads,
    )


def task_scoring_facts(section: TaskTuningSettings) -> Sequence[Any]:
    """Plain values that decide a score, besides the tuned weights."""
    return section.judge, section.held_out_share


def check_task_scoring(plan: RunPlan, phase: Phase) -> None:
    """Make sure that candidates can be ranked by a task.

    Raises:
        UserError: they are to be ranked by something else.
    """
    if plan.recipe.search.rank_by != "hidden_states":
        raise UserError(
            f"search.rank_by: found {plan.recipe.search.rank_by}, but {phase.key} scores by a task, for which no token "
            f"is predicted; expected hidden_states"
        )


def held_out_texts(recipe: Recipe, task: Task, share: float) -> tuple[int, int]:
    """Rows that each candidate is scored on, and their typical length in tokens; without reading them.

    Args:
        recipe: of the run.
        task: that scores.
        share: of its training rows.
    """
    rows = math.floor(share * count_training_rows(task, task_source(recipe.finetuning)))
    return max(1, rows), typical_tokens(task, tuning_settings(recipe.finetuning))


def task_scoring_seconds(plan: RunPlan, texts: tuple[int, int], evaluations: int) -> float:
    """Roughly how long the actors take.

    Args:
        plan: of the run.
        texts: rows that each candidate is scored on, and their length in tokens.
        evaluations: of the search.
    """
    search = plan.recipe.search
    rows, tokens = texts
    each = rows * typical_flops(plan.space, tokens) / (CORE_FLOPS_PER_SECOND * max(1.0, search.cpus_per_actor))
    return math.ceil(evaluations / search.actors) * each
