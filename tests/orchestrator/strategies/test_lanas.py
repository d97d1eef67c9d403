"""LaNAS sits the exam in both modes, does what its papers say, and survives what ends the originals."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import UserError
from orchestrator.evaluation.evaluator import Measurement
from orchestrator.objectives import LOSS, PARAMETERS, CheapObjectives, Objective
from orchestrator.strategies.breeding import Member
from orchestrator.strategies.lanas import LaNAS, LaNASOptions
from orchestrator.strategies.lanas_fitness import fitness_among, fitness_of
from orchestrator.strategies.random_search import RandomSearch
from orchestrator.strategies.registry import create_strategy, strategy_class
from orchestrator.testing import StrategyExam, ToySpace, toy_loss

FEW: dict[str, Any] = {"initial": 40, "max_proposals": 2_000}
ACCURACY = Objective("accuracy", "maximise")
Answer = Callable[[Any], Measurement]


class TestGreedy(StrategyExam):
    strategy_class = LaNAS
    options: ClassVar[dict[str, Any]] = FEW


class TestGreedyLinear(TestGreedy):
    options: ClassVar[dict[str, Any]] = {**FEW, "model": "linear", "height": 2, "around": 0.5, "initial": 25}
    evaluations = 60


class TestUct(StrategyExam):
    strategy_class = LaNAS
    options: ClassVar[dict[str, Any]] = {**FEW, "mode": "uct"}


class TestUctByLightgbm(TestUct):
    options: ClassVar[dict[str, Any]] = {**FEW, "mode": "uct", "model": "lightgbm", "height": 2, "initial": 25}
    evaluations = 60


def measured(architecture: Any) -> Measurement:
    return Measurement(
        architecture, {"loss": toy_loss(architecture), **CheapObjectives(ToySpace()).values(architecture)}
    )


def constant(architecture: Any) -> Measurement:
    return Measurement(architecture, {"loss": 1.0})


def mostly_failed(architecture: Any) -> Measurement:
    """Nine in ten fail."""
    return measured(architecture) if int(architecture.arch_id, 16) % 10 == 0 else Measurement(architecture, None)


def one_is_better(architecture: Any) -> Measurement:
    return Measurement(architecture, {"loss": float(str(architecture) != "8:L-W-H")})


def ask_and_tell(strategy: LaNAS | RandomSearch, count: int, answer: Answer = measured) -> list[Any]:
    asked = []
    for _ in range(count):
        asked += strategy.ask(1)
        strategy.tell([answer(asked[-1])])
    return asked


def encoded(architectures: Sequence[Any]) -> np.ndarray:
    return np.stack([ToySpace().encode(one) for one in architectures])


# --- the schedule ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "initial", "every"), [("greedy", 80, 10), ("uct", 40, 20)])
def test_some_at_random_then_a_new_tree_after_10_or_20_results(mode: str, initial: int, every: int) -> None:
    strategy, chance = LaNAS(ToySpace(), [LOSS], [], 0, mode=mode), RandomSearch(ToySpace(), [LOSS], [], 0)
    assert ask_and_tell(strategy, initial) == ask_and_tell(chance, initial)
    learned_from = [strategy.state_dict()["own"]["learned_from"]]
    for _ in range(2 * every + 1):
        ask_and_tell(strategy, 1)
        learned_from.append(strategy.state_dict()["own"]["learned_from"])
    assert learned_from == [0, *[initial] * every, *[initial + every] * every, initial + 2 * every]


def test_the_greedy_tree_is_one_higher_beyond_each_number_of_results() -> None:
    """One that divides as often as its height says; the shipped numbers are the authors'."""
    assert LaNASOptions().growth == (400, 800, 1600, 3200)
    strategy = LaNAS(ToySpace(), [LOSS], [], 0, initial=30, relearn=15, growth=(40, 70))
    heights = []
    for _ in range(90):
        ask_and_tell(strategy, 1)
        if strategy._root is not None:
            heights.append(max(len(leaf.name) for leaf in strategy._root.leaves()))
    assert heights == sorted(heights)
    assert set(heights) == {1, 2, 3}


