"""The report of a run: one self-contained HTML page made from the run's tables."""

from __future__ import annotations

from orchestrator.report.writer import write_report

__all__ = ["write_report"]
