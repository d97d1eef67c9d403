"""The stage that writes the report; it runs at the end of every run, since it costs seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.plan import PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.report import write_report
from orchestrator.stages.base import RunContext, RunPlan, Stage, StageResult


class ReportStage(Stage):
    """Writes ``report.html``."""

    name = "report"
    inputs = ("block_losses", "evaluation", "finetuning", "rank_fidelity")

    def depends_on(self, plan: RunPlan) -> Sequence[Any]:
        """Nothing besides its inputs."""
        return []

    def check(self, plan: RunPlan) -> None:
        """Nothing to check."""

    def planned(self, plan: RunPlan) -> PlannedStage:
        """One page."""
        return PlannedStage(self.name, "run", "write report.html", seconds=2.0, disk_bytes=6_000_000)

    def run(self, context: RunContext, progress: StageProgress) -> StageResult:
        """Write the page from what is recorded."""
        context.results.flush()
        return StageResult(str(write_report(context.folder.path)))

    def is_complete(self, plan: RunPlan) -> bool:
        """Whether the page is there."""
        return plan.folder.report.is_file()
