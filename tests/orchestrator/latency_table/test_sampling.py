"""Architectures to time, spread over the sizes; and how predictions agree with measurements."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from orchestrator.latency_table.agreement import agreement
from orchestrator.latency_table.sampling import spread_architectures
from orchestrator.testing.toy_space import ToySpace
from spaces.nas_bert.space import NasBertSpace
from tests.spaces.microscopic import make_space


def test_sizes_reach_from_the_smallest_to_about_the_largest():
    space = NasBertSpace.from_options({})
    drawn = spread_architectures(space, 20, "seed", 64)
    sizes = [space.cost(architecture, 64).flops for architecture in drawn]
    assert len(set(drawn)) == 20
    assert all(space.contains(architecture) for architecture in drawn)
    smallest = space.cost(space.smallest(), 64).flops
    largest = 24 * space.cost(space.parse("E512|512:F|512:F|512:F|512:F"), 64).flops / 4
    assert min(sizes) < 2 * smallest
    assert max(sizes) > 0.7 * largest
    roots = [size**0.5 for size in sorted(sizes)]
    gaps = [after - before for before, after in pairwise(roots)]
    assert max(gaps) < 0.2 * (roots[-1] - roots[0])


def test_depths_widths_and_operations_are_mixed():
    space = NasBertSpace.from_options({})
    drawn = spread_architectures(space, 30, "seed", 64)
    depths = [sum(len(block.operations) for block in architecture.blocks) for architecture in drawn]
    assert min(depths) <= 8
    assert max(depths) >= 20
    assert {block.hidden_size for architecture in drawn for block in architecture.blocks} == {128, 192, 256, 384, 512}
    used = {operation for architecture in drawn for block in architecture.blocks for operation in block.operations}
    assert used == {"M", "F", "S3", "S5", "S7"}


def test_the_same_seed_draws_the_same_and_another_others():
    space = make_space()
    assert spread_architectures(space, 8, "a", 12) == spread_architectures(space, 8, "a", 12)
    assert spread_architectures(space, 8, "a", 12) != spread_architectures(space, 8, "b", 12)


def test_excluded_architectures_are_not_drawn_again():
    space = make_space()
    first = spread_architectures(space, 12, "a", 12)
    second = spread_architectures(space, 12, "a", 12, excluded=first)
    assert len(second) == 12
    assert not set(first) & set(second)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_can_be_asked_for(count):
    assert len(spread_architectures(make_space(), count, "a", 12)) == count


def test_small_spaces_of_others_give_what_they_have():
    space = ToySpace(layers=1, widths=(4, 8))
    drawn = spread_architectures(space, 10, "a", 12)
    assert 1 <= len(drawn) == len(set(drawn)) <= space.cardinality()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=2, max_size=30))
def test_kendall_tau_is_scipys(pairs):
    predicted, measured = ([float(pair[side]) for pair in pairs] for side in (0, 1))
    expected = kendalltau(predicted, measured).statistic
    found = agreement(predicted, measured).kendall_tau
    assert (math.isnan(expected) and math.isnan(found)) or found == pytest.approx(expected)


def test_error_and_bias():
    found = agreement([1.1, 1.8, 4.4], [1.0, 2.0, 4.0])
    assert found.mape == pytest.approx(0.1)
    assert found.bias == pytest.approx(0.1 / 3)
    assert (found.kendall_tau, found.architectures) == (1.0, 3)
    order = random.Random(1).sample(range(3), 3)
    shuffled = agreement([[1.1, 1.8, 4.4][i] for i in order], [[1.0, 2.0, 4.0][i] for i in order])
    assert shuffled.mape == pytest.approx(found.mape)


@pytest.mark.parametrize(("predicted", "measured"), [([1.0], [1.0]), ([1.0, 2.0], [1.0, 2.0, 3.0])])
def test_what_cannot_be_compared_is_refused(predicted, measured):
    with pytest.raises(ValueError, match="expected equally many"):
        agreement(predicted, measured)
