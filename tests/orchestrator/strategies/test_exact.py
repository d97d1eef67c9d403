from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from orchestrator.errors import UserError
from orchestrator.objectives import LOSS, PARAMETERS, CheapObjectives, Constraint, Objective
from orchestrator.solving.networks import SolvableNetworks
from orchestrator.solving.tables import Choices, NetworkTables
from orchestrator.strategies.base import Strategy
from orchestrator.strategies.enumeration import enumerate_architectures
from orchestrator.strategies.exact import ExactSelection
from orchestrator.strategies.registry import strategy_class
from orchestrator.testing import StrategyExam, ToySpace, toy_loss


def toy_networks(space: ToySpace) -> SolvableNetworks:
    """The toy space as networks of one block, whose table holds the toy loss of every architecture."""
    cheap = CheapObjectives(space)
    everything = list(enumerate_architectures(space))
    costs = [[int(value) for value in cheap.values(architecture).values()] for architecture in everything]
    table = Choices(
        [str(architecture) for architecture in everything],
        np.zeros(len(everything), dtype=np.int64),
        np.array([toy_loss(architecture) for architecture in everything]),
        np.array(costs, dtype=np.int64),
    )
    nothing = Choices(["E0"], np.zeros(1, dtype=np.int64), np.zeros(1), np.zeros((1, len(cheap.names)), dtype=np.int64))
    tables = NetworkTables(cheap.names, [nothing, table])
    return SolvableNetworks(lambda size: tables, lambda network: space.parse(network.texts[1]), lambda limits: None)


class TestExactSelection(StrategyExam):
    strategy_class = ExactSelection

    def make_strategy(
        self,
        seed: int = 0,
        space: ToySpace | None = None,
        objectives: Sequence[Objective] | None = None,
        constraints: Sequence[Constraint] = (),
    ) -> Strategy:
        space = space or ToySpace()
        strategy = ExactSelection(space, objectives or (LOSS, PARAMETERS), constraints, seed, **self.options)
        strategy.use_tables(toy_networks(space), [])
        return strategy

    def test_one_seed_one_sequence(self) -> None:
        """What is proven to be best does not depend on chance: every seed asks the same."""
        sequences = [self.search(self.make_strategy(seed=seed), self.evaluations) for seed in (1, 1, 2)]
        assert sequences[0] == sequences[1] == sequences[2]


def make_strategy(budgets: Sequence[Sequence[Constraint]], **options: Any) -> ExactSelection:
    strategy = ExactSelection(ToySpace(), [LOSS], [], 0, **options)
    strategy.use_tables(toy_networks(ToySpace()), budgets)
    return strategy


def test_it_asks_the_lowest_losses_of_every_budget_in_turn() -> None:
    space, limits = ToySpace(), (1200.0, 400.0)
    asked = make_strategy([[Constraint("parameters", limit)] for limit in limits]).ask(40)
    everything = sorted(enumerate_architectures(space), key=lambda one: (toy_loss(one), str(one)))
    for limit in limits:
        fitting = [one for one in everything if space.cost(one).parameters <= limit]
        # What one budget shares with the other is asked once.
        assert set(fitting[:20]) <= set(asked)
    assert len(set(asked)) == 40


def test_an_impossible_budget_leaves_the_others_alone() -> None:
    asked = make_strategy([[Constraint("parameters", 1)], [Constraint("parameters", 1200)]]).ask(5)
    assert len(asked) == 5


def test_without_tables_it_says_what_is_missing() -> None:
    with pytest.raises(UserError, match="needs block losses"):
        ExactSelection(ToySpace(), [LOSS], [], 0).ask(1)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(UserError, match="option blocks: found 'dead'"):
        ExactSelection(ToySpace(), [LOSS], [], 0, blocks="dead")


def test_it_is_registered_and_says_what_it_needs() -> None:
    assert strategy_class("exact") is ExactSelection
    assert strategy_class("exact").needs_block_tables
    assert not strategy_class("random").needs_block_tables
