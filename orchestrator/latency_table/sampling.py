"""Random architectures that are spread over the range of sizes, to time as whole networks.

A uniform sample of a large space is of little use here: four of five blocks of NAS-BERT's space have all their layers.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any

import numpy as np

from spaces.space import ArchitectureT, SearchSpace

_WALK_STEPS = 300
"""Mutations that are tried on the way to a size."""
_CLIMB_STEPS = 2_000
"""Mutations that are tried on the way to the largest size."""
_CLOSE = 0.03
"""A walk ends within this share of its size."""
_TRIES = 50
"""Steps away from an architecture that was drawn before, until its size is given up."""


def spread_architectures(
    space: SearchSpace[ArchitectureT],
    count: int,
    seed: str,
    sequence_length: int,
    excluded: Collection[ArchitectureT] = (),
) -> list[ArchitectureT]:
    """Random architectures from the smallest to about the largest.

    The sizes (FLOPs) are spaced evenly in their square root, between even steps in milliseconds, which leave hardly any
    small network, and even ratios, which leave hardly any large one. Each architecture begins with every decision of
    the space drawn uniformly (so widths and depths mix) and is mutated towards its size.

    Args:
        space: to draw from.
        count: architectures; fewer come back only where the space has fewer or repeats itself.
        seed: of the draw; the same seed gives the same architectures.
        sequence_length: tokens behind the FLOPs.
        excluded: architectures that are not to be drawn.
    """
    rng = random.Random(seed)
    least = _size(space, space.smallest(), sequence_length)
    most = _size(space, _towards(space, space.smallest(), float("inf"), sequence_length, rng), sequence_length)
    found: dict[ArchitectureT, None] = {}
    for target in np.linspace(least**0.5, most**0.5, count) ** 2 if count > 1 else [most / 4] * count:
        near = _towards(space, _uniform_choices(space, rng), float(target), sequence_length, rng)
        for _ in range(_TRIES):
            if near not in found and near not in excluded:
                found[near] = None
                break
            near = space.mutate(near, rng)  # there is only one smallest and one largest
    return list(found)


def _size(space: SearchSpace[Any], architecture: Any, sequence_length: int) -> int:
    return space.cost(architecture, sequence_length).flops


def _uniform_choices(space: SearchSpace[ArchitectureT], rng: random.Random) -> ArchitectureT:
    """An architecture whose every decision is drawn uniformly."""
    chosen: dict[str, str] = {}
    for decision in space.decisions():
        if decision.is_active(chosen):
            chosen[decision.name] = rng.choice(decision.choices)
    architecture = space.from_decisions(chosen)
    return architecture if space.contains(architecture) else space.sample(rng)


def _towards(
    space: SearchSpace[ArchitectureT], start: ArchitectureT, target: float, sequence_length: int, rng: random.Random
) -> ArchitectureT:
    """Walk by mutations that come closer to a size (infinite: ever larger)."""
    climbs = target == float("inf")

    def miss(candidate: ArchitectureT) -> float:
        size = _size(space, candidate, sequence_length)
        return 1 / (1 + size) if climbs else abs(size - target) / target

    current, distance = start, miss(start)
    for _ in range(_CLIMB_STEPS if climbs else _WALK_STEPS):
        if distance <= _CLOSE and not climbs:
            break
        neighbour = space.mutate(current, rng)
        if (moved := miss(neighbour)) < distance:
            current, distance = neighbour, moved
    return current
