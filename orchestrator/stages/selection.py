"""The stage that picks a winner for every budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from orchestrator.errors import UserError
from orchestrator.finalists import Candidate, finalists
from orchestrator.latency_table import LatencyTable
from orchestrator.limits import limit_columns, limits_of
from orchestrator.objectives import CheapObjectives, Constraint, Feasibility
from orchestrator.phases import last_phase
from orchestrator.plan import PlannedStage
from orchestrator.progress import StageProgress
from orchestrator.recipe import Budget, Recipe
from orchestrator.stages.base import RunContext, RunPlan, Stage, StageResult
from orchestrator.stages.candidates import scored_candidates
from orchestrator.stages.judge import TRIAL_QUARTER
from orchestrator.stages.lambda_sweep import found_texts, own_losses
from orchestrator.stages.schemes import scheme_of
from orchestrator.stages.trials import (
    TrialResult,
    Trials,
    TrialSettings,
    planned_trials,
    remove_trials,
    settle_measure,
    trial_ranks,
)
from orchestrator.strategies.starting_points import starting_points

SELECTION = "selection"

KEPT_RANKS = 20
"""Candidates of each budget that are recorded in ``selections``."""


class SelectionStage(Stage):
    """Chooses, for every budget, the candidate of lowest loss that keeps all its limits, or the best of a trial."""

    name = SELECTION
    inputs = ("search",)
    resumable = True

    def inputs_for(self, plan: RunPlan) -> tuple[str, ...]:
        """The search, or that of the last phase."""
        return (last_phase(plan.recipe).search_stage,)

    def depends_on(self, plan: RunPlan) -> Sequence[Any]:
        """The recipe's budgets and, where finalists are tried, how."""
        recipe = plan.recipe
        tried = [recipe.selection, recipe.distillation, recipe.evaluation, recipe.seed] if _tries(recipe) else []
        return [*recipe.budgets, *tried]

    def check(self, plan: RunPlan) -> None:
        """A budget that a one-shot training chooses for has one; other stages have checked the rest."""
        for index, budget in enumerate(plan.recipe.budgets):
            if budget.choose == "oneshot" and scheme_of(plan.space, plan.recipe.space.name) != "oneshot":
                raise UserError(
                    f"budgets.{index}.choose: found oneshot, but the supernet of '{plan.recipe.space.name}' is not "
                    f"trained together with a distribution; expected loss, or a space such as components"
                )

    def planned(self, plan: RunPlan) -> PlannedStage:
        """One choice a budget, and the trials before it."""
        recipe = plan.recipe
        names = ", ".join(budget.name for budget in recipe.budgets)
        if not _tries(recipe):
            return PlannedStage(self.name, "run", f"choose a winner for {names}", seconds=0.5)
        settings = recipe.selection
        tried = sum(budget.choose == "loss" for budget in recipe.budgets)
        students = settings.finalists * tried
        work = f"distil {settings.finalists} finalists of each budget for {settings.trial_steps} steps, choose a winner"
        return planned_trials(plan, self.name, f"{work} for {names}", students, settings.trial_steps, settings.group)

    def run(self, context: RunContext, progress: StageProgress) -> StageResult:
        """Rank the candidates of each budget, try the finalists where there are any, and record the best."""
        candidates = scored_candidates(context, last_phase(context.recipe))
        fields = [_Field.of(context, budget, candidates) for budget in context.recipe.budgets]
        tried: dict[str, TrialResult] = {}
        if _tries(context.recipe):
            settings = context.recipe.selection
            trials = Trials(context, SELECTION, TrialSettings(settings.trial_steps, settings.group, TRIAL_QUARTER))
            architectures = [context.space.parse(one.text) for field in fields for one in field.finalists]
            tried = trials.run(architectures, progress)
        chosen = {field.budget.name: self._choose(context, field, tried, progress) for field in fields}
        detail = f"{len(chosen)} winners out of {len(candidates)} candidates"
        return StageResult(f"{detail}, {len(tried)} of them tried" if tried else detail, {"chosen": chosen})

    @staticmethod
    def _choose(
        context: RunContext, field: _Field, tried: Mapping[str, TrialResult], progress: StageProgress
    ) -> dict[str, Any]:
        """Record a budget's candidates, and say which has won."""
        budget = field.budget
        own = {one.arch_id: tried[one.arch_id] for one in field.finalists if one.arch_id in tried}
        settings = context.recipe.selection
        measure = settle_measure(settings.measure, list(own.values()), "selection.measure")
        places = trial_ranks(own, measure)
        winner = min(places, key=lambda arch_id: places[arch_id]) if places else field.untried
        answer: dict[str, Any] = {}
        for rank, row in enumerate(_rows(field.ranked), start=1):
            arch_id = row["arch_id"]
            if rank > KEPT_RANKS and arch_id not in own and arch_id != winner:
                continue
            context.results.append(
                "selections",
                budget=budget.name,
                rank=rank,
                chosen=arch_id == winner,
                **limit_columns(field.limits),
                **architecture_columns(row),
                **(own[arch_id].columns(settings.trial_steps, measure, places[arch_id]) if arch_id in own else {}),
            )
            if arch_id == winner:
                answer = {
                    "architecture": str(row["architecture"]),
                    "loss": float(row["loss"]),
                    **limit_columns(field.limits),
                }
                place = f", place {rank} by it, the most faithful of {len(own)} tried" if own else ""
                place = f", place {rank} by it, what the one-shot training found" if budget.choose != "loss" else place
                progress.message(f"{budget.name}: {row['architecture']}  loss {row['loss']:.3f}{place}")
        return answer

    def clean_up(self, context: RunContext) -> None:
        """What the trials kept has served."""
        remove_trials(context, SELECTION)


