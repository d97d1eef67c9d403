"""The stage that measures the latency table: every part of the space, on this device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluster.device import describe_device
from orchestrator.errors import UserError
from orchestrator.latency_table import LatencyConditions, LatencyTable, measure_part
from orchestrator.plan import PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.stages.base import RunContext, RunPlan, Stage, StageResult
from trainers.precision import Precision

LATENCY_PRECISION: Precision = "float32"
"""Latency is measured in the format that exports are stored and loaded in."""


def latency_conditions(context: RunContext, repeats: int | None = None) -> LatencyConditions:
    """The recipe's conditions of latency measurements, on the driver's device."""
    settings = context.recipe.tables.latency
    return LatencyConditions(
        settings.batch_size,
        settings.sequence_length,
        settings.threads,
        settings.warm_up,
        settings.repeats if repeats is None else repeats,
        context.device,
    )


def latency_row(conditions: LatencyConditions) -> dict[str, Any]:
    """The columns of the ``latency`` table that say how a latency was measured."""
    return {
        "batch_size": conditions.batch_size,
        "sequence_length": conditions.sequence_length,
        "device": describe_device(conditions.device).name,
        "threads": conditions.threads if conditions.device == "cpu" else None,
        "dtype": LATENCY_PRECISION,
    }


class LatencyStage(Stage):
    """Measures what each part of the space costs on this device."""

    name = "latency"
    inputs = ("teacher",)

    def depends_on(self, plan: RunPlan) -> Sequence[Any]:
        """The recipe's space and conditions, and the device."""
        return [plan.recipe.space, plan.recipe.tables.latency, describe_device("cpu").name]

    def check(self, plan: RunPlan) -> None:
        """The measured sequences fit the teacher's positions."""
        length = plan.recipe.tables.latency.sequence_length
        if length > plan.shape.max_positions:
            raise UserError(
                f"tables.latency.sequence_length: found {length}, but the teacher has only {plan.shape.max_positions} "
                f"positions"
            )

    def planned(self, plan: RunPlan) -> PlannedStage:
        """One measurement a part."""
        settings, parts = plan.recipe.tables.latency, len(plan.space.parts())
        work = (
            f"measure {parts} parts, batch {settings.batch_size} × {settings.sequence_length} tokens, "
            f"{settings.threads} thread(s), {settings.repeats} repeats"
        )
        return PlannedStage(self.name, "run", work, seconds=parts * settings.repeats * 0.012)

    def run(self, context: RunContext, progress: StageProgress) -> StageResult:
        """Measure part by part."""
        conditions, space = latency_conditions(context), context.space
        parts = space.parts()
        progress.follow(len(parts), "parts")
        entries = {}
        shared = latency_row(conditions)
        for part in parts:
            entries[part] = measured = measure_part(space, part, conditions, context.plan.shape.vocab_size)
            context.results.append(
                "latency",
                kind=part.kind,
                operation=part.name,
                hidden_size=part.size,
                input_size=part.input_size,
                median_ms=measured.median_ms,
                spread_ms=measured.spread_ms,
                repeats=measured.repeats,
                **shared,
            )
            progress.advance()
        table = LatencyTable(entries)
        return StageResult(f"{len(parts)} parts on {shared['device']}", {"latency_table": table.to_json()})