def test_results_under_way_put_off_learning_but_not_asking() -> None:
    strategy = LaNAS(ToySpace(), [LOSS], [], 0, initial=20, relearn=5, mode="uct")
    first = strategy.ask(30)
    assert len(set(first)) == 30, "nothing told yet: at random"
    strategy.tell([measured(one) for one in first[:12]])
    second = strategy.ask(20)
    assert strategy.state_dict()["own"]["learned_from"] == 12
    strategy.tell([measured(one) for one in (*first[12:], *second)])
    strategy.ask(1)
    assert strategy.state_dict()["own"]["learned_from"] == 50


# --- what is learned from --------------------------------------------------------------------------------------------


def members(*values: tuple[float, ...] | None) -> list[Member]:
    return [Member(ToySpace().smallest(), value) for value in values]


def test_fitness_follows_the_direction_and_failures_are_as_bad_as_the_worst() -> None:
    known = members((3.0,), None, (1.0,), (2.0,))
    assert fitness_of(known, [LOSS], "first").tolist() == [0.0, 0.0, 1.0, 0.5]
    assert fitness_of(known, [ACCURACY], "first").tolist() == [1.0, 0.0, 0.0, 0.5]
    assert fitness_of(members(None, None), [LOSS], "first").tolist() == [0.0, 0.0]
    assert fitness_of(members((2.0,), (2.0,)), [LOSS], "first").tolist() == [0.0, 0.0]


def test_of_several_objectives_fitness_is_how_few_dominate() -> None:
    known = members((1.0, 4.0), (4.0, 1.0), (2.0, 5.0), (5.0, 6.0), None)
    assert fitness_of(known, [LOSS, PARAMETERS], "dominance").tolist() == [1.0, 1.0, 2 / 3, 0.0, 0.0]
    assert fitness_of(known, [LOSS, PARAMETERS], "first").tolist() == [1.0, 0.25, 0.75, 0.0, 0.0]
    assert LaNAS(ToySpace(), [LOSS, PARAMETERS], [], 0)._rule == "dominance"
    assert LaNAS(ToySpace(), [LOSS], [], 0)._rule == "first"
    assert LaNAS(ToySpace(), [LOSS, PARAMETERS], [], 0, fitness="first")._rule == "first"


def test_a_newcomer_is_judged_on_the_scale_of_those_known() -> None:
    known = members((3.0,), (1.0,))
    among = lambda value: fitness_among(members(value)[0], known, [LOSS], "first")  # noqa: E731
    assert [among((2.0,)), among((0.0,)), among((9.0,)), among(None)] == [0.5, 1.5, 0.0, 0.0]
    assert fitness_among(members((2.0,))[0], members((1.0,)), [LOSS], "first") == 0.0


# --- where candidates come from --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["greedy", "uct"])
def test_candidates_lie_in_the_region_that_was_chosen(mode: str) -> None:
    strategy = LaNAS(ToySpace(), [LOSS], [], 1, mode=mode, initial=60, height=2)
    ask_and_tell(strategy, 60)
    asked = strategy.ask(8)
    root = strategy._root
    assert root is not None
    assert root.split is not None
    regions = root.regions_of(encoded(asked))
    assert regions == [strategy._region_of[one] for one in asked]
    if mode == "greedy":
        assert regions == ["LL"] * 8
        passed = encoded(asked)
        assert root.split(passed).all()
        assert root.children[0].split is not None
        assert root.children[0].split(passed).all()


def test_visits_count_when_asked_and_means_when_told() -> None:
    strategy = LaNAS(ToySpace(), [LOSS], [], 0, mode="uct", initial=50)
    ask_and_tell(strategy, 50)
    (asked,) = strategy.ask(1)
    root = strategy._root
    assert root is not None
    way = root.way_to(strategy._region_of[asked])
    assert [(node.visits - len(node.members), node.told - len(node.members)) for node in way] == [(1, 0)] * len(way)
    before = [node.total for node in way]
    strategy.tell([measured(asked)])
    assert [(node.visits - len(node.members), node.told - len(node.members)) for node in way] == [(1, 1)] * len(way)
    told = Member(asked, (toy_loss(asked),))  # type: ignore[arg-type]
    fitness = fitness_among(told, strategy._samples[:50], [LOSS], "first")
    assert [node.total - total for node, total in zip(way, before, strict=True)] == pytest.approx([fitness] * len(way))


