"""The stages of a run, in order."""

from __future__ import annotations

from orchestrator.stages.base import Stage
from orchestrator.stages.block_losses import BlockLossStage
from orchestrator.stages.corpus import CorpusStage
from orchestrator.stages.distillation import DistillationStage
from orchestrator.stages.evaluation import EvaluationStage
from orchestrator.stages.finetuning import FineTuningStage
from orchestrator.stages.latency import LatencyStage
from orchestrator.stages.rank_fidelity import RankFidelityStage
from orchestrator.stages.report import ReportStage
from orchestrator.stages.search import SearchStage
from orchestrator.stages.selection import SelectionStage
from orchestrator.stages.supernet import SupernetStage
from orchestrator.stages.teacher import TeacherStage


def all_stages() -> list[Stage]:
    """Every stage, each after its inputs."""
    return [
        TeacherStage(),
        CorpusStage(),
        LatencyStage(),
        SupernetStage(),
        BlockLossStage(),
        SearchStage(),
        SelectionStage(),
        DistillationStage(),
        EvaluationStage(),
        FineTuningStage(),
        RankFidelityStage(),
        ReportStage(),
    ]
