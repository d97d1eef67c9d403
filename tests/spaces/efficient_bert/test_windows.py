"""Choices within a window are counted and drawn exactly."""

from __future__ import annotations

import random
from collections import Counter
from itertools import product
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.efficient_bert.windows import WindowedChoices

BLOCK = st.dictionaries(st.sampled_from("abcd"), st.tuples(st.integers(0, 9), st.integers(1, 3)), min_size=1)
BLOCKS = st.lists(BLOCK, min_size=1, max_size=4)
BOUND = st.none() | st.integers(0, 30)


def ways_within(blocks, low, high):
    """Every way within the window, with its weight, one by one."""
    ways = {}
    for way in product(*blocks):
        amount = sum(block[choice][0] for block, choice in zip(blocks, way, strict=True))
        if (low is None or low <= amount) and (high is None or amount <= high):
            ways[way] = (amount, prod(block[choice][1] for block, choice in zip(blocks, way, strict=True)))
    return ways


@settings(max_examples=60)
@given(BLOCKS, BOUND, BOUND, st.randoms(use_true_random=False))
def test_counts_are_those_of_all_ways(blocks, low, high, rng):
    choices, ways = WindowedChoices(blocks, low, high), ways_within(blocks, low, high)
    assert choices.count == sum(weight for _, weight in ways.values())
    if not ways:
        with pytest.raises(ValueError, match="no choices add up"):
            choices.sample(rng)
        with pytest.raises(ValueError, match="no choices add up"):
            choices.smallest()
        return
    assert choices.sample(rng) in ways
    assert ways[choices.smallest()][0] == min(amount for amount, _ in ways.values())


@settings(max_examples=60)
@given(BLOCKS, BOUND, BOUND)
def test_what_is_possible_can_be_completed(blocks, low, high):
    choices, ways = WindowedChoices(blocks, low, high), ways_within(blocks, low, high)
    for number in range(len(blocks)):
        met = set()
        for before in product(*blocks[:number]):
            spent = sum(block[choice][0] for block, choice in zip(blocks, before, strict=False))
            possible = choices.possible(number, spent)
            assert set(possible) == {way[number] for way in ways if way[:number] == before}
            met.add(possible)
        assert set(choices.possible_sets(number)) == {found for found in met if found}


def test_draws_follow_the_weights():
    """Chi-square of 7 ways: 6 degrees of freedom, so 0.1 % lie above 22.5."""
    blocks = [{"a": (1, 1), "b": (2, 3)}, {"a": (1, 2), "b": (3, 1), "c": (4, 1)}, {"a": (0, 1), "b": (2, 2)}]
    choices, ways = WindowedChoices(blocks, 4, 6), ways_within(blocks, 4, 6)
    rng = random.Random(0)
    drawn = Counter(choices.sample(rng) for _ in range(4_000))
    assert set(drawn) == set(ways)
    expected = {way: 4_000 * weight / choices.count for way, (_, weight) in ways.items()}
    assert len(ways) == 7
    assert sum((drawn[way] - expected[way]) ** 2 / expected[way] for way in ways) < 22.5
