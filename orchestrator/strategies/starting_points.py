"""Where a search starts: a space's well-known architectures, brought within each budget."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from orchestrator.objectives import Feasibility
from spaces.architecture import Architecture
from spaces.space import SearchSpace

NEIGHBOURS = 64
"""Mutations that are looked at in each step towards a budget."""

MAX_STEPS = 40
"""Steps after which an architecture that does not come within the budget is given up."""


def starting_points(space: SearchSpace[Any], budgets: Sequence[Feasibility], seed: int) -> list[Architecture]:
    """The space's anchors and, for each budget, the neighbours of those that exceed it which just keep it.

    A budget rarely cuts where a regular architecture lies: half of a Transformer's weights may be a few more than half
    of its feed-forwards leave. Without the nearest architecture inside, a search would have to find it by chance.

    Args:
        space: whose :meth:`~spaces.space.SearchSpace.anchors` are used.
        budgets: one feasibility a budget.
        seed: of the mutations; equal seeds give equal points.

    Returns:
        Distinct architectures, each within at least one budget.
    """
    points: dict[Architecture, None] = {}
    for feasibility in budgets:
        for anchor in space.anchors():
            fitted = _fit(space, anchor, feasibility, random.Random(f"{seed}/{anchor}"))
            if fitted is not None:
                points[fitted] = None
    return list(points)


def _fit(
    space: SearchSpace[Any], architecture: Architecture, feasibility: Feasibility, rng: random.Random
) -> Architecture | None:
    """Mutate an architecture until it keeps a budget, giving up as little of it as possible."""
    current = architecture
    for _ in range(MAX_STEPS):
        if feasibility(current):
            return current
        neighbours = [space.mutate(current, rng) for _ in range(NEIGHBOURS)]
        feasible = [neighbour for neighbour in neighbours if feasibility(neighbour)]
        if feasible:
            return max(feasible, key=lambda neighbour: max(feasibility.excesses(neighbour).values()))
        current = min((current, *neighbours), key=feasibility.violation)
    return None
