from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.results.hypervolume import hypervolume, hypervolume_curve


def by_inclusion_and_exclusion(points, corner) -> float:
    """The union of the boxes between each point and the corner, by the sums of all their intersections."""
    total = 0.0
    for size in range(1, len(points) + 1):
        for chosen in combinations(points, size):
            box = np.clip(corner - np.max(chosen, axis=0), 0, None).prod()
            total += (-1) ** (size + 1) * box
    return total


@st.composite
def points(draw: st.DrawFn) -> np.ndarray:
    objectives = draw(st.integers(1, 4))
    coordinate = st.integers(0, 12).map(lambda number: number / 10)  # ties, and some beyond the corner
    return np.array(
        draw(st.lists(st.lists(coordinate, min_size=objectives, max_size=objectives), min_size=1, max_size=6))
    )


@given(points())
def test_is_the_union_of_the_boxes(values):
    corner = np.ones(values.shape[1])
    assert hypervolume(values, corner) == pytest.approx(by_inclusion_and_exclusion(values, corner), abs=1e-12)


@given(points())
def test_the_curve_is_that_of_every_beginning(values):
    corner = np.ones(values.shape[1])
    expected = [hypervolume(values[: count + 1], corner) for count in range(len(values))]
    np.testing.assert_allclose(hypervolume_curve(values, corner), expected, atol=1e-12)


@given(points())
def test_directions_are_signs(values):
    flags = [index % 2 == 0 for index in range(values.shape[1])]
    signs = np.where(flags, 1.0, -1.0)
    corner = np.ones(values.shape[1])
    assert hypervolume(values * signs, corner * signs, flags) == pytest.approx(hypervolume(values, corner), abs=1e-12)


def test_a_large_front_agrees_with_sampling():
    rng = np.random.default_rng(1)
    values = rng.random((60, 3))
    samples = rng.random((40_000, 3))
    share = (values[None] <= samples[:, None]).all(axis=2).any(axis=1).mean()
    assert hypervolume(values, np.ones(3)) == pytest.approx(share, abs=0.01)


def test_rows_that_failed_add_nothing():
    assert hypervolume([[np.nan, 0.0], [0.5, 0.5]], [1, 1]) == 0.25
    assert hypervolume_curve([[0.5, 0.5], [np.nan, 0.0], [0.5, 0.5]], [1, 1]).tolist() == [0.25] * 3
    assert hypervolume(np.empty((0, 2)), [1, 1]) == 0.0


def test_shapes_have_to_fit():
    with pytest.raises(ValueError, match="expected"):
        hypervolume([[1.0, 2.0]], [1.0])
