"""Where a search starts: anchors within each budget, asked first by every strategy."""

from __future__ import annotations

import pytest

from orchestrator.objectives import ENCODER_PARAMETERS, LOSS, CheapObjectives, Constraint, Feasibility
from orchestrator.strategies.registry import create_strategy
from orchestrator.strategies.starting_points import starting_points
from spaces.encoder_shape import EncoderShape
from spaces.registry import load_space

SHAPE = EncoderShape(num_layers=4, hidden_size=64, num_heads=4, intermediate_size=256, vocab_size=99, max_positions=20)
OPTIONS = {
    "num_blocks": 2,
    "layers_per_block": 4,
    "hidden_sizes": [32, 64],
    "head_size": 16,
    "operations": ["M", "F", "F2", "F1", "S3"],
    "embedding_sizes": [64],
    "projections": "supernet",
}


@pytest.fixture(scope="module")
def space():
    return load_space("nas_bert", OPTIONS, SHAPE)


def budget(space, share):
    limit = Constraint("encoder_parameters", int(share * SHAPE.encoder_parameters))
    return Feasibility(CheapObjectives(space), [limit])


def test_anchors_that_fit_stay_and_the_others_are_brought_just_inside(space):
    half = budget(space, 0.5)
    points = starting_points(space, [half], seed=1)
    assert all(half(point) for point in points)
    assert {anchor for anchor in space.anchors() if half(anchor)} <= set(points)
    fitted = [point for point in points if point not in set(space.anchors())]
    shares = [space.cost(point).encoder_parameters / SHAPE.encoder_parameters for point in fitted]
    assert fitted
    assert max(shares) > 0.45


def test_every_budget_gets_points_of_its_own(space):
    points = starting_points(space, [budget(space, 0.5), budget(space, 0.2)], seed=1)
    sizes = [space.cost(point).encoder_parameters / SHAPE.encoder_parameters for point in points]
    assert any(size <= 0.2 for size in sizes)
    assert any(0.4 < size <= 0.5 for size in sizes)
    assert len(set(points)) == len(points)


def test_equal_seeds_give_equal_points_and_impossible_budgets_none(space):
    half = budget(space, 0.5)
    assert starting_points(space, [half], seed=3) == starting_points(space, [half], seed=3)
    assert starting_points(space, [budget(space, 0.001)], seed=3) == []


@pytest.mark.parametrize("name", ["random", "regularised_evolution", "optuna"])
def test_a_strategy_asks_its_starting_points_first_and_after_a_resume_never_twice(space, name):
    half = budget(space, 0.5)
    points = starting_points(space, [half], seed=1)[:6]
    outside = next(anchor for anchor in space.anchors() if not half(anchor))

    def make():
        strategy = create_strategy(name, space, [LOSS, ENCODER_PARAMETERS], half.constraints, 1)
        strategy.start_with([outside, *points])
        return strategy

    whole = make()
    expected = whole.ask(10)
    assert expected[:6] == points
    assert outside not in expected

    first = make()
    asked = first.ask(4)
    resumed = make()
    resumed.load_state_dict(first.state_dict())
    assert resumed.ask(10) == expected
    assert asked == expected[:4]
