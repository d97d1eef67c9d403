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

STEPS = 60
"""Mutations after which an architecture that is not of the wanted size is taken as it is."""

STARTS = 64
"""Random architectures of which the one nearest to the wanted size is varied where decisions lead nowhere near it."""

CLOSE = 1 / 32
"""Share of the range of sizes by which a network may miss the wanted size."""

FAR = 1 / 16
"""Share of the range of sizes from which on a network that misses the wanted size is looked for in another way."""


def size_range(
    space: SearchSpace[Any], cheap: CheapObjectives, by: str, constraints: Sequence[Constraint], seed: int
) -> tuple[float, float]:
    """The least and the largest size of a space's smallest, well-known and random architectures.

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
    return min(sizes), min([max(sizes), *(one.maximum for one in constraints if one.objective == by)])


@dataclass(frozen=True)
class SizeDrawer:
    """Draws random architectures of wanted sizes.

    Attributes:
        space: to draw from.
        cheap: computes the size.
        by: name of the cheap objective that is the size.
        low: the least size wanted.
        high: the largest size wanted.
    """

    space: SearchSpace[Any]
    cheap: CheapObjectives
    by: str
    low: float
    high: float

    def draw(self, number: int, rng: random.Random) -> Architecture:
        """An architecture of the size that the ``number``-th draw (from 0) is due, or about that.

        Decisions are drawn, then mutated for as long as that does not lead away from the wanted size. (Crossing with
        the smallest or the largest architecture would be a shorter way, to networks of very unequal blocks.) Where many
        decisions add up, that ends far from the wanted size, since nearly all that are drawn are of a middle one: then
        the same begins at the nearest of some random architectures, and at last of the well-known ones. The sizes of
        any number of first draws are spread evenly over the range: both ends first, then the middle of the widest gap.
        """
        wanted = self.low + place_of(number) * (self.high - self.low)
        found = self._walked(self.space.decide(rng), wanted, rng)
        if self._is_far(found, wanted):
            drawn = [self.space.sample(rng) for _ in range(STARTS)]
            found = self._walked(self._nearest([found, *drawn], wanted), wanted, rng)
        if self._is_far(found, wanted):
            known = [self.space.smallest(), *self.space.anchors()]
            found = self._walked(self._nearest([found, *known], wanted), wanted, rng)
        return found

    def _walked(self, start: Architecture, wanted: float, rng: random.Random) -> Architecture:
        """Where mutations lead from an architecture towards a size."""
        current, missed = start, abs(self._size(start) - wanted)
        for _ in range(STEPS):
            if missed <= CLOSE * (self.high - self.low):
                break
            neighbour = self.space.mutate(current, rng)
            neighbour_missed = abs(self._size(neighbour) - wanted)
            if neighbour_missed <= missed:
                current, missed = neighbour, neighbour_missed
        return current

    def _is_far(self, architecture: Architecture, wanted: float) -> bool:
        return abs(self._size(architecture) - wanted) > FAR * (self.high - self.low)

    def _nearest(self, architectures: Sequence[Architecture], wanted: float) -> Architecture:
        return min(architectures, key=lambda one: abs(self._size(one) - wanted))

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
