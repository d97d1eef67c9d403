"""The members of a sweep: which searches it consists of, what each is known by, and how each strategy is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from orchestrator.limits import budget_constraints, common_constraints, limits_of
from orchestrator.objectives import OBJECTIVES, CheapObjectives, Constraint
from orchestrator.recipe import Budget, signature
from orchestrator.stages.base import RunPlan
from orchestrator.stages.search import SearchStage
from orchestrator.strategies.base import Strategy
from orchestrator.strategies.registry import create_strategy
from orchestrator.sweep.loading import LoadedSweep
from orchestrator.sweep.settings import SweptStrategy

SIGNATURE_SHOWN = 6


@dataclass(frozen=True)
class Member:
    """One search of a sweep.

    Attributes:
        space: label of the space.
        strategy: with its options.
        budget: the limits it keeps to; ``None``: what the recipe's budgets allow together.
        evaluations: candidates it may have scored.
        seed: of the strategy.
    """

    space: str
    strategy: SweptStrategy
    budget: Budget | None
    evaluations: int
    seed: int

    @property
    def label(self) -> str:
        """What people call it: the places on all axes."""
        limits = [] if self.budget is None else [self.budget.name]
        return "-".join([self.space, self.strategy.called, *limits, f"e{self.evaluations}", f"s{self.seed}"])

    @property
    def group(self) -> tuple[str, str, str, int]:
        """What members that differ in their seed alone share."""
        return self.space, self.strategy.called, self.budget.name if self.budget else "", self.evaluations

    def constraints(self, plan: RunPlan) -> list[Constraint]:
        """The hard limits of its search."""
        if self.budget is None:
            return common_constraints(budget_constraints(plan.recipe, plan.shape))
        return [Constraint(name, limit) for name, limit in limits_of(self.budget, plan.shape).items()]

    def make_strategy(self, plan: RunPlan, cheap: CheapObjectives) -> Strategy:
        """A new strategy.

        Raises:
            UserError: there is no such strategy, or it refuses an option.
        """
        return create_strategy(
            self.strategy.name,
            plan.space,
            [OBJECTIVES[name] for name in plan.recipe.search.objectives],
            self.constraints(plan),
            self.seed,
            cheap=cheap,
            options=self.strategy.options,
        )

    def known_as(self, plan: RunPlan, shared: Mapping[str, str]) -> str:
        """The name of its folder and of its rows: its label, and a hash of everything its search depends on.

        Args:
            plan: of the space's run.
            shared: signatures of the run's stages that members build on.
        """
        search = plan.recipe.search
        limits = {constraint.objective: constraint.maximum for constraint in self.constraints(plan)}
        settings = [search.objectives, search.validation_batches, search.batch_size, search.rank_by]
        own = [self.strategy.name, self.strategy.options, self.evaluations, self.seed, search.candidates_per_trial]
        own.append(SearchStage.version)
        if search.stop is not None:
            own.append({"stop": search.stop})
        # Starting points are made of the recipe's own seed, so that members differ in their strategies alone.
        hashed = signature(own, settings, limits, plan.recipe.seed, plan.recipe.distillation.mask_probability, shared)
        return f"{self.label}-{hashed[:SIGNATURE_SHOWN]}"


def members_of(loaded: LoadedSweep) -> list[Member]:
    """All combinations, in the order of the sweep's axes: seeds change fastest."""
    sweep = loaded.sweep
    budgets: Sequence[Budget | None] = sweep.budgets or (None,)
    axes = product(loaded.recipes, sweep.strategies, budgets, sweep.evaluations, sweep.seeds)
    return [Member(*combination) for combination in axes]


def check_members(loaded: LoadedSweep, plans: Mapping[str, RunPlan]) -> None:
    """Make every strategy once, so that a wrong name or option is told before anything runs.

    Raises:
        UserError: with the place in the sweep file.
    """
    order = {strategy.called: index for index, strategy in enumerate(loaded.sweep.strategies)}
    for member in {(one.space, one.strategy.called, one.budget): one for one in members_of(loaded)}.values():
        plan = plans[member.space]
        cheap = CheapObjectives(plan.space, {"latency_ms": _no_latency})
        try:
            member.make_strategy(plan, cheap)
        except ValueError as error:
            raise loaded.mistake(("strategies", order[member.strategy.called]), error) from None


def _no_latency(architecture: Any) -> float:
    return 0.0
