"""Every strategy that needs no block tables searches the space of components, and draws it from end to end."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from orchestrator.objectives import ENCODER_PARAMETERS, FLOPS, LOSS, CheapObjectives, Constraint
from orchestrator.size_sampling import spread_over_sizes
from orchestrator.strategies.base import Strategy
from orchestrator.strategies.binned_evolution import BinnedEvolution
from orchestrator.strategies.drawing import size_range
from orchestrator.strategies.evolution import RegularisedEvolution
from orchestrator.strategies.hat_evolution import HATEvolution
from orchestrator.strategies.lanas import LaNAS
from orchestrator.strategies.nsga2 import NSGA2
from orchestrator.strategies.optuna_strategy import OptunaStrategy
from orchestrator.strategies.predictor_guided import PredictorGuided
from orchestrator.strategies.random_search import RandomSearch
from orchestrator.strategies.successive_halving import SuccessiveHalving
from spaces.components.options import ComponentsOptions
from spaces.components.space import ComponentsSpace
from tests.orchestrator.strategies.component_searches import additive_loss, make_two_layers, search

FULL_FIDELITY = 4


@pytest.mark.parametrize(
    ("strategy_class", "options"),
    [
        (RandomSearch, {}),
        (RegularisedEvolution, {"population": 12, "sample_size": 4}),
        (NSGA2, {"population": 12}),
        (BinnedEvolution, {}),
        (HATEvolution, {}),
        (SuccessiveHalving, {}),
        (PredictorGuided, {"start": 16, "offspring": 40, "chosen": 6, "regressor_options": {"n_estimators": 5}}),
        (OptunaStrategy, {}),
        (OptunaStrategy, {"sampler": "tpe"}),
        (LaNAS, {}),
    ],
)
def test_strategies_search_components(strategy_class: type[Strategy], options: dict[str, Any]) -> None:
    space = make_two_layers()
    limit = 0.7 * space.cost(space.anchors()[0]).flops
    strategy = strategy_class(space, [LOSS, FLOPS], [Constraint("flops", limit)], 0, **options)
    strategy.use_fidelity(FULL_FIDELITY)
    found = [one.architecture for one in search(strategy, additive_loss(space, 0), 48)]
    assert len(found) == 48
    assert all(space.contains(one) and space.cost(one).flops <= limit for one in found)
    if strategy_class is not SuccessiveHalving:  # which asks for some again, at a higher fidelity
        assert len(set(found)) == 48


@pytest.mark.parametrize("objective", [ENCODER_PARAMETERS, FLOPS])
@pytest.mark.parametrize("law", ["shares", "architectures"])
def test_sizes_of_the_largest_space_are_met_from_end_to_end(objective: Any, law: Any) -> None:
    space = ComponentsSpace(ComponentsOptions(drawing=law))
    cheap = CheapObjectives(space)
    low, high = size_range(space, cheap, objective.name, (), 1)
    assert high == cheap.values(space.anchors()[0])[objective.name]
    asked = RandomSearch(space, (LOSS, objective), (), 1, sampling="sizes").ask(24)
    found = np.sort([(cheap.values(one)[objective.name] - low) / (high - low) for one in asked])
    assert found == pytest.approx(np.linspace(0, 1, 24), abs=0.08 if law == "shares" else 0.2)
    assert found[0] < 0.05
    assert found[-1] > 0.95


def test_networks_spread_over_sizes_reach_both_ends_of_the_largest_space() -> None:
    space = ComponentsSpace()
    ends = [space.cost(one).encoder_parameters for one in (space.smallest(), space.anchors()[0])]
    drawn = spread_over_sizes(space, 6, *ends, random.Random(1))
    found = np.log([space.cost(one).encoder_parameters for one in drawn])
    assert found == pytest.approx(np.linspace(*np.log(ends), 6), abs=0.3)
