"""No strategy asks two architectures of one behaviour, and spaces without behaviours pay nothing."""

from __future__ import annotations

import json

import pytest

from orchestrator.evaluation.evaluator import Measurement
from orchestrator.objectives import LOSS, PARAMETERS, CheapObjectives
from orchestrator.strategies.enumeration import enumerate_architectures
from orchestrator.strategies.registry import create_strategy
from orchestrator.testing.toy_space import ToyArchitecture, ToySpace, toy_loss
from spaces.space import SearchSpace

OPTIONS = {
    "random": {},
    "regularised_evolution": {"population": 8, "sample_size": 3},
    "nsga2": {"population": 8},
    "binned_evolution": {},
    "hat_evolution": {"population": 8, "parents": 4, "mutations": 4, "crossovers": 4},
    "successive_halving": {"bracket": 6},
    "predictor_guided": {"start": 8, "offspring": 40},
    "optuna": {},
}


class CommutativeToySpace(ToySpace):
    """A toy whose layers may be swapped without changing what is computed."""

    def behaviour(self, architecture):
        return f"{architecture.width}:{sorted(architecture.operations)}"


def make_strategy(name, space):
    strategy = create_strategy(name, space, (LOSS, PARAMETERS), (), 0, options=OPTIONS[name])
    strategy.use_fidelity(9)
    return strategy


def measure(space, architecture):
    cheap = CheapObjectives(space).values(architecture)
    return Measurement(architecture, {"loss": toy_loss(architecture), **cheap})


def ask(strategy, count):
    return [(one, strategy.fidelity_of(one)) for one in strategy.ask(count)]


@pytest.mark.parametrize("name", OPTIONS)
def test_no_behaviour_is_asked_twice(name):
    """Also after the state was saved and loaded, when what is asked again comes first."""
    space = CommutativeToySpace(layers=4, widths=(4, 8))
    strategy = make_strategy(name, space)
    asked = []
    for _ in range(10):
        batch = ask(strategy, 4)
        asked += batch
        strategy.tell([measure(space, one) for one, _ in batch])
    pending = ask(strategy, 3)
    resumed = make_strategy(name, space)
    resumed.load_state_dict(json.loads(json.dumps(strategy.state_dict())))
    assert [one for one, _ in ask(resumed, len(pending))] == [one for one, _ in pending]
    resumed.tell([measure(space, one) for one, _ in pending])
    asked += pending
    for _ in range(5):
        batch = ask(resumed, 4)
        asked += batch
        resumed.tell([measure(space, one) for one, _ in batch])
    assert len(asked) >= 50
    known = [(space.behaviour(one), fidelity) for one, fidelity in asked]
    assert len(set(known)) == len(known)


def test_a_small_space_is_used_up_by_behaviours():
    space = CommutativeToySpace(layers=3, widths=(4,))
    behaviours = {space.behaviour(one) for one in enumerate_architectures(space)}
    asked = make_strategy("random", space).ask(100)
    assert {space.behaviour(one) for one in asked} == behaviours
    assert len(asked) == len(behaviours) == 3 + 6 + 10


def test_what_was_told_without_being_asked_counts_too():
    space = CommutativeToySpace(layers=2, widths=(4,))
    strategy = make_strategy("random", space)
    strategy.tell([measure(space, ToyArchitecture(4, ("L", "W")))])
    asked = strategy.ask(100)
    assert ToyArchitecture(4, ("W", "L")) not in asked
    assert len(asked) == 3 + 6 - 1


def test_spaces_without_behaviours_are_not_asked_for_them(monkeypatch):
    def refuse(self, architecture):
        raise AssertionError("asked for a behaviour")

    monkeypatch.setattr(SearchSpace, "behaviour", refuse)
    space = ToySpace(layers=2, widths=(4,))
    assert len(make_strategy("random", space).ask(100)) == 3 + 9
