"""Regularised (aging) evolution (Real et al. 2019), for one objective or several."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from orchestrator.evaluation.evaluator import Measurement
from orchestrator.results.pareto import crowding_distance, non_dominated_ranks
from orchestrator.strategies.base import Strategy, StrategyOptions
from spaces.architecture import Architecture


class RegularisedEvolutionOptions(StrategyOptions):
    """Options of :class:`RegularisedEvolution`.

    Attributes:
        population: members that are kept; the oldest dies when one more arrives. Also the number of random candidates
            that are asked first.
        sample_size: members drawn for each tournament; the best becomes the parent.
        crossover_probability: how often a child gets genes from two parents before it is mutated (0: never).
    """

    population: int = Field(default=50, ge=1)
    sample_size: int = Field(default=10, ge=1)
    crossover_probability: float = Field(default=0.0, ge=0.0, le=1.0)


@dataclass(frozen=True)
class _Member:
    """A living architecture with its objective values, in the order of the strategy's objectives."""

    architecture: Architecture
    values: list[float]


class RegularisedEvolution(Strategy):
    """Tournaments among a population whose oldest member dies with every birth.

    Steady state: a child is asked from whatever population has been told so far, so nothing waits for a generation.
    With several objectives a tournament is won by the lower non-dominated rank, then by the larger crowding distance,
    both within the whole population; with one by the value. Failed candidates never join the population.
    """

    name: ClassVar[str] = "regularised_evolution"
    options_class: ClassVar[type[StrategyOptions]] = RegularisedEvolutionOptions

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._population: deque[_Member] = deque(maxlen=self.options.population)
        self._fitness: list[tuple[float, float]] | None = None

    def _propose(self) -> Architecture | None:
        if len(self._pending) + len(self._told) < self.options.population or not self._population:
            return self._explore()
        return self._child() or self._explore()

    def _observe(self, measurement: Measurement) -> None:
        if measurement.objectives is None:
            return
        self._population.append(_Member(measurement.architecture, self._values(measurement)))
        self._fitness = None

    def _child(self) -> Architecture | None:
        """A new feasible child of a tournament's winner; ``None`` after too many tries.

        An infeasible child is thrown away; from a feasible one that is not new the mutations go on, so that a
        neighbourhood that is used up is left.
        """
        parent = self._select()
        if self._rng.random() < self.options.crossover_probability:
            parent = self.space.crossover(parent, self._select(), self._rng)
        for _ in range(self.options.max_tries):
            child = self.space.mutate(parent, self._rng)
            if not self.feasibility(child):
                continue
            if self._is_new(child):
                return child
            parent = child
        return None

    def _select(self) -> Architecture:
        """The winner of one tournament; the first drawn wins a tie."""
        fitness = self._ranked()
        size = min(self.options.sample_size, len(self._population))
        drawn = self._rng.sample(range(len(self._population)), size)
        return self._population[min(drawn, key=fitness.__getitem__)].architecture

    def _ranked(self) -> list[tuple[float, float]]:
        """For each member a pair that is smaller the fitter it is; kept until the population changes."""
        if self._fitness is None:
            values = np.array([member.values for member in self._population], dtype=np.float64)
            minimise = [objective.minimise for objective in self.objectives]
            if len(minimise) == 1:
                costs = values[:, 0] if minimise[0] else -values[:, 0]
                self._fitness = [(cost, 0.0) for cost in costs.tolist()]
            else:
                ranks = non_dominated_ranks(values, minimise)
                crowding = crowding_distance(values, ranks)
                self._fitness = list(zip(ranks.tolist(), (-crowding).tolist(), strict=True))
        return self._fitness

    def _state(self) -> dict[str, Any]:
        return {"population": [[str(member.architecture), member.values] for member in self._population]}

    def _load_state(self, state: Mapping[str, Any]) -> None:
        members = [_Member(self.space.parse(text), list(values)) for text, values in state["population"]]
        self._population = deque(members, maxlen=self.options.population)
        self._fitness = None
