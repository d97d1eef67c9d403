"""The evolutionary strategies sit the exam, and each does what its paper says."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any, ClassVar

import pytest

from orchestrator.errors import UserError
from orchestrator.evaluation.evaluator import Measurement
from orchestrator.objectives import ENCODER_PARAMETERS, LOSS, PARAMETERS, CheapObjectives, Constraint
from orchestrator.strategies.binned_evolution import BinnedEvolution
from orchestrator.strategies.breeding import Member, fitness, fittest, redraw
from orchestrator.strategies.hat_evolution import HATEvolution
from orchestrator.strategies.nsga2 import NSGA2
from orchestrator.testing import StrategyExam, ToySpace, toy_loss
from orchestrator.testing.toy_space import ToyArchitecture


class TestNSGA2(StrategyExam):
    strategy_class = NSGA2
    options: ClassVar[dict[str, Any]] = {"population": 16}


class TestNSGA2WithFewChildren(TestNSGA2):
    options: ClassVar[dict[str, Any]] = {"population": 16, "offspring": 4, "mutation_probability": 0.3}


class TestHATEvolution(StrategyExam):
    strategy_class = HATEvolution
    options: ClassVar[dict[str, Any]] = {"population": 20, "parents": 6, "mutations": 8, "crossovers": 8}


class TestBinnedEvolution(StrategyExam):
    strategy_class = BinnedEvolution
    options: ClassVar[dict[str, Any]] = {"bins": 5, "kept": 4, "start": 20}


def members(*values: tuple[float, ...] | None, violations: tuple[float, ...] = ()) -> list[Member]:
    rng, space = random.Random(0), ToySpace()
    spread = [*violations, *(0.0 for _ in range(len(values) - len(violations)))]
    return [Member(space.sample(rng), value, violation) for value, violation in zip(values, spread, strict=True)]


def test_who_keeps_the_constraints_is_fitter_than_who_breaks_them_by_less_or_more() -> None:
    pool = members((9.0, 9.0), None, None, violations=(0.0, 0.2, 0.1))
    assert fittest(pool, (LOSS, PARAMETERS), 3) == [pool[0], pool[2], pool[1]]


def test_the_lower_front_is_fitter_and_within_a_front_the_lonelier() -> None:
    pool = members((0.0, 4.0), (1.0, 3.0), (1.1, 2.9), (4.0, 0.0), (2.0, 5.0))
    order = [pool.index(one) for one in fittest(pool, (LOSS, PARAMETERS), 5)]
    assert set(order[:2]) == {0, 3}, "the ends of the front first"
    assert order[4] == 4, "whom another dominates last"


def test_of_one_objective_the_value_decides() -> None:
    assert [value for _, value, _ in fitness(members((3.0,), (1.0,)), (LOSS,))] == [3.0, 1.0]


def test_redrawing_nothing_keeps_an_architecture_and_redrawing_all_does_not() -> None:
    space, rng = ToySpace(), random.Random(1)
    architecture = space.sample(rng)
    assert redraw(space, architecture, 0.0, rng) == architecture
    drawn = {redraw(space, architecture, 1.0, rng) for _ in range(50)}
    assert len(drawn) > 10
    assert all(space.contains(one) for one in drawn)


def measured(architecture: Any) -> Measurement:
    return Measurement(
        architecture, {"loss": toy_loss(architecture), **CheapObjectives(ToySpace()).values(architecture)}
    )


def test_nsga2_keeps_the_whole_front_it_was_told() -> None:
    strategy = NSGA2(ToySpace(), (LOSS, PARAMETERS), (), 0, population=10)
    for _ in range(12):
        strategy.tell([measured(one) for one in strategy.ask(10)])
    kept = {member.architecture for member in strategy._parents}
    best = min((toy_loss(one), str(one)) for one in strategy._told if isinstance(one, ToyArchitecture))
    assert best[1] in {str(one) for one in kept}, "an elitist search never loses the best"


def test_nsga2_is_led_to_a_feasible_region_that_samples_never_meet() -> None:
    """The smallest of 4,096 architectures alone keeps the limit: children that break it by less become parents."""
    space = ToySpace()
    smallest = CheapObjectives(space).values(space.smallest())["parameters"]
    limit = Constraint("parameters", smallest)
    strategy = NSGA2(space, (LOSS, PARAMETERS), [limit], 0, population=4, max_tries=5, sampling="architectures")
    assert space.smallest() in strategy.ask(1)


def test_hat_mixes_mutants_and_crossings_of_the_best_alone() -> None:
    space = ToySpace()
    strategy = HATEvolution(space, (LOSS,), (), 0, population=12, parents=3, mutations=5, crossovers=5)
    strategy.tell([measured(one) for one in strategy.ask(12)])
    losses = sorted(toy_loss(one) for one in strategy._told if isinstance(one, ToyArchitecture))
    assert [member.values for member in strategy._parents] == [(loss,) for loss in losses[:3]]


def test_bins_divide_sizes_and_keep_the_best_of_each() -> None:
    space = ToySpace()
    strategy = BinnedEvolution(space, (LOSS, ENCODER_PARAMETERS), (), 0, bins=4, kept=3, start=30)
    for _ in range(20):
        strategy.tell([measured(one) for one in strategy.ask(10)])
    sizes = [
        [CheapObjectives(space).values(one.architecture)["encoder_parameters"] for one in group]
        for group in strategy._bins
    ]
    assert sum(bool(group) for group in sizes) >= 3
    assert all(len(group) <= 3 for group in sizes)
    filled = [group for group in sizes if group]
    assert all(max(lower) < min(upper) for lower, upper in pairwise(filled))


def test_bins_by_something_unknown_are_refused() -> None:
    with pytest.raises(UserError, match="option by: 'latency' is not known before an evaluation; expected one of"):
        BinnedEvolution(ToySpace(), (LOSS,), (), 0, by="latency")
