from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import RunError, UserError
from orchestrator.recipe.budgets import parse_latency_ms, parse_size
from orchestrator.solving import exact
from orchestrator.solving.exact import Solver
from orchestrator.solving.infeasibility import Impossible, ImpossibleBudgetError
from orchestrator.solving.tables import LATENCY_UNIT_MS, Choices, NetworkTables
from tests.orchestrator.solving.large_tables import highs_optimum, link_costs, random_tables
from tests.orchestrator.solving.small_tables import all_networks, best_by_brute_force, make_tables

LIMITS = st.fixed_dictionaries(
    {}, optional={"parameters": st.integers(5, 90), "latency_ms": st.integers(5, 90), "flops": st.integers(5, 90)}
)


def in_units(limits: dict[str, int]) -> dict[str, float]:
    return {name: limit * (LATENCY_UNIT_MS if name == "latency_ms" else 1) for name, limit in limits.items()}


@settings(max_examples=120, deadline=None)
@given(
    st.integers(0, 10_000), st.integers(2, 5), LIMITS, st.sampled_from([1, 2, 7, 500]), st.sampled_from([None, 2, 8])
)
def test_it_equals_brute_force(seed, places, limits, top, grid):
    tables = make_tables(seed, places=places, most=5, resources=3, grid=grid)
    expected = best_by_brute_force(tables, in_units(limits), top)
    try:
        found = [network.texts for network in Solver(tables).solve(in_units(limits), top).networks]
    except ImpossibleBudgetError:
        found = []
    assert found == expected


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(8, 60), st.integers(8, 60))
def test_an_impossible_budget_names_the_nearest_possible_one(seed, parameters, latency):
    tables = make_tables(seed)
    limits = in_units({"parameters": parameters, "latency_ms": latency})
    try:
        Solver(tables).solve(limits)
    except ImpossibleBudgetError as error:
        for impossible in error.limits:
            others = {} if not error.jointly else {n: v for n, v in limits.items() if n != impossible.resource}
            rows = all_networks(tables)
            costs = tables.totals(rows)[1]
            for number, limit in tables.limits(others).items():
                costs = costs[:, costs[number] <= limit]
            number = tables.resource(impossible.resource)
            assert impossible.nearest == pytest.approx(tables.in_units(number, costs[number].min()))
            # What it names is possible indeed.
            assert Solver(tables).solve({**others, impossible.resource: impossible.nearest}).networks


def test_both_kinds_of_impossible_are_told_apart():
    small_or_fast = Choices(["big", "small"], np.zeros(2, int), np.zeros(2), np.array([[10, 1], [1, 10]]))
    nothing = Choices(["E"], np.zeros(1, int), np.zeros(1), np.zeros((1, 2), int))
    solver = Solver(NetworkTables(["parameters", "flops"], [nothing, small_or_fast]))
    with pytest.raises(ImpossibleBudgetError, match=r"no network keeps the limit: FLOPs at most 0 \(the least is 1\)"):
        solver.solve({"parameters": 5, "flops": 0})
    with pytest.raises(
        ImpossibleBudgetError, match=r"no network keeps all of them.*raise parameters to 10 or FLOPs to 10"
    ):
        solver.solve({"parameters": 5, "flops": 5})
    assert solver.solve({"parameters": 5, "flops": 10}).networks[0].texts == ("E", "small")


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["parameters", "flops", "latency_ms"]), st.floats(1e-3, 1e11))
def test_the_nearest_limit_is_possible_as_it_is_printed(resource, nearest):
    nearest = nearest if resource == "latency_ms" else float(round(nearest))
    text = Impossible(resource, nearest / 2, nearest).least.replace("\u00a0", "").replace(",", "")
    if resource == "latency_ms" and nearest >= 1e-2:
        printed = parse_latency_ms(text) if nearest < 1e9 else nearest
    else:
        printed = nearest if resource == "latency_ms" or nearest < 1 else parse_size(text).count
    assert nearest * (1 - 1e-9) <= printed <= nearest * 1.02


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_the_least_of_a_cost_within_limits(seed, share):
    tables = make_tables(seed)
    costs = tables.totals(all_networks(tables))[1]
    limit = float(np.quantile(costs[1], share, method="lower"))
    found = Solver(tables).least("parameters", {"latency_ms": limit * LATENCY_UNIT_MS})
    assert found is not None
    assert found.costs["parameters"] == costs[0][costs[1] <= limit].min()


