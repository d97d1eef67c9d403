"""Fronts over several embedding sizes."""

from __future__ import annotations

from itertools import product
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.results.pareto import non_dominated
from orchestrator.solving.answering import Loaded, solve_front
from orchestrator.solving.exact import Solver
from orchestrator.solving.infeasibility import ImpossibleBudgetError
from orchestrator.solving.networks import BlockTable, ladder_rungs, solvable
from spaces.nas_bert.options import NasBertOptions
from spaces.nas_bert.space import NasBertSpace
from tests.spaces.microscopic import OPTIONS, SHAPE

RUNGS = {0: 16, 9_000: 32, 14_000: 48}


class SmallLadder(NasBertSpace):
    """A space whose ladder has rungs for microscopic networks."""

    def embedding_ladder(self, parameters: int) -> int:
        return max(size for rung, size in RUNGS.items() if rung <= parameters)


SPACE = SmallLadder(NasBertOptions(**{**OPTIONS, "shape": SHAPE}))
BLOCKS = list(SPACE.enumerate_blocks())
OBJECTIVES = ("loss", "parameters", "flops")


def load(seed: int, count: int = 6) -> tuple[Loaded, list[list[tuple[Any, float]]]]:
    """Loaded tables of a few blocks with random losses, and these."""
    rng = np.random.default_rng(seed)
    scored, tables = [], []
    for _ in range(SPACE.num_blocks):
        chosen = sorted((BLOCKS[number] for number in rng.choice(len(BLOCKS), count, replace=False)), key=str)
        losses = rng.random(count)
        costs = [SPACE.block_cost(one, 12) for one in chosen]
        scored.append(list(zip(chosen, losses.tolist(), strict=True)))
        tables.append(
            BlockTable(
                [str(one) for one in chosen],
                np.array([one.hidden_size for one in chosen]),
                losses,
                np.array([one.parameters for one in costs]),
                np.array([one.flops for one in costs]),
                None,
            )
        )
    run = cast(Any, SimpleNamespace(space=SPACE, latency=None))
    return Loaded(run, cast(Any, None), solvable(SPACE, tables, 12, None), 0.0), scored


def test_the_rungs_of_a_ladder():
    assert ladder_rungs(SPACE) == [(16, 8_999.0), (32, 13_999.0), (48, float("inf"))]
    assert ladder_rungs(NasBertSpace()) == [
        (64, 9_999_999.0),
        (128, 29_999_999.0),
        (256, 59_999_999.0),
        (512, float("inf")),
    ]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([{}, {"parameters": 12_000}, {"flops": 150_000}]))
def test_with_the_ladder_the_fronts_of_all_rungs_compete(seed, limits):
    loaded, scored = load(seed)
    points = []
    for size, (first, one), (second, other) in product(RUNGS.values(), *scored):
        cost = SPACE.cost(SPACE.assemble(size, [first, second]), 12)
        fits = all(getattr(cost, name) <= limit for name, limit in limits.items())
        if fits and size >= SPACE.embedding_ladder(cost.parameters):
            points.append((one + other, cost.parameters, cost.flops))
    if not points:
        with pytest.raises(ImpossibleBudgetError):
            solve_front(loaded, "ladder", OBJECTIVES, limits)
        return
    networks, combinations, _ = solve_front(loaded, "ladder", OBJECTIVES, limits)
    values = np.array(points)
    expected = np.unique(values[non_dominated(values)], axis=0)
    found = np.array([[one.loss, one.costs["parameters"], one.costs["flops"]] for one in networks])
    assert len(found) == len(expected)
    np.testing.assert_allclose(found[np.lexsort(found.T[::-1])], expected, rtol=1e-9)
    assert combinations == len(RUNGS) * 6**2


def test_no_budget_has_a_better_network_than_the_ladder_s_front():
    loaded, _ = load(7, count=20)
    networks, _, _ = solve_front(loaded, "ladder", ("loss", "parameters"), {})
    for budget in np.quantile([one.costs["parameters"] for one in networks], (0, 0.2, 0.5, 0.8, 1), method="lower"):
        limits = {"parameters": float(budget)}
        best = Solver(loaded.networks.by_rule("ladder", limits)).solve(limits).networks[0]
        assert best.loss >= min(one.loss for one in networks if one.costs["parameters"] <= budget) - 1e-12
