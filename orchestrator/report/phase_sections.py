"""What the report shows of a search in phases: what each searched, how it scored, and whom it handed over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from orchestrator import formatting as f
from orchestrator.report import figures
from orchestrator.report.data import RunData
from orchestrator.report.views import Column, Grid, Section

_LEAD = (
    "Each phase searches the part of the space that agrees with the winner of the phase before it in what is kept. "
    "Losses of different phases compare only where they were scored alike."
)


def phases(data: RunData) -> Section:
    """One row a phase."""
    columns = (
        Column("phase"),
        Column("kept of the winner before"),
        Column("scored by"),
        Column("evaluations", is_number=True),
        Column("failed", is_number=True),
        Column("lowest loss", is_number=True),
        Column("winner", is_sentence=True),
    )
    return Section(
        "phases", "Phases of the search", _LEAD, (Grid(columns, tuple(_row(data, one) for one in data.phases)),)
    )


def is_trained(phase: Mapping[str, Any]) -> bool:
    """Whether a phase, as the recipe has it, trains each of its candidates."""
    return phase.get("score") == "training"


def scoring_task(phase: Mapping[str, Any]) -> str | None:
    """The task that scores a phase's candidates by the weights of a supernet tuned on tasks; ``None``: no task does."""
    tuning = (phase.get("supernet") or {}).get("tuning")
    return None if not tuning else str(tuning.get("judged_by") or tuning["tasks"][0])


def judging_task(phase: Mapping[str, Any]) -> str | None:
    """The task whose metric a phase's losses are 1 minus, by whatever training; ``None``: held-out text judges."""
    if is_trained(phase):
        return (phase.get("training") or {}).get("task")
    return scoring_task(phase)


def _scored_by(phase: Mapping[str, Any]) -> str:
    if is_trained(phase):
        return "a short training of each"
    task, own = scoring_task(phase), " of its own" if phase.get("supernet") else ""
    return f"the supernet{own}" if task is None else f"{task}, by the supernet{own}, tuned on tasks"


def _row(data: RunData, phase: Mapping[str, Any]) -> tuple[str, ...]:
    name = str(phase.get("name", ""))
    rows = data.tables["evaluations"]
    rows = rows[rows["phase"] == name]
    best = _winner(data, name)
    kept = phase.get("keep") or ()
    return (
        name,
        " and ".join(map(str, kept)) or f.NOTHING,
        _scored_by(phase),
        f.count(len(rows)),
        f.count(int((rows["status"] == "failed").sum())),
        f.NOTHING if best is None else f.significant(float(best["loss"])),
        f.NOTHING if best is None else str(best["architecture"]),
    )


def _winner(data: RunData, phase: str) -> pd.Series | None:
    """The candidate of lowest loss at full fidelity that keeps some budget."""
    rows = data.candidates_of(phase)
    rows = rows[rows["fidelity"] == rows["fidelity"].max()]
    if data.budgets:
        kept = pd.concat([figures.within(rows, budget) for budget in data.budgets], axis=1).any(axis=1)
        rows = rows[kept]
    return None if rows.empty else rows.sort_values(["loss", "arch_id"]).iloc[0]
