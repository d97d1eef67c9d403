"""HAT's evolutionary search (Wang et al. 2020): generations of so many parents, mutants and crossings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from orchestrator.evaluation.evaluator import Measurement
from orchestrator.strategies.base import StrategyOptions
from orchestrator.strategies.breeding import BreedingStrategy, Member, fittest, redraw
from orchestrator.strategies.drawing import Sampling
from spaces.architecture import Architecture


class HATEvolutionOptions(StrategyOptions):
    """Options of :class:`HATEvolution`; the defaults are HAT's.

    Attributes:
        population: random candidates of the first generation.
        parents: the fittest of all so far, which a generation descends from.
        mutations: children of a generation that are mutated parents.
        crossovers: children of a generation that take each gene from one of two parents.
        mutation_probability: of each decision of a mutated parent to be drawn anew.
    """

    sampling: Sampling = "sizes"
    population: int = Field(default=125, ge=1)
    parents: int = Field(default=25, ge=1)
    mutations: int = Field(default=50, ge=0)
    crossovers: int = Field(default=50, ge=0)
    mutation_probability: float = Field(default=0.3, gt=0.0, le=1.0)


class HATEvolution(BreedingStrategy):
    """Truncation selection: the best so far have mutants and crossings, which replace nobody but the worse.

    Candidates that break a constraint (HAT has one, on the latency) are drawn again. While the last children of a
    generation are being measured, further ones are asked of the same parents.
    """

    name: ClassVar[str] = "hat_evolution"
    options_class: ClassVar[type[StrategyOptions]] = HATEvolutionOptions

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._parents: list[Member] = []
        self._children: list[Member] = []
        self._arrived = 0
        self._bred = 0

    @property
    def _offspring(self) -> int:
        """Children of a generation."""
        return max(1, self.options.mutations + self.options.crossovers)

    def _propose(self) -> Architecture | None:
        if len(self._pending) + len(self._told) < self.options.population or not (self._parents or self._children):
            return self._explore()
        pool = self._parents or fittest(self._children, self.objectives, self.options.parents)
        crosses = self._bred % self._offspring >= self.options.mutations
        self._bred += 1
        child = self._crossed(pool) if crosses and len(pool) > 1 else None
        return child or self._descend(self._rng.choice(pool).architecture, self._redraw) or self._explore()

    def _crossed(self, pool: list[Member]) -> Architecture | None:
        """A new feasible crossing of two parents; ``None`` where they have no more."""
        for _ in range(self.options.max_tries):
            first, second = self._rng.sample(pool, 2)
            child = self._cross(first.architecture, second.architecture)
            if self.feasibility(child) and self._is_new(child):
                return child
        return None

    def _redraw(self, architecture: Architecture) -> Architecture:
        return redraw(self.space, architecture, self.options.mutation_probability, self._rng)

    def _observe(self, measurement: Measurement) -> None:
        self._arrived += 1
        if measurement.objectives is not None:
            self._children.append(self._member(measurement))
        due = self._offspring if self._parents else self.options.population
        if self._arrived >= due and self._children:
            self._parents = fittest([*self._parents, *self._children], self.objectives, self.options.parents)
            self._children, self._arrived, self._bred = [], 0, 0

    def _state(self) -> dict[str, Any]:
        return {
            "parents": self._saved(self._parents),
            "children": self._saved(self._children),
            "arrived": self._arrived,
            "bred": self._bred,
        }

    def _load_state(self, state: Mapping[str, Any]) -> None:
        self._parents, self._children = self._restored(state["parents"]), self._restored(state["children"])
        self._arrived, self._bred = int(state["arrived"]), int(state["bred"])
