"""Evolution that keeps the best of every size, so that one search serves many budgets."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from orchestrator.errors import UserError
from orchestrator.evaluation.evaluator import Measurement
from orchestrator.strategies.base import StrategyOptions, suggestion
from orchestrator.strategies.breeding import BreedingStrategy, Member, fittest
from orchestrator.strategies.drawing import Sampling, size_range
from spaces.architecture import Architecture


class BinnedEvolutionOptions(StrategyOptions):
    """Options of :class:`BinnedEvolution`.

    Attributes:
        by: the cheap objective that divides architectures into bins.
        bins: how many, of equal ratio between their ends.
        kept: members that a bin keeps, the fittest of all that came.
        start: random candidates that are asked first.
        crossover_probability: how often a child gets genes from two parents, of any bins, before it is mutated.
    """

    sampling: Sampling = "sizes"
    by: str = "encoder_parameters"
    bins: int = Field(default=10, ge=1)
    kept: int = Field(default=10, ge=1)
    start: int = Field(default=50, ge=1)
    crossover_probability: float = Field(default=0.25, ge=0.0, le=1.0)


class BinnedEvolution(BreedingStrategy):
    """Every bin of sizes has its own population; parents come from all bins alike.

    A child competes in the bin it falls into, which need not be its parents'. So the best small architectures are not
    crowded out by better large ones, and what a mutation finds on its way through the sizes is kept. The bins divide
    the range of the space's random and starting architectures, up to the constraint on the size where there is one.
    """

    name: ClassVar[str] = "binned_evolution"
    options_class: ClassVar[type[StrategyOptions]] = BinnedEvolutionOptions

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if self.options.by not in self.cheap.names:
            raise UserError(
                f"strategy {self.name}, option by: {self.options.by!r} is not known before an evaluation"
                f"{suggestion(self.options.by, self.cheap.names)}"
            )
        self._bins: list[list[Member]] = [[] for _ in range(self.options.bins)]
        self._edges: list[float] | None = None

    def bin_of(self, architecture: Architecture) -> int:
        """The bin, from 0 for the smallest, that an architecture belongs to."""
        if self._edges is None:
            self._edges = self._find_edges()
        return bisect_right(self._edges, self._size(architecture))

    def _size(self, architecture: Architecture) -> float:
        return self.cheap.values(architecture)[self.options.by]

    def _find_edges(self) -> list[float]:
        """What lies between neighbouring bins; a function of space, constraints and seed alone."""
        low, high = size_range(self.space, self.cheap, self.options.by, self.feasibility.constraints, self.seed)
        low = max(low, 1e-9)
        ratio = math.log(max(high / low, 1.0)) / self.options.bins
        return [low * math.exp(ratio * place) for place in range(1, self.options.bins)]

    def _propose(self) -> Architecture | None:
        filled = [members for members in self._bins if members]
        if len(self._pending) + len(self._told) < self.options.start or not filled:
            return self._explore()
        parent = self._rng.choice(self._rng.choice(filled)).architecture
        if self._rng.random() < self.options.crossover_probability:
            parent = self._cross(parent, self._rng.choice(self._rng.choice(filled)).architecture)
        return self._descend(parent, self._mutate) or self._explore()

    def _observe(self, measurement: Measurement) -> None:
        if measurement.objectives is None:
            return
        place = self.bin_of(measurement.architecture)
        members = [*self._bins[place], self._member(measurement)]
        self._bins[place] = fittest(members, self.objectives, self.options.kept)

    def _state(self) -> dict[str, Any]:
        return {"bins": [self._saved(members) for members in self._bins]}

    def _load_state(self, state: Mapping[str, Any]) -> None:
        self._bins = [self._restored(members) for members in state["bins"]]
