"""The stage that picks a winner for every budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from orchestrator.errors import UserError
from orchestrator.plan import PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.recipe import Budget
from orchestrator.results import open_results
from orchestrator.stages.base import RunContext, RunPlan, Stage, StageResult

KEPT_RANKS = 20
"""Candidates of each budget that are recorded in ``selections``."""


class SelectionStage(Stage):
    """Chooses, for every budget, the candidate of lowest loss that keeps all its limits."""

    name = "selection"
    inputs = ("search",)

    def depends_on(self, plan: RunPlan) -> Sequence[Any]:
        """The recipe's budgets."""
        return [*plan.recipe.budgets]

    def check(self, plan: RunPlan) -> None:
        """The search stage has checked that the budgets can be met."""

    def planned(self, plan: RunPlan) -> PlannedStage:
        """One choice a budget."""
        names = ", ".join(budget.name for budget in plan.recipe.budgets)
        return PlannedStage(self.name, "run", f"choose a winner for {names}", seconds=0.5)

    def run(self, context: RunContext, progress: StageProgress) -> StageResult:
        """Rank the candidates of each budget and record the best."""
        candidates = scored_candidates(context)
        chosen = {}
        for budget in context.recipe.budgets:
            limit = None
            if budget.encoder_parameters is not None:
                limit = budget.encoder_parameters.resolve(context.plan.shape.encoder_parameters)
            ranked = within_budget(candidates, budget, limit)
            for rank, row in enumerate(_rows(ranked.head(KEPT_RANKS)), start=1):
                context.results.append(
                    "selections",
                    budget=budget.name,
                    max_encoder_parameters=limit,
                    max_latency_ms=budget.latency_ms,
                    rank=rank,
                    chosen=rank == 1,
                    arch_id=row["arch_id"],
                    architecture=row["architecture"],
                    strategy=row["strategy"],
                    loss=float(row["loss"]),
                    parameters=int(row["parameters"]),
                    encoder_parameters=int(row["encoder_parameters"]),
                    latency_ms=float(row["latency_ms"]),
                )
            best = ranked.iloc[0]
            chosen[budget.name] = {
                "architecture": str(best["architecture"]),
                "loss": float(best["loss"]),
                "max_encoder_parameters": limit,
                "max_latency_ms": budget.latency_ms,
            }
            progress.message(f"{budget.name}: {best['architecture']}  loss {best['loss']:.3f}")
        return StageResult(f"{len(chosen)} winners out of {len(candidates)} candidates", {"chosen": chosen})


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [dict(zip(frame.columns, values, strict=True)) for values in frame.itertuples(index=False, name=None)]


def scored_candidates(context: RunContext) -> pd.DataFrame:
    """Every whole network that this run's supernet scored, once, the lowest loss first."""
    frame = open_results(context.folder.results).frame("evaluations")
    scored = frame[
        (frame["scope"] == "network")
        & (frame["status"] == "ok")
        & (frame["supernet_signature"] == context.outputs["supernet"]["signature"])
        & (frame["fidelity"] == context.recipe.search.validation_batches)
    ]
    ranked: pd.DataFrame = scored.sort_values(["loss", "arch_id"]).drop_duplicates("arch_id")
    return ranked


def within_budget(candidates: pd.DataFrame, budget: Budget, max_encoder_parameters: int | None) -> pd.DataFrame:
    """The candidates that keep a budget's limits, in the order they come in.

    Raises:
        UserError: there is none; the message says which limit is out of reach and what the nearest candidate has.
    """
    fitting = candidates
    for column, key, limit in (
        ("encoder_parameters", "encoder_parameters", max_encoder_parameters),
        ("latency_ms", "latency_ms", budget.latency_ms),
    ):
        if limit is None:
            continue
        kept = fitting[fitting[column] <= limit]
        if kept.empty:
            nearest = f"{fitting[column].min():,.6g}" if len(fitting) else "none left"
            raise UserError(
                f"budgets.{budget.name}.{key}: found a limit of {limit:,.6g}, but none of the {len(candidates)} "
                f"evaluated architectures keeps it (nearest: {nearest}); raise the limit or the "
                f"evaluations of search.strategies, and run the same command again"
            )
        fitting = kept
    return fitting