@dataclass(frozen=True)
class _Field:
    """Who runs for a budget.

    Attributes:
        budget: with its limits.
        limits: in numbers, by objective.
        ranked: the candidates within the budget, the lowest loss first.
        finalists: who is tried; none where the lowest loss wins.
        untried: the id of the winner where nobody is tried.
    """

    budget: Budget
    limits: Mapping[str, float]
    ranked: pd.DataFrame
    finalists: Sequence[Candidate]
    untried: str

    @classmethod
    def of(cls, context: RunContext, budget: Budget, candidates: pd.DataFrame) -> _Field:
        """Rank a budget's candidates and choose its finalists."""
        recipe, limits = context.recipe, limits_of(budget, context.plan.shape)
        ranked = within_budget(candidates, budget.name, limits)
        if budget.choose == "oneshot":
            return cls(budget, limits, ranked, (), _found(context, budget, ranked))
        first = str(ranked.iloc[0]["arch_id"])
        if not _tries(recipe):
            return cls(budget, limits, ranked, (), first)
        settings = recipe.selection
        regular = _regular(context, limits) if settings.regular else []
        listed = [
            Candidate(str(row["arch_id"]), str(row["architecture"]), int(row["encoder_parameters"]))
            for row in _rows(ranked)
        ]
        chosen = finalists(listed, settings.finalists, settings.diversity, settings.least_distance, regular)
        return cls(budget, limits, ranked, chosen, first)


def _found(context: RunContext, budget: Budget, ranked: pd.DataFrame) -> str:
    """The id of what the one-shot training came to; of several (other lambdas), of lowest loss by their own weights.

    Raises:
        UserError: none of it keeps the limits.
    """
    texts = found_texts(context.outputs)
    kept = ranked[ranked["architecture"].isin(texts)]
    if kept.empty:
        raise UserError(
            f"budgets.{budget.name}: the one-shot training came to {', '.join(texts)}, which keeps neither this "
            f"budget's limits nor, where it was not scored, any other's; raise supernet.oneshot.cost_weight, or leave "
            f"the limits out"
        )
    losses = dict(zip(kept["architecture"], kept["loss"], strict=True)) | {
        text: loss for text, loss in own_losses(context.outputs).items() if text in set(kept["architecture"])
    }
    best = min(losses, key=lambda text: losses[text])
    return str(kept[kept["architecture"] == best]["arch_id"].iloc[0])


def _tries(recipe: Recipe) -> bool:
    return recipe.selection.finalists > 1


def _regular(context: RunContext, limits: Mapping[str, float]) -> list[str]:
    """Ids of the regular Transformers that strategies started at, as they were brought within this budget."""
    recipe = context.recipe
    constraints = [Constraint(objective, limit) for objective, limit in limits.items()]
    table = LatencyTable.from_json(context.outputs["latency"]["latency_table"])
    cheap = CheapObjectives(context.space, table.objectives(context.space), recipe.corpus.sequence_length)
    points = starting_points(context.space, [Feasibility(cheap, constraints)], recipe.seed)
    return [point.arch_id for point in points]


def architecture_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of ``selections`` that are taken over from the row of ``evaluations``."""
    return {
        "arch_id": row["arch_id"],
        "architecture": row["architecture"],
        "strategy": row["strategy"],
        "loss": float(row["loss"]),
        "parameters": int(row["parameters"]),
        "encoder_parameters": int(row["encoder_parameters"]),
        "latency_ms": None if pd.isna(row["latency_ms"]) else float(row["latency_ms"]),
    }


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [dict(zip(frame.columns, values, strict=True)) for values in frame.itertuples(index=False, name=None)]


def within_budget(candidates: pd.DataFrame, budget: str, limits: Mapping[str, float]) -> pd.DataFrame:
    """The candidates that keep a budget's limits, in the order they come in.

    Args:
        candidates: a column for each objective.
        budget: its name.
        limits: by objective.

    Raises:
        UserError: there is none; the message says which limit is out of reach and what the nearest candidate has.
    """
    fitting = candidates
    for objective, limit in limits.items():
        kept = fitting[fitting[objective] <= limit]
        if kept.empty:
            nearest = f"{fitting[objective].min():,.6g}" if len(fitting) else "none left"
            raise UserError(
                f"budgets.{budget}.{objective}: found a limit of {limit:,.6g}, but none of the {len(candidates)} "
                f"evaluated architectures keeps it (nearest: {nearest}); raise the limit or the "
                f"evaluations of search.strategies, and run the same command again"
            )
        fitting = kept
    return fitting
