"""A made-up loss of every network of a small space, rugged enough that no simple model finds its optimum at once."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, product
from typing import Any

from spaces.nas_bert.space import NasBertSpace

OPTIONS: dict[str, Any] = {
    "preset": "paper",
    "num_blocks": 3,
    "layers_per_block": 2,
    "operations": ["M", "F", "S3", "S5", "S7"],
    "hidden_sizes": [192],
    "embedding_sizes": [64],
}
"""Three blocks of at most two layers, five operations: 30³ networks."""

OF_ONE, OF_TWO, OF_ALL = 1.0, 1.0, 0.7
"""Standard deviation of what a layer adds to the loss, two neighbours, and the whole network (its noise)."""


@dataclass(frozen=True)
class RuggedTable:
    """A space whose losses are all known.

    Attributes:
        space: its architectures are the table's keys.
        losses: by architecture, all different.
        best: the architecture with the lowest.
    """

    space: NasBertSpace
    losses: Mapping[Any, float]
    best: Any


def rugged_table(seed: int) -> RuggedTable:
    """A loss for each of 27,000 networks: what each layer adds, each pair of neighbours, and chance.

    Equal seeds give equal tables, on every machine.
    """
    space = NasBertSpace.from_options(OPTIONS)
    losses = {network: _loss(network, seed) for network in _networks(space)}
    return RuggedTable(space, losses, min(losses, key=losses.__getitem__))


def _networks(space: NasBertSpace) -> Iterator[Any]:
    (size,) = space.embedding_choices()
    for chosen in product(list(space.enumerate_blocks()), repeat=space.num_blocks):
        yield space.assemble(size, chosen)


def _loss(network: Any, seed: int) -> float:
    """Terms are drawn from generators that are seeded by what they belong to."""
    places = []
    for number, block in enumerate(network.blocks):
        absent = [""] * (OPTIONS["layers_per_block"] - len(block.operations))
        places += [f"{number}.{place}:{name}" for place, name in enumerate([*block.operations, *absent])]
    return (
        sum(_drawn(seed, place, OF_ONE) for place in places)
        + sum(_drawn(seed, "/".join(pair), OF_TWO) for pair in pairwise(places))
        + random.Random(f"{seed}/{network}").gauss(0.0, OF_ALL)
    )


@cache
def _drawn(seed: int, key: str, deviation: float) -> float:
    return random.Random(f"{seed}/{key}").gauss(0.0, deviation)