def test_mutants_descend_from_samples_of_the_region() -> None:
    strategy = LaNAS(ToySpace(), [LOSS], [], 0, initial=60, around=1.0, mutations=1)
    ask_and_tell(strategy, 60)
    asked = strategy.ask(10)
    region = strategy._root.children[0].members  # type: ignore[union-attr]
    genes = encoded([strategy._samples[index].architecture for index in region])
    for own in encoded(asked):
        assert ((genes != own).sum(axis=1) == 1).any(), f"{own} is no neighbour of the better half"


@pytest.mark.parametrize("mode", ["greedy", "uct"])
def test_a_region_without_anything_new_gives_way_to_others(mode: str) -> None:
    """Candidates outside it are asked then, and it is not searched again before the next learning."""
    space = ToySpace(layers=4, widths=(4, 8))
    strategy = LaNAS(space, [LOSS], [], 0, mode=mode, initial=20, relearn=1000, height=1, max_proposals=256)
    drawn = 0
    own = strategy._draw

    def counted() -> Any:
        nonlocal drawn
        drawn += 1
        return own()

    strategy._draw = counted  # type: ignore[method-assign]
    asked = ask_and_tell(strategy, space.cardinality())
    assert len(set(asked)) == space.cardinality()
    assert drawn < 60 * space.cardinality(), "a search of what is used up for every candidate"
    assert strategy.ask(1) == []


def test_what_is_left_of_a_small_space_is_drawn_from_its_region_too() -> None:
    space = ToySpace(layers=4, widths=(4, 8))
    strategy = LaNAS(space, [LOSS], [], 0, mode="uct", initial=20, relearn=1000, height=2, max_proposals=256)
    ask_and_tell(strategy, 20)
    at_random = 0
    for _ in range(space.cardinality() - 40):
        (asked,) = strategy.ask(1)
        assert strategy._root is not None
        if asked in strategy._region_of:
            assert strategy._root.regions_of(np.stack([space.encode(asked)])) == [strategy._region_of[asked]]
        else:
            at_random += 1
        strategy.tell([measured(asked)])
    assert at_random <= len(strategy._root.leaves()), "only where a region turns out to be used up"
    assert strategy._region_rows is not None, "chance alone has found nearly all of the space"


# --- what ends the originals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"model": "linear"}, {"mode": "uct"}, {"mode": "uct", "model": "lightgbm"}])
@pytest.mark.parametrize("answer", [constant, mostly_failed, one_is_better])
def test_goes_on_whatever_the_fitness(options: dict[str, Any], answer: Answer) -> None:
    strategy = LaNAS(ToySpace(), [LOSS], [], 0, initial=20, max_proposals=500, **options)
    asked = ask_and_tell(strategy, 70, answer)
    assert len(set(asked)) == 70


def test_learns_although_most_candidates_fail() -> None:
    """All with a W fail, three quarters of the samples: the median is a failure's, yet W is avoided."""
    answer: Answer = lambda one: Measurement(one, None) if "W" in str(one) else measured(one)  # noqa: E731
    space = ToySpace(layers=8)
    strategy = LaNAS(space, [LOSS], [], 0, sampling="architectures", initial=80)
    asked = ask_and_tell(strategy, 140, answer)
    failed = lambda found: sum("W" in str(one) for one in found) / len(found)  # noqa: E731
    assert failed(asked[80:]) < 0.5 < 0.65 < failed(asked[:80])