def test_one_solver_answers_budget_after_budget():
    tables = make_tables(11, most=8)
    solver = Solver(tables)
    losses = [solver.solve({"parameters": limit}).networks[0].loss for limit in (45, 60, 90)]
    assert losses == sorted(losses, reverse=True)
    assert solver.solve({"parameters": 45}).networks == Solver(tables).solve({"parameters": 45}).networks


def test_choices_without_a_loss_are_never_taken():
    table = Choices(["a", "b"], np.zeros(2, int), np.array([np.nan, 1.0]), np.zeros((2, 1), int))
    nothing = Choices(["E"], np.zeros(1, int), np.zeros(1), np.zeros((1, 1), int))
    found = Solver(NetworkTables(["parameters"], [nothing, table])).solve({}, top=5).networks
    assert [network.texts for network in found] == [("E", "b")]
    with pytest.raises(UserError, match="no choice with a loss"):
        NetworkTables(
            ["parameters"], [nothing, Choices(["a"], np.zeros(1, int), np.array([np.inf]), np.zeros((1, 1), int))]
        )


def tied_tables(rows: int, costs: int) -> NetworkTables:
    """Losses that are all equal, and costs of which there are few."""
    rng = np.random.default_rng(0)
    texts = [f"{number:05d}" for number in range(rows)]
    nothing = Choices(["E"], np.zeros(1, int), np.zeros(1), np.zeros((1, 2), int))
    blocks = [
        Choices(texts, np.zeros(rows, int), np.ones(rows), rng.integers(1, costs + 1, (rows, 2))) for _ in range(4)
    ]
    return NetworkTables(["parameters", "flops"], [nothing, *blocks])


@pytest.mark.parametrize("costs", [1, 30])
def test_massively_tied_losses_have_one_best_network(costs):
    tables = tied_tables(20_000, costs)
    found = Solver(tables).solve({"parameters": 4 * costs, "flops": 4 * costs}).networks
    assert [network.texts for network in found] == [("E", *["00000"] * 4)]


def test_losses_that_follow_the_costs_are_solved():
    tables = random_tables(1, rows=500)
    blocks = []
    for block in tables.choices[1:]:
        losses = 3.0 - block.costs @ np.array([1 / 12.6e6, 1e-10]) + 1e-3 * block.losses
        blocks.append(Choices(block.texts, block.widths, losses, block.costs))
    tables = NetworkTables(tables.resources, [tables.choices[0], *blocks], [link_costs] * 4)
    limits = {"parameters": 20e6, "latency_ms": 8.0}
    found = Solver(tables).solve(limits)
    assert found.networks[0].loss == Solver(tables).solve(limits, top=20).networks[0].loss
    assert found.lower_bound <= found.networks[0].loss + 1e-12


@pytest.mark.parametrize("limit", ["NETWORK_LIMIT", "PAIR_LIMIT"])
def test_what_cannot_be_told_apart_is_given_up_with_a_clear_message(limit, monkeypatch):
    monkeypatch.setattr(exact, limit, 2_000)
    with pytest.raises(RunError, match=rf"more than 2,000 .*\({limit}\).*--top 1"):
        Solver(tied_tables(300, 20)).solve({"parameters": 40, "flops": 40}, top=50)


def test_an_unknown_resource_is_refused():
    with pytest.raises(UserError, match="limit on 'beauty': the tables have only parameters, latency_ms"):
        Solver(make_tables(0)).solve({"beauty": 1})


@pytest.mark.parametrize("seed", range(3))
def test_it_equals_highs_on_large_random_tables(seed):
    tables = random_tables(seed, rows=300)
    solver = Solver(tables)
    for share in (0.15, 0.3, 0.5):
        limits = {"parameters": share * 4 * 12.6e6, "latency_ms": share * 4 * 5.0}
        expected = highs_optimum(tables, limits)
        found = solver.solve(limits)
        assert found.networks[0].loss == pytest.approx(expected, abs=1e-7)
        assert found.lower_bound <= found.networks[0].loss + 1e-12
        assert all(found.networks[0].costs[name] <= limit for name, limit in limits.items())
