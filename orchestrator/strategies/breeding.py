"""What evolutionary strategies share: members, who is fitter, and how a parent comes to a child."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from orchestrator.evaluation.evaluator import Measurement
from orchestrator.objectives import Objective
from orchestrator.results.pareto import crowding_distance, non_dominated_ranks
from orchestrator.strategies.base import Strategy
from spaces.architecture import Architecture
from spaces.space import SearchSpace

Fitness = tuple[float, float, float]
"""Smaller is fitter: violation of the constraints, then rank (or the value, of one objective), then crowding."""


@dataclass(frozen=True)
class Member:
    """An architecture of a population.

    Attributes:
        architecture: never held twice by one population.
        values: in the order of the strategy's objectives; ``None`` for one without: it breaks a constraint, so that
            nobody has measured it and it can only be a parent, or (where a strategy keeps those) it failed.
        violation: of the constraints; 0 where they are kept.
    """

    architecture: Architecture
    values: tuple[float, ...] | None
    violation: float = 0.0

    def state(self) -> list[Any]:
        """The member in JSON-native values."""
        return [str(self.architecture), None if self.values is None else list(self.values), self.violation]

    @classmethod
    def from_state(cls, state: Sequence[Any], space: SearchSpace[Any]) -> Member:
        """The inverse of :meth:`state`."""
        text, values, violation = state
        return cls(space.parse(text), None if values is None else tuple(values), violation)


def fitness(members: Sequence[Member], objectives: Sequence[Objective]) -> list[Fitness]:
    """For each member a triple that is smaller the fitter it is, by constraint domination (Deb et al. 2002, VI).

    Who keeps the constraints is fitter than who breaks them, and of two that break them the one that does so by less.
    Among those that keep them the lower non-dominated rank wins, then the larger crowding distance; of one objective
    the value decides.
    """
    result: list[Fitness] = [(member.violation, 0.0, 0.0) for member in members]
    measured = [index for index, member in enumerate(members) if member.values is not None]
    if not measured:
        return result
    values = np.array([members[index].values for index in measured], dtype=np.float64)
    minimise = [objective.minimise for objective in objectives]
    if len(minimise) == 1:
        order = values[:, 0] if minimise[0] else -values[:, 0]
        crowding = np.zeros(len(measured))
    else:
        ranks = non_dominated_ranks(values, minimise)
        order, crowding = ranks.astype(np.float64), crowding_distance(values, ranks)
    for index, rank, distance in zip(measured, order.tolist(), crowding.tolist(), strict=True):
        result[index] = (members[index].violation, rank, -distance)
    return result


def fittest(members: Sequence[Member], objectives: Sequence[Objective], count: int) -> list[Member]:
    """The ``count`` fittest members, the fittest first; among equals the earlier."""
    order = fitness(members, objectives)
    return [members[index] for index in sorted(range(len(members)), key=order.__getitem__)[:count]]


def redraw(space: SearchSpace[Any], architecture: Architecture, probability: float, rng: random.Random) -> Architecture:
    """An architecture whose decisions each are drawn anew with a probability, and otherwise stay.

    Args:
        space: whose decisions they are.
        architecture: a member of the space.
        probability: of each decision; one that did not apply before and now does is always drawn.
        rng: all randomness.
    """
    before = space.to_decisions(architecture)
    kept = {name: choice for name, choice in before.items() if rng.random() >= probability}
    redrawn: Architecture = space.decide(rng, kept)
    return redrawn


class BreedingStrategy(Strategy):
    """A strategy whose candidates descend from those that were measured."""

    def _descend(
        self,
        parent: Architecture,
        vary: Callable[[Architecture], Architecture],
        on_infeasible: Callable[[Architecture], None] | None = None,
    ) -> Architecture | None:
        """A new feasible descendant; ``None`` after too many tries.

        An infeasible child is thrown away (after ``on_infeasible`` has seen it); from a feasible one that is not new
        the variations go on, so that a neighbourhood that is used up is left.
        """
        for _ in range(self.options.max_tries):
            child = vary(parent)
            if not self.feasibility(child):
                if on_infeasible is not None:
                    on_infeasible(child)
                continue
            if self._is_new(child):
                return child
            parent = child
        return None

    def _member(self, measurement: Measurement) -> Member:
        """A measured architecture; one that was not asked may break a constraint."""
        architecture = measurement.architecture
        return Member(architecture, tuple(self._values(measurement)), self.feasibility.violation(architecture))

    def _mutate(self, architecture: Architecture) -> Architecture:
        mutated: Architecture = self.space.mutate(architecture, self._rng)
        return mutated

    def _cross(self, first: Architecture, second: Architecture) -> Architecture:
        crossed: Architecture = self.space.crossover(first, second, self._rng)
        return crossed

    def _saved(self, members: Iterable[Member]) -> list[list[Any]]:
        """Members in JSON-native values."""
        return [member.state() for member in members]

    def _restored(self, saved: Iterable[Sequence[Any]]) -> list[Member]:
        """The inverse of :meth:`_saved`."""
        return [Member.from_state(state, self.space) for state in saved]
