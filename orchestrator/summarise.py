"""From the tables of a finished run to its summary."""

from __future__ import annotations

from typing import Any

from orchestrator.results import open_results
from orchestrator.stages.base import RunPlan
from orchestrator.summary import BudgetSummary, ModelSummary, RunSummary


def summarise(plan: RunPlan, seconds: float) -> RunSummary:
    """Read what the run found from its tables.

    Args:
        plan: of the run.
        seconds: wall-clock time of this start of the run.
    """
    results = open_results(plan.folder.results)
    models = {row["model"]: row for row in results.table("models").to_pylist()}
    losses = {row["budget"]: row["loss"] for row in results.table("selections").to_pylist() if row["chosen"]}
    budgets = []
    for budget in plan.recipe.budgets:
        limit = budget.encoder_parameters
        uniform = models.get(f"{budget.name}-uniform") if plan.recipe.distillation.uniform_baseline else None
        budgets.append(
            BudgetSummary(
                name=budget.name,
                max_encoder_parameters=None if limit is None else limit.resolve(plan.shape.encoder_parameters),
                max_latency_ms=budget.latency_ms,
                winner=_model(plan, models[budget.name], losses.get(budget.name)),
                uniform=None if uniform is None else _model(plan, uniform, None),
            )
        )
    return RunSummary(
        recipe=plan.recipe.name,
        run_dir=str(plan.folder.path),
        teacher=_model(plan, models["teacher"], None),
        budgets=tuple(budgets),
        report=str(plan.folder.report),
        seconds=seconds,
    )


def _model(plan: RunPlan, row: dict[str, Any], loss: float | None) -> ModelSummary:
    return ModelSummary(
        label=row["model"],
        architecture=row["architecture"] or "",
        arch_id=row["arch_id"] or "",
        parameters=row["parameters"],
        encoder_parameters=row["encoder_parameters"],
        size_bytes=row["size_bytes"],
        loss=loss,
        cosine_similarity=row["cosine_similarity"],
        relative_mse=row["relative_mse"],
        predicted_latency_ms=row["predicted_latency_ms"],
        measured_latency_ms=row["measured_latency_ms"],
        latency_spread_ms=row["latency_spread_ms"],
        speed_up=row["speed_up"],
        path=str(plan.folder.path / row["path"]) if row["path"] else "",
    )