# --- the same again --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"initial": 30, "tuning": 3, "growth": [35, 45]},
        {"initial": 30, "mode": "uct", "relearn": 7, "cp": 0.3},
    ],
)
def test_resumed_in_the_midst_of_a_tree_asks_the_same(options: dict[str, Any]) -> None:
    make = lambda: LaNAS(ToySpace(), [LOSS, PARAMETERS], [], 4, **options)  # noqa: E731
    whole, stopped = make(), make()
    assert ask_and_tell(whole, 44) == ask_and_tell(stopped, 44)
    assert whole.ask(3) == stopped.ask(3), "asked, not told"
    resumed = make()
    resumed.load_state_dict(json.loads(json.dumps(stopped.state_dict())))
    assert resumed.state_dict() == stopped.state_dict()
    pending = resumed.ask(3)
    for strategy in (whole, resumed):
        strategy.tell([measured(one) for one in pending])
    assert ask_and_tell(whole, 24) == ask_and_tell(resumed, 24)
    assert whole.state_dict() == resumed.state_dict()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), told=st.lists(st.integers(0, 4), min_size=6, max_size=14), stop=st.integers(1, 5))
def test_resumed_anywhere_asks_the_same(seed: int, told: Sequence[int], stop: int) -> None:
    """Whatever is asked and told in which portions."""
    options: dict[str, Any] = {"mode": "uct", "initial": 6, "relearn": 3, "max_proposals": 300}
    make = lambda: LaNAS(ToySpace(layers=3), [LOSS], [], seed, **options)  # noqa: E731
    whole, stopped = make(), make()
    waiting: list[Any] = []
    for number, count in enumerate(told):
        asked = whole.ask(2)
        assert stopped.ask(2) == asked
        waiting += asked
        for strategy in (whole, stopped):
            strategy.tell([measured(one) for one in waiting[:count]])
        waiting = waiting[count:]
        if number % stop == 0:
            saved = stopped.state_dict()
            stopped = make()
            stopped.load_state_dict(json.loads(json.dumps(saved)))
            assert stopped.ask(len(waiting)) == waiting


# --- finding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"model": "linear"}, {"mode": "uct"}])
def test_finds_more_layers_of_an_operation_than_chance(options: dict[str, Any]) -> None:
    """The synthetic fitness of the paper notes: how many layers have one operation, at an equal budget."""
    space = ToySpace(layers=8)
    answer: Answer = lambda one: Measurement(one, {"accuracy": float(one.operations.count("H"))})  # noqa: E731
    best = lambda strategy: max(one.operations.count("H") for one in ask_and_tell(strategy, 140, answer))  # noqa: E731
    own = [best(LaNAS(space, [ACCURACY], [], seed, **options)) for seed in range(5)]
    chance = [best(RandomSearch(space, [ACCURACY], [], seed)) for seed in range(5)]
    assert statistics.mean(own) > statistics.mean(chance) + 0.5, f"{own} against random search's {chance}"


@pytest.mark.slow
def test_lanas_needs_a_fifth_of_the_evaluations_of_chance_to_the_optimum() -> None:
    """Item 29 of the paper notes, on a rugged table of 27,000 networks of NAS-BERT's space."""
    from tests.benchmarks.bench_lanas import evaluations_to_optimum
    from tests.benchmarks.rugged_table import rugged_table

    table = rugged_table(0)
    needed = [
        evaluations_to_optimum(table, "lanas", {"mode": "uct", "max_proposals": 30_000}, seed, 5_000)
        for seed in range(3)
    ]
    expected_by_chance = (len(table.losses) + 1) / 2
    assert statistics.mean(needed) < expected_by_chance / 5


# --- names and mistakes ----------------------------------------------------------------------------------------------


def test_it_is_registered() -> None:
    assert strategy_class("lanas") is LaNAS
    assert isinstance(create_strategy("lanas", ToySpace(), [LOSS], [], 0, options={"mode": "uct"}), LaNAS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "mcts"}, "strategy lanas, option mode: found 'mcts', input should be 'greedy' or 'uct'"),
        ({"model": "svm"}, "option model: found 'svm', input should be 'lightgbm' or 'linear'"),
        ({"fitness": "last"}, "option fitness: found 'last', input should be 'first' or 'dominance'"),
        ({"hight": 2}, "has no option 'hight'; did you mean 'height'?"),
    ],
)
def test_mistakes_in_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        LaNAS(ToySpace(), [LOSS], [], 0, **options)
    assert message in str(caught.value)
