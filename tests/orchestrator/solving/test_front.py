from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import RunError, UserError
from orchestrator.results.pareto import non_dominated
from orchestrator.solving.exact import Solver
from orchestrator.solving.front import front, unbeaten_points
from tests.orchestrator.solving.large_tables import paper_tables, random_tables
from tests.orchestrator.solving.small_tables import front_by_brute_force, make_tables, values_of

OBJECTIVES = (
    ("loss", "parameters", "latency_ms"),
    ("loss", "latency_ms"),
    ("parameters", "latency_ms"),
    ("latency_ms", "parameters", "loss"),
    ("parameters",),
)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.sampled_from(OBJECTIVES), st.sampled_from([None, 2, 8]))
def test_it_equals_brute_force(seed, places, objectives, grid):
    tables = make_tables(seed, places=places, most=5, grid=grid)
    found = front(tables, objectives)
    points = map(tuple, values_of(tables, found.rows_KP, objectives).tolist())
    texts = [network.texts for network in tables.networks(found.rows_KP)]
    assert dict(zip(points, texts, strict=True)) == front_by_brute_force(tables, objectives)
    assert len(set(texts)) == len(texts)


def test_values_are_those_of_the_networks():
    found = front(make_tables(3, most=8))
    for number, values in enumerate(found.values_KD):
        network = found.network(number)
        assert values == pytest.approx([network.loss, network.costs["parameters"], network.costs["latency_ms"]])


@pytest.mark.parametrize("tables", [paper_tables(1, noise=0.03), random_tables(1)], ids=["paper", "random"])
def test_solving_for_a_budget_gives_a_point_of_the_large_front(tables):
    found = front(tables)
    solver = Solver(tables)
    for number in np.linspace(0, len(found) - 1, 7).astype(int):
        loss, parameters, latency = found.values_KD[number]
        best = solver.solve({"parameters": parameters, "latency_ms": latency}).networks[0]
        assert best.loss == loss


def test_a_front_beyond_the_bound_is_given_up_with_a_clear_message():
    with pytest.raises(RunError, match="more than 10 points"):
        front(random_tables(0, rows=500), largest=10)


def test_a_front_that_would_take_too_long_is_given_up_early():
    with pytest.raises(RunError, match=r"more than 5,000,000 pairs of partial networks \(PAIR_LIMIT\).*single budgets"):
        front(paper_tables(1, noise=0.0, blocks=3), most_pairs=5_000_000)
    with pytest.raises(RunError, match="more than 100 pairs"):
        front(random_tables(0, rows=500), most_pairs=100)


@pytest.mark.parametrize("grid", [20, 200, 10**6])
def test_many_points_are_sorted_out_as_few_are(grid):
    values = np.random.default_rng(grid).integers(0, grid, (3, 30_000)).astype(float)
    values[0] += np.maximum(0, 1.2 * grid - values[1] - values[2])  # so that many are on the front
    np.testing.assert_array_equal(unbeaten_points(values), non_dominated(values.T))


@pytest.mark.parametrize("objectives", [(), ("loss", "loss"), ("beauty",), ("loss", "parameters", "latency_ms", "x")])
def test_wrong_objectives_are_refused(objectives):
    with pytest.raises(UserError):
        front(make_tables(0), objectives)
