"""Regularised (aging) evolution (Real et al. 2019), for one objective or several."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from orchestrator.evaluation.evaluator import Measurement
from orchestrator.strategies.base import StrategyOptions
from orchestrator.strategies.breeding import BreedingStrategy, Fitness, Member, fitness
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


class RegularisedEvolution(BreedingStrategy):
    """Tournaments among a population whose oldest member dies with every birth.

    Steady state: a child is asked from whatever population has been told so far, so nothing waits for a generation.
    With several objectives a tournament is won by the lower non-dominated rank, then by the larger crowding distance,
    both within the whole population; with one by the value. Failed candidates never join the population.

    Its start is uniform over the space, as in the paper: within a budget, that gave lower losses at the limit than
    ``sampling: sizes``, which finds the small end of the front far sooner.
    """

    name: ClassVar[str] = "regularised_evolution"
    options_class: ClassVar[type[StrategyOptions]] = RegularisedEvolutionOptions

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._population: deque[Member] = deque(maxlen=self.options.population)
        self._fitness: list[Fitness] | None = None

    def _propose(self) -> Architecture | None:
        if len(self._pending) + len(self._told) < self.options.population or not self._population:
            return self._explore()
        parent = self._select()
        if self._rng.random() < self.options.crossover_probability:
            parent = self._cross(parent, self._select())
        return self._descend(parent, self._mutate) or self._explore()

    def _observe(self, measurement: Measurement) -> None:
        if measurement.objectives is None:
            return
        self._population.append(self._member(measurement))
        self._fitness = None

    def _select(self) -> Architecture:
        """The winner of one tournament; the first drawn wins a tie."""
        if self._fitness is None:
            self._fitness = fitness(self._population, self.objectives)
        size = min(self.options.sample_size, len(self._population))
        drawn = self._rng.sample(range(len(self._population)), size)
        return self._population[min(drawn, key=self._fitness.__getitem__)].architecture

    def _state(self) -> dict[str, Any]:
        return {"population": self._saved(self._population)}

    def _load_state(self, state: Mapping[str, Any]) -> None:
        self._population = deque(self._restored(state["population"]), maxlen=self.options.population)
        self._fitness = None
