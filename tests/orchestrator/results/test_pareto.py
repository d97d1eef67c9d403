"""Fronts against their definition, by brute force."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from orchestrator.results.pareto import crowding_distance, dominance_numbers, non_dominated, non_dominated_ranks

# Few distinct values, so that ties and copies are the rule.
_VALUES = st.sampled_from([0.0, -0.0, 1.0, 2.0, 3.5, -1.0, float("inf"), float("-inf"), float("nan")])


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, list[bool]]:
    rows = draw(st.integers(0, 14))
    objectives = draw(st.integers(1, 5))
    values = draw(arrays(np.float64, (rows, objectives), elements=_VALUES))
    return values, draw(st.lists(st.booleans(), min_size=objectives, max_size=objectives))


def dominates(first: np.ndarray, second: np.ndarray, minimise: list[bool]) -> bool:
    better = [a < b if smaller else a > b for a, b, smaller in zip(first, second, minimise, strict=True)]
    worse = [a > b if smaller else a < b for a, b, smaller in zip(first, second, minimise, strict=True)]
    return any(better) and not any(worse)


def brute_force_front(values: np.ndarray, minimise: list[bool]) -> list[bool]:
    complete = [not np.isnan(row).any() for row in values]
    return [
        complete[i]
        and not any(complete[j] and dominates(values[j], values[i], minimise) for j in range(len(values)) if j != i)
        for i in range(len(values))
    ]


@given(problems())
def test_front_is_what_the_definition_says(problem):
    values, minimise = problem
    assert non_dominated(values, minimise).tolist() == brute_force_front(values, minimise)


@given(problems())
def test_ranks_peel_front_after_front(problem):
    values, minimise = problem
    ranks = non_dominated_ranks(values, minimise)
    remaining = np.flatnonzero(~np.isnan(values).any(axis=1))
    expected = 0
    while len(remaining):
        front = np.array(brute_force_front(values[remaining], minimise))
        assert (ranks[remaining[front]] == expected).all()
        remaining = remaining[~front]
        expected += 1
    assert (ranks[np.isnan(values).any(axis=1)] == expected).all()


@given(problems())
def test_dominance_numbers_count_who_is_better(problem):
    values, minimise = problem
    complete = ~np.isnan(values).any(axis=1)
    expected = [
        sum(dominates(other, row, minimise) for other in values[complete]) if fine else complete.sum()
        for row, fine in zip(values, complete, strict=True)
    ]
    assert dominance_numbers(values, minimise).tolist() == expected


def test_dominance_numbers_of_more_rows_than_are_compared_at_once():
    values = np.random.default_rng(2).permutation(2500).astype(float)[:, None].repeat(2, axis=1)
    assert dominance_numbers(values).tolist() == values[:, 0].tolist()


def test_random_reals_agree_with_brute_force_in_three_and_four_objectives():
    generator = np.random.default_rng(5)
    for objectives in (3, 4):
        values = generator.normal(size=(150, objectives))
        assert non_dominated(values).tolist() == brute_force_front(values, [True] * objectives)


def test_more_rows_than_are_compared_at_once():
    generator = np.random.default_rng(6)
    values = generator.dirichlet(np.ones(3), size=5000)  # a front of its own, ...
    values[::2] += generator.exponential(0.1, size=(2500, 3))  # ... half of which is pushed behind
    expected = [bool((values <= row).all(axis=1).sum() == 1) for row in values]
    assert non_dominated(values).tolist() == expected
    assert 2000 < sum(expected) < 4000


@pytest.mark.parametrize("objectives", [2, 3])
def test_a_hundred_thousand_rows_take_a_moment_even_if_all_are_on_the_front(objectives):
    generator = np.random.default_rng(1)
    first = generator.permutation(100_000).astype(float)
    values = np.stack([first, -first, *(first for _ in range(objectives - 2))], axis=1)
    started = time.process_time()
    assert non_dominated(values).all()
    assert time.process_time() - started < 5


def test_crowding_distance_of_a_known_front():
    values = np.array([[0.0, 4.0], [1.0, 3.0], [2.0, 1.0], [4.0, 0.0]])
    inf = float("inf")
    assert crowding_distance(values).tolist() == [inf, 2 / 4 + 3 / 4, 3 / 4 + 3 / 4, inf]


def test_crowding_distance_looks_at_each_front_alone_and_gives_failed_rows_nothing():
    values = np.array([[0.0, 4.0], [1.0, 3.0], [4.0, 0.0], [5.0, 5.0], [np.nan, 0.0], [np.inf, 0.0]])
    distances = crowding_distance(values, non_dominated_ranks(values[:, :2]))
    inf = float("inf")
    assert distances.tolist() == [inf, 2.0, inf, inf, 0.0, 0.0]


def test_equal_rows_have_no_extent_to_divide_by():
    assert crowding_distance(np.ones((3, 2))).tolist() == [float("inf"), 0.0, float("inf")]


@pytest.mark.parametrize("function", [non_dominated, non_dominated_ranks, dominance_numbers])
def test_wrong_shapes_are_refused(function):
    with pytest.raises(ValueError, match=r"\[rows, objectives\]"):
        function(np.zeros(3))
    with pytest.raises(ValueError, match="2 flags"):
        function(np.zeros((3, 3)), [True, False])


def test_wrong_ranks_are_refused():
    with pytest.raises(ValueError, match="one rank for each of the 3 rows"):
        crowding_distance(np.zeros((3, 2)), [0, 1])
