from __future__ import annotations

import random

import numpy as np
import pytest

from orchestrator.size_sampling import spread_over_sizes
from orchestrator.testing.toy_space import ToySpace
from spaces.nas_bert.space import NasBertSpace
from tests.spaces.microscopic import make_space


@pytest.fixture(scope="module")
def space() -> NasBertSpace:
    return make_space()


def sizes(space: NasBertSpace, count: int = 8, **options: object) -> np.ndarray:
    smallest, largest = space.cost(space.smallest()).encoder_parameters, 60_000
    drawn = spread_over_sizes(space, count, smallest, largest, random.Random(1), **options)  # type: ignore[arg-type]
    assert len(set(drawn)) == count
    assert all(space.contains(architecture) for architecture in drawn)
    return np.array([space.cost(architecture).encoder_parameters for architecture in drawn])


def test_sizes_are_spread_evenly_from_the_smallest_on(space: NasBertSpace) -> None:
    found = np.log(sizes(space))
    wanted = np.linspace(np.log(space.cost(space.smallest()).encoder_parameters), np.log(60_000), 8)
    assert found == pytest.approx(wanted, abs=0.3)
    assert (np.diff(found) >= 0).all()


def test_only_the_living_are_drawn(space: NasBertSpace) -> None:
    alive = np.zeros((space.num_blocks, space.block_cardinality()), dtype=bool)
    alive[:, ::7] = True
    drawn = spread_over_sizes(space, 6, 1_000, 60_000, random.Random(1), list(alive))
    for architecture in drawn:
        assert all(alive[index, space.block_index(block)] for index, block in enumerate(architecture.blocks))  # type: ignore[attr-defined]


def test_a_space_without_blocks_is_sampled() -> None:
    toy = ToySpace()
    drawn = spread_over_sizes(toy, 5, 1, 10**6, random.Random(1))
    assert len(set(drawn)) == 5
