"""How a strategy draws what descends from nobody: over architectures, over decisions, or over sizes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.objectives import CheapObjectives, Constraint, Objective
from spaces.architecture import Architecture
from spaces.space import SearchSpace

Sampling = Literal["architectures", "decisions", "sizes"]
"""How random candidates are drawn. ``architectures``: by the space's own law (all architectures alike, in NAS-BERT's
space, so nearly all of them are deep: the long ones are the many). ``decisions``: one decision after the other, each
uniformly, depths before what they are made of, so that all depths are alike. ``sizes``: evenly from the smallest
network to the largest, by the first objective that is known before an evaluation; where none is, by the space's law."""

RANGE_SAMPLES = 200
"""Random architectures whose sizes say how far the range of sizes goes."""

CROSSING = 0.2
"""How often a step towards a size crosses with the architecture at the range's end instead of mutating."""

STEPS = 60
"""Steps after which an architecture that is not of the wanted size is taken as it is."""

CLOSE = 1 / 32
"""Share of the range of sizes by which a network may miss the wanted size."""


@dataclass(frozen=True)
class SizeRange:
    """How far a space goes in one cheap objective, the size.

    Attributes:
        low: the least size.
        high: the largest size, or the constraint on it where that is lower.
        smallest: an architecture of the least size.
        largest: an architecture of the largest size, which need not keep the constraint.
    """

    low: float
    high: float
    smallest: Architecture
    largest: Architecture

    @classmethod
    def of(
        cls, space: SearchSpace[Any], cheap: CheapObjectives, by: str, constraints: Sequence[Constraint], seed: int
    ) -> SizeRange:
        """Look at a space's smallest, well-known and random architectures.

        Args:
            space: to look at.
            cheap: computes the size.
            by: name of the cheap objective that is the size.
            constraints: those on the size end the range.
            seed: of the random architectures; the range is a function of the arguments alone.
        """
        rng = random.Random(f"{seed}/sizes")
        known = [space.smallest(), *space.anchors(), *(space.sample(rng) for _ in range(RANGE_SAMPLES))]
        sizes = [cheap.values(one)[by] for one in known]
        low, high = min(sizes), max(sizes)
        smallest, largest = known[sizes.index(low)], known[sizes.index(high)]
        return cls(low, min([high, *(one.maximum for one in constraints if one.objective == by)]), smallest, largest)


@dataclass(frozen=True)
class SizeDrawer:
    """Draws random architectures of wanted sizes.

    Attributes:
        space: to draw from.
        cheap: computes the size.
        by: name of the cheap objective that is the size.
        range: the sizes that are wanted.
    """

    space: SearchSpace[Any]
    cheap: CheapObjectives
    by: str
    range: SizeRange

    def draw(self, number: int, rng: random.Random) -> Architecture:
        """An architecture of the size that the ``number``-th draw (from 0) is due.

        Decisions are drawn, then varied for as long as that does not lead away from the wanted size: by mutation, and
        now and then by crossing with the smallest or the largest architecture, which a mutation is far from. The sizes
        of any number of first draws are spread evenly over the range: both ends first, then the middle of the widest
        gap.
        """
        extent = self.range.high - self.range.low
        wanted = self.range.low + place_of(number) * extent
        current: Architecture = self.space.decide(rng)
        missed = self._size(current) - wanted
        for _ in range(STEPS):
            if abs(missed) <= CLOSE * extent:
                break
            if rng.random() < CROSSING:
                end = self.range.smallest if missed > 0 else self.range.largest
                neighbour = self.space.crossover(current, end, rng)
            else:
                neighbour = self.space.mutate(current, rng)
            neighbour_missed = self._size(neighbour) - wanted
            if abs(neighbour_missed) <= abs(missed):
                current, missed = neighbour, neighbour_missed
        return current

    def _size(self, architecture: Architecture) -> float:
        return self.cheap.values(architecture)[self.by]


def place_of(number: int) -> float:
    """The ``number``-th place (from 0) of a sequence that fills the range from 0 to 1 evenly, however long it is.

    0, 1, then van der Corput's sequence: 1/2, 1/4, 3/4, 1/8, ...
    """
    if number < 2:
        return float(number)
    number, place, share = number - 1, 0.0, 0.5
    while number:
        place += share * (number % 2)
        number, share = number // 2, share / 2
    return place


def size_objective(objectives: Sequence[Objective], cheap: CheapObjectives) -> str | None:
    """The first of the objectives that is known before an evaluation and minimised; ``None`` if there is none."""
    return next((one.name for one in objectives if one.name in cheap.names and one.minimise), None)
