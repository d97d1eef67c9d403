"""What a budget allows, in numbers: the limits of a recipe's budgets by objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.errors import UserError
from orchestrator.latency_table.marginals import predicts_latency, priced
from orchestrator.objectives import Constraint
from orchestrator.recipe import Budget, Recipe
from spaces.encoder_shape import EncoderShape
from spaces.space import BlockwiseSpace, SearchSpace

LIMITED = ("parameters", "encoder_parameters", "flops", "latency_ms")
"""The objectives that budgets limit; each is a key of a budget, and ``max_<objective>`` a column of ``selections``."""


def limits_of(budget: Budget, shape: EncoderShape) -> dict[str, float]:
    """The limits a budget sets, by objective; shares are those of the teacher's weights, rounded down.

    Args:
        budget: of the recipe.
        shape: of the teacher.
    """
    limits: dict[str, float | None] = {
        "parameters": None,
        "encoder_parameters": None,
        "flops": budget.flops,
        "latency_ms": budget.latency_ms,
    }
    if budget.parameters is not None:
        limits["parameters"] = budget.parameters.resolve(shape.encoder_parameters + shape.embedding_parameters)
    if budget.encoder_parameters is not None:
        limits["encoder_parameters"] = budget.encoder_parameters.resolve(shape.encoder_parameters)
    return {name: limit for name, limit in limits.items() if limit is not None}


def limit_columns(limits: Mapping[str, float]) -> dict[str, float | None]:
    """The columns of ``selections`` that hold a budget's limits; ``None`` where it has none."""
    return {f"max_{name}": limits.get(name) for name in LIMITED}


def budget_constraints(recipe: Recipe, shape: EncoderShape) -> list[list[Constraint]]:
    """The limits of each budget as constraints, in the recipe's order."""
    return [[Constraint(name, limit) for name, limit in limits_of(budget, shape).items()] for budget in recipe.budgets]


def common_constraints(budgets: Sequence[Sequence[Constraint]]) -> list[Constraint]:
    """The limits that every budget implies: the loosest of each kind, where all budgets have that kind."""
    by_objective: dict[str, list[float]] = {}
    for constraints in budgets:
        for constraint in constraints:
            by_objective.setdefault(constraint.objective, []).append(constraint.maximum)
    return [
        Constraint(objective, max(limits)) for objective, limits in by_objective.items() if len(limits) == len(budgets)
    ]


def check_latency(recipe: Recipe, space: SearchSpace[Any]) -> None:
    """Make sure that nothing hangs on predicted latencies where none can be predicted.

    Raises:
        UserError: an objective or a budget does, and the space names no parts whose latencies add up.
    """
    because = no_prediction(recipe, space)
    if because is None:
        return
    for index, objective in enumerate(recipe.search.objectives):
        if objective == "latency_ms":
            raise UserError(
                f"search.objectives.{index}: found latency_ms, but {because}; leave it out, or take measured_latency_ms"
            )
    for budget in recipe.budgets:
        if budget.latency_ms is not None:
            raise UserError(f"budgets.{budget.name}.latency_ms: found a limit, but {because}; take another limit")


def no_prediction(recipe: Recipe, space: SearchSpace[Any]) -> str | None:
    """Why a run predicts no latencies; ``None`` where it does."""
    if not predicts_latency(space):
        return f"the space '{space.name}' names no parts whose latencies add up"
    settings = recipe.tables.latency
    if priced(space) is None or settings.table is not None or settings.marginal_architectures:
        return None
    return "tables.latency.marginal_architectures is 0, so that none is predicted (raise it)"


def searches_by_latency(recipe: Recipe) -> bool:
    """Whether what a search finds hangs on predicted latencies: by an objective, or by a budget."""
    limited = any(budget.latency_ms is not None for budget in recipe.budgets)
    return limited or "latency_ms" in recipe.search.objectives


def check_smallest(recipe: Recipe, shape: EncoderShape, space: SearchSpace[Any], sequence_length: int) -> None:
    """Make sure that no budget on weights lies below all architectures of the space.

    Raises:
        UserError: one does; the message names the smallest there is.
    """
    smallest = space.smallest()
    cost = space.cost(smallest, sequence_length)
    least = {"encoder_parameters": cost.encoder_parameters, "parameters": cost.parameters}
    if isinstance(space, BlockwiseSpace):  # the fewest weights in all take the narrowest embeddings, too
        tables = (
            sum(space.part_cost(part, sequence_length).parameters for part in space.embedding_parts(size))
            for size in space.embedding_choices()
        )
        least["parameters"] = min(tables) + cost.encoder_parameters
    for budget in recipe.budgets:
        for name, limit in limits_of(budget, shape).items():
            if limit < least.get(name, 0):
                raise UserError(
                    f"budgets.{budget.name}.{name}: found {getattr(budget, name)} ({limit:,.0f}), but no architecture "
                    f"of the space has fewer than {least[name]:,} ({smallest}); raise the budget or give the space "
                    f"smaller sizes"
                )
