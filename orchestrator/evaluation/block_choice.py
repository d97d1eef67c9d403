"""Which architectures of each block are scored."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spaces.architecture import Architecture
from spaces.space import BlockwiseSpace

Alive = Sequence[NDArray[np.bool_]]
"""For each block, whether each architecture in the order of ``enumerate_blocks`` survived shrinking."""


def choose_blocks(
    space: BlockwiseSpace[Any], selection: int | Literal["all", "alive"], seed: int, alive: Alive | None
) -> dict[int, list[Any]]:
    """The architectures of each block (from 0) that a selection means.

    Args:
        space: of the blocks.
        selection: ``all``; ``alive``, which is all where nothing was shrunk; or how many are drawn at random.
        seed: of the draw.
        alive: who survived shrinking, if anything was shrunk.
    """
    if isinstance(selection, int):
        return {
            index: _drawn(space, selection, random.Random(f"{seed}/block table/{index}"))
            for index in range(space.num_blocks)
        }
    everything = list(space.enumerate_blocks())
    if selection == "all" or alive is None:
        return dict.fromkeys(range(space.num_blocks), everything)
    return {index: [everything[place] for place in np.flatnonzero(alive[index])] for index in range(space.num_blocks)}


def count_chosen(
    space: BlockwiseSpace[Any], selection: int | Literal["all", "alive"], alive: Alive | None = None
) -> int:
    """How many architectures of all blocks together a selection means, without listing them."""
    if selection == "alive" and alive is not None:
        return sum(int(block.sum()) for block in alive)
    whole = space.block_cardinality()
    return space.num_blocks * (min(selection, whole) if isinstance(selection, int) else whole)


def choose_for_signal(
    space: BlockwiseSpace[Any], each: int, seed: int, alive: Alive | None
) -> dict[int, dict[int, list[Any]]]:
    """For each block, and each hidden size within it, up to ``each`` architectures drawn at random.

    Args:
        space: of the blocks.
        each: architectures of each hidden size; 0 gives none.
        seed: of the draw.
        alive: who survived shrinking: only they are drawn, if anything was shrunk.
    """
    if each == 0:
        return {}
    everything = list(space.enumerate_blocks())
    widths = np.array([space.block_width(block) for block in everything])
    chosen: dict[int, dict[int, list[Any]]] = {}
    for index in range(space.num_blocks):
        rng = random.Random(f"{seed}/signal/{index}")
        living = np.ones(len(everything), dtype=np.bool_) if alive is None else alive[index]
        chosen[index] = {}
        for width in sorted(set(widths.tolist())):
            places = np.flatnonzero((widths == width) & living).tolist()
            drawn = sorted(rng.sample(places, min(each, len(places))))
            if drawn:
                chosen[index][width] = [everything[place] for place in drawn]
    return chosen


def _drawn(space: BlockwiseSpace[Any], each: int, rng: random.Random) -> list[Any]:
    """Different architectures of one block; up to half of the space a larger number adds to those of a smaller."""
    whole = space.block_cardinality()
    if 2 * each >= whole:  # drawing until enough are different would take long
        return [space.block_at(place) for place in rng.sample(range(whole), min(each, whole))]
    different: dict[Architecture, None] = {}
    while len(different) < each:
        different[space.sample_block(rng)] = None
    return list(different)
