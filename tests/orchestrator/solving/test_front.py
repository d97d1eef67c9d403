from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import RunError, UserError
from orchestrator.results.pareto import non_dominated
from orchestrator.solving.exact import Solver
from orchestrator.solving.front import _columns, front
from orchestrator.solving.known import unbeaten_points
from orchestrator.solving.tables import Choices, NetworkTables
from tests.orchestrator.solving.large_tables import paper_tables, random_tables
from tests.orchestrator.solving.small_tables import (
    RESOURCES,
    all_networks,
    front_by_brute_force,
    make_tables,
    values_of,
)

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


@settings(max_examples=120, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(2, 5),
    st.sampled_from(OBJECTIVES),
    st.sampled_from([None, 2, 8]),
    st.dictionaries(st.sampled_from(RESOURCES), st.floats(0, 1), min_size=1),
)
def test_within_limits_it_equals_brute_force(seed, places, objectives, grid, shares):
    """Limits on objectives, on other costs, and on both."""
    tables = make_tables(seed, places=places, most=5, resources=3, grid=grid)
    costs = tables.totals(all_networks(tables))[1]
    limits = {}
    for name, share in shares.items():
        number = tables.resource(name)
        limits[name] = tables.in_units(number, float(np.quantile(costs[number], share, method="lower") - (share < 0.1)))
    expected = front_by_brute_force(tables, objectives, limits)
    found = front(tables, objectives, limits)
    points = list(map(tuple, values_of(tables, found.rows_KP, objectives).tolist()))
    assert sorted(points) == sorted(expected)
    networks = tables.networks(found.rows_KP)
    assert all(one.costs[name] <= limit + 1e-12 for one in networks for name, limit in limits.items())
    if limits.keys() <= set(objectives):
        assert dict(zip(points, (one.texts for one in networks), strict=True)) == expected


def test_a_cost_that_is_another_one_and_a_constant_needs_no_objective_of_its_own():
    tables = make_tables(5, most=8, resources=1)
    both = [
        Choices(one.texts, one.widths, one.losses, np.concatenate([one.costs, one.costs + 3 * (number == 0)], axis=1))
        for number, one in enumerate(tables.choices)
    ]
    twins = NetworkTables(
        ["encoder_parameters", "parameters"], both, [lambda before, after: (7, 7)] * len(tables.links)
    )
    whole = front(twins, ["loss", "parameters"])
    limit = float(np.median(whole.values_KD[:, 1]))
    measures, limits_D = _columns(twins, ["loss", "parameters"], {"encoder_parameters": limit - 3})
    assert (len(measures), limits_D[1]) == (2, limit)
    cut = front(twins, ["loss", "parameters"], {"encoder_parameters": limit - 3})
    np.testing.assert_array_equal(cut.values_KD, whole.values_KD[whole.values_KD[:, 1] <= limit])
    assert 0 < len(cut) < len(whole)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_what_rivals_beat_may_go_and_nothing_else(seed):
    tables = make_tables(seed, most=8)
    whole = front(tables).values_KD
    rivals = whole[::2] - np.array([0.0, 1.0, 0.0])
    kept = {tuple(values) for values in front(tables, rivals_KD=rivals).values_KD.tolist()}
    unbeaten = non_dominated(np.concatenate([whole, rivals]))[: len(whole)]
    assert (
        {tuple(values) for values in whole[unbeaten].tolist()} <= kept <= {tuple(values) for values in whole.tolist()}
    )


def test_many_points_of_four_objectives_lose_only_beaten_ones():
    values = np.random.default_rng(4).integers(0, 12, (4, 30_000)).astype(float)
    kept = unbeaten_points(values)
    front_of_all = non_dominated(values.T)
    assert (kept | ~front_of_all).all()
    assert kept.sum() < len(kept) / 2


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
