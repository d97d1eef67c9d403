"""The stages of a run, in order."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.phases import phases_of
from orchestrator.recipe import Recipe
from orchestrator.stages.base import Stage
from orchestrator.stages.block_losses import BlockLossStage
from orchestrator.stages.corpus import CorpusStage
from orchestrator.stages.distillation import DistillationStage
from orchestrator.stages.evaluation import EvaluationStage
from orchestrator.stages.finetuning import FineTuningStage
from orchestrator.stages.joint_tuning import JointTuningStage
from orchestrator.stages.lambda_sweep import LambdaSweepStage, sweeps_lambda
from orchestrator.stages.latency import LatencyStage
from orchestrator.stages.rank_fidelity import RankFidelityStage
from orchestrator.stages.report import ReportStage
from orchestrator.stages.search import SearchStage
from orchestrator.stages.selection import SelectionStage
from orchestrator.stages.supernet import SupernetStage
from orchestrator.stages.task_teachers import TaskTeacherStage, tuned_tasks
from orchestrator.stages.teacher import TeacherStage


def stages_of(recipe: Recipe) -> list[Stage]:
    """Every stage of a run, each after its inputs: those of each phase of the search where there are any."""
    return [
        TeacherStage(),
        CorpusStage(),
        *([TaskTeacherStage()] if tuned_tasks(recipe) else []),
        LatencyStage(),
        SupernetStage(),
        *([LambdaSweepStage()] if sweeps_lambda(recipe) else []),
        BlockLossStage(),
        *_searches(recipe),
        SelectionStage(),
        DistillationStage(),
        EvaluationStage(),
        FineTuningStage(),
        RankFidelityStage(),
        ReportStage(),
    ]


def _searches(recipe: Recipe) -> Iterator[Stage]:
    if not recipe.phases:
        yield SearchStage()
        return
    for phase in phases_of(recipe):
        if phase.trains_supernet:
            yield SupernetStage(phase)
        if phase.task_tuning is not None:
            yield JointTuningStage(phase, phase.task_tuning)
        yield SearchStage(phase)
