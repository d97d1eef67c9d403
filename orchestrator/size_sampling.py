"""Random architectures of chosen sizes, from the smallest to the largest alike."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spaces.architecture import Architecture
from spaces.space import BlockwiseSpace, SearchSpace

DRAWS = 3_000
"""Random networks that the wanted sizes are looked for among."""

LIKE_SIZE = 0.25
"""Block architectures whose sizes differ by at most this share are drawn alike for one size."""


def spread_over_sizes(
    space: SearchSpace[Any],
    count: int,
    smallest: int,
    largest: int,
    rng: random.Random,
    alive: Sequence[NDArray[np.bool_]] = (),
) -> list[Architecture]:
    """Random architectures whose encoder parameters are spread evenly, in their logarithm, over a range.

    A uniform sample of a space has hardly any small networks: most architectures have most of their layers. So blocks
    are drawn by size first, all blocks of a network of about the same share of the range.

    Args:
        space: to draw from.
        count: how many; fewer come back where the space is smaller.
        smallest: encoder parameters the range begins with.
        largest: encoder parameters it ends with.
        rng: of the draw.
        alive: for each block, which architectures may be drawn, in the order of ``enumerate_blocks``; none: all.

    Returns:
        Distinct architectures, the smallest first.
    """
    draw = _block_drawer(space, alive) if isinstance(space, BlockwiseSpace) else space.sample
    drawn = list(dict.fromkeys(draw(rng) for _ in range(DRAWS)))
    sizes = np.log([max(1, space.cost(architecture).encoder_parameters) for architecture in drawn])
    chosen: list[int] = []
    for target in np.linspace(np.log(max(1, smallest)), np.log(max(1, largest)), count):
        nearest = np.argsort(np.abs(sizes - target), kind="stable")
        place = next((int(place) for place in nearest if int(place) not in chosen), None)
        if place is not None:
            chosen.append(place)
    return [drawn[place] for place in sorted(chosen, key=lambda place: (sizes[place], str(drawn[place])))]


def _block_drawer(
    space: BlockwiseSpace[Any], alive: Sequence[NDArray[np.bool_]]
) -> Callable[[random.Random], Architecture]:
    """A function that draws a network whose blocks all have about the same place in the range of sizes."""
    logarithms = np.log(np.maximum(1, space.block_costs().parameters))
    everything = np.arange(len(logarithms))
    shelves = []
    for block in range(space.num_blocks):
        living = everything[alive[block]] if alive else everything
        order = living[np.argsort(logarithms[living], kind="stable")]
        shelves.append((order, logarithms[order]))

    def draw(rng: random.Random) -> Architecture:
        share = rng.random()
        blocks = []
        for order, ordered in shelves:
            place = min(1.0, max(0.0, share + rng.gauss(0.0, 0.1)))
            wanted = ordered[0] + place * (ordered[-1] - ordered[0])
            low, high = np.searchsorted(ordered, [wanted - LIKE_SIZE / 2, wanted + LIKE_SIZE / 2])
            if low == high:  # nobody is of about this size
                low = min(int(low), len(ordered) - 1)
                high = low + 1
            blocks.append(space.block_at(int(order[rng.randrange(int(low), int(high))])))
        architecture: Architecture = space.assemble(rng.choice(list(space.embedding_choices())), blocks)
        return architecture

    return draw
