"""One number for each measured candidate, the greater the better, whatever the objectives and whoever failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from orchestrator.objectives import Objective
from orchestrator.results.pareto import dominance_numbers
from orchestrator.strategies.breeding import Member

Rule = Literal["first", "dominance"]
"""``first``: the value of the first objective. ``dominance``: how few of the others dominate a candidate, in all
objectives (LaMOO, Zhao et al. 2022)."""


def fitness_of(members: Sequence[Member], objectives: Sequence[Objective], rule: Rule) -> NDArray[np.float64]:
    """The fitness of candidates among each other: 1 for the best, 0 for the worst and for those that failed.

    Args:
        members: measured candidates; those without values failed.
        objectives: in the order of the members' values.
        rule: see :data:`Rule`.

    Returns:
        float64 [members]; all 0 where all are alike.
    """
    return scaled(raw_fitness(members, objectives, rule))


def fitness_among(candidate: Member, known: Sequence[Member], objectives: Sequence[Objective], rule: Rule) -> float:
    """The fitness of one more candidate on the scale of those known: above 1 if it beats them all, never below 0."""
    raw = raw_fitness([*known, candidate], objectives, rule)
    low, high = raw[:-1].min(), raw[:-1].max()
    return max(0.0, float((raw[-1] - low) / (high - low))) if high > low else 0.0


def raw_fitness(members: Sequence[Member], objectives: Sequence[Objective], rule: Rule) -> NDArray[np.float64]:
    """The fitness in the unit of the rule, that of the worst for those that failed; float64 [members]."""
    result = np.zeros(len(members), dtype=np.float64)
    measured = [index for index, member in enumerate(members) if member.values is not None]
    if not measured:
        return result
    values = np.array([members[index].values for index in measured], dtype=np.float64)
    if rule == "first":
        known = -values[:, 0] if objectives[0].minimise else values[:, 0]
    else:
        known = -dominance_numbers(values, [one.minimise for one in objectives]).astype(np.float64)
    result[:] = known.min()
    result[measured] = known
    return result


def scaled(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Numbers brought between 0, the least, and 1, the greatest; all 0 where all are equal."""
    extent = np.ptp(raw) if len(raw) else 0.0
    result: NDArray[np.float64] = (raw - raw.min()) / extent if extent > 0 else np.zeros(len(raw))
    return result
