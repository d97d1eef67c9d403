"""NSGA-II (Deb et al. 2002) with the space's own mutation and crossover."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from orchestrator.evaluation.evaluator import Measurement
from orchestrator.strategies.base import StrategyOptions
from orchestrator.strategies.breeding import BreedingStrategy, Fitness, Member, fitness, fittest
from orchestrator.strategies.drawing import Sampling
from spaces.architecture import Architecture


class NSGA2Options(StrategyOptions):
    """Options of :class:`NSGA2`.

    Attributes:
        population: parents that survive a generation, random candidates that are asked first, and (unless
            ``offspring`` says otherwise) children of a generation.
        offspring: children after whose measurement survivors are chosen; ``null``: as many as ``population``.
        crossover_probability: how often a child gets genes from two parents.
        mutation_probability: how often a crossed child is mutated as well; one that was not crossed always is.
        tournament_size: members drawn for each tournament.
    """

    sampling: Sampling = "sizes"
    population: int = Field(default=20, ge=2)
    offspring: int | None = Field(default=None, ge=1)
    crossover_probability: float = Field(default=0.9, ge=0.0, le=1.0)
    mutation_probability: float = Field(default=0.9, ge=0.0, le=1.0)
    tournament_size: int = Field(default=2, ge=1)


class NSGA2(BreedingStrategy):
    """Elitist evolution: parents and children compete by constraint domination, rank and crowding.

    Nothing waits for the end of a generation: while its last children are being measured, the next ones are asked of
    the same parents; survivors are chosen when ``offspring`` measurements have arrived, failed ones included. Children
    that break a constraint are never asked, but the least offending of them compete as parents, so that a search which
    begins far from the feasible region is led towards it.
    """

    name: ClassVar[str] = "nsga2"
    options_class: ClassVar[type[StrategyOptions]] = NSGA2Options

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._parents: list[Member] = []
        self._children: list[Member] = []
        self._infeasible: dict[Architecture, Member] = {}
        self._arrived = 0
        self._fitness: list[Fitness] | None = None

    @property
    def _pool(self) -> list[Member]:
        """Who can be a parent now; before the first generation is complete, whoever has been measured."""
        return self._parents or self._children

    def _propose(self) -> Architecture | None:
        if len(self._pending) + len(self._told) < self.options.population or not self._pool:
            return self._explore()
        child = self._select()
        if self._rng.random() < self.options.crossover_probability:
            child = self._cross(child, self._select())
            mutates = self._rng.random() < self.options.mutation_probability
            if not mutates and self._is_new(child) and self.feasibility(child):
                return child
        return self._descend(child, self._mutate, self._remember_infeasible) or self._explore()

    def _observe(self, measurement: Measurement) -> None:
        self._arrived += 1
        if measurement.objectives is not None:
            self._children.append(self._member(measurement))
            if not self._parents:
                self._fitness = None
        generation = self.options.population if not self._parents else self.options.offspring or self.options.population
        if self._arrived >= generation and (self._parents or self._children):
            candidates = [*self._parents, *self._children]
            candidates += [one for one in self._infeasible.values() if one not in self._parents]
            self._parents = fittest(candidates, self.objectives, self.options.population)
            self._children, self._infeasible, self._arrived = [], {}, 0
            self._fitness = None

    def _remember_infeasible(self, child: Architecture) -> None:
        """Keep the least offending children that cannot be asked, as many as there are parents."""
        if child in self._infeasible:
            return
        self._infeasible[child] = Member(child, None, self.feasibility.violation(child))
        if len(self._infeasible) > self.options.population:
            worst = max(self._infeasible.values(), key=lambda member: member.violation)
            del self._infeasible[worst.architecture]

    def _select(self) -> Architecture:
        """The winner of one tournament; the first drawn wins a tie."""
        pool = self._pool
        if self._fitness is None:
            self._fitness = fitness(pool, self.objectives)
        drawn = [self._rng.randrange(len(pool)) for _ in range(self.options.tournament_size)]
        return pool[min(drawn, key=self._fitness.__getitem__)].architecture

    def _state(self) -> dict[str, Any]:
        return {
            "parents": self._saved(self._parents),
            "children": self._saved(self._children),
            "infeasible": self._saved(self._infeasible.values()),
            "arrived": self._arrived,
        }

    def _load_state(self, state: Mapping[str, Any]) -> None:
        self._parents = self._restored(state["parents"])
        self._children = self._restored(state["children"])
        self._infeasible = {member.architecture: member for member in self._restored(state["infeasible"])}
        self._arrived = int(state["arrived"])
        self._fitness = None
