"""The search by learned distributions sits the exam, finds what was planted, and is the same however it is stopped."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from orchestrator.errors import UserError
from orchestrator.evaluation.evaluator import Measurement
from orchestrator.evaluation.search_loop import SearchLoop
from orchestrator.objectives import FLOPS, LOSS, MEASURED_LATENCY, PARAMETERS, Constraint, Objective
from orchestrator.results.hypervolume import hypervolume
from orchestrator.strategies.base import Strategy
from orchestrator.strategies.random_search import RandomSearch
from orchestrator.strategies.sampling_distribution import DistributionSearch
from orchestrator.testing import StrategyExam, ToySpace
from spaces.components.space import ComponentsSpace
from spaces.encoder_shape import EncoderShape
from tests.orchestrator.strategies.component_searches import (
    additive_loss,
    make_heads_space,
    make_two_layers,
    measured,
    search,
    signal_loss,
)
from tests.orchestrator.strategies.toy_distribution import SampledToySpace
from tests.spaces.components.microscopic import SHAPE, make_space

PARAMETERS_COUNT: dict[str, Any] = {"cost": "encoder_parameters"}
"""Every head has a price, with queries and keys or without."""


class TestDistributionSearch(StrategyExam):
    strategy_class = DistributionSearch
    options: ClassVar[dict[str, Any]] = {"cost_weights": [0.0], "certainty": 0.6, "learning_rate": 0.4, "paths": 5}

    def make_strategy(
        self,
        seed: int = 0,
        space: ToySpace | None = None,
        objectives: Sequence[Objective] | None = None,
        constraints: Sequence[Constraint] = (),
    ) -> Strategy:
        given = space or ToySpace()
        sampled = SampledToySpace(given.layers, given.widths)
        return super().make_strategy(seed, sampled, objectives or (LOSS, PARAMETERS), constraints)


class TestSweepByImportanceWeights(TestDistributionSearch):
    options: ClassVar[dict[str, Any]] = {"estimator": "importance_weighted", "certainty": 0.6}
    evaluations = 48
    learns = False  # it does, by more evaluations than a fifth of an exam's for each lambda


def make_search(space: Any = None, seed: int = 0, constraints: Sequence[Constraint] = (), **options: Any) -> Any:
    return DistributionSearch(space or make_two_layers(), [LOSS, FLOPS], constraints, seed, **options)


def heads_of(architecture: Any) -> set[int]:
    return set(architecture.layers[0].attention.components)


# --- what it finds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("estimator", "paths"), [("control_variate", 4), ("score_function", 4)])
def test_heads_that_carry_signal_are_kept_and_others_dropped(estimator: str, paths: int) -> None:
    """Paper notes, test 9: three heads of twelve."""
    signal = {1, 4, 9}
    strategy = make_search(make_heads_space(), estimator=estimator, paths=paths, cost_weights=[1.0], **PARAMETERS_COUNT)
    search(strategy, signal_loss(signal), 160 if estimator == "control_variate" else 400)
    (found,) = strategy.most_likely()
    assert signal <= heads_of(found)
    assert len(heads_of(found)) <= 6


def test_without_a_price_the_expected_cost_does_not_fall() -> None:
    """Paper notes, test 7: where every head is worth something."""
    strategy = make_search(make_heads_space(), cost_weights=[0.0], **PARAMETERS_COUNT)
    before = strategy.expected_cost_shares()
    search(strategy, signal_loss(range(12), 0.05), 120)
    assert strategy.expected_cost_shares() >= before
    assert heads_of(strategy.most_likely()[0]) == set(range(12))


def test_at_a_high_price_everything_goes_that_can() -> None:
    strategy = make_search(make_heads_space(), cost_weights=[10.0], **PARAMETERS_COUNT)
    search(strategy, signal_loss(range(12), 0.05), 120)
    (found,) = strategy.most_likely()
    assert not heads_of(found)
    assert strategy.cost.of(found) == strategy.cost.of(strategy.space.smallest())


def test_the_higher_the_price_the_cheaper_what_is_found() -> None:
    """Paper notes, test 7: no cost of five modes is more than 2 % above that of a lower lambda's."""
    strategy = make_search(make_heads_space(), cost_weights=(0.1, 0.3, 1.0, 3.0, 10.0), **PARAMETERS_COUNT)

    def loss(architecture: Any) -> float:
        """Heads worth ever less, from that of several at the middle price to that of none."""
        missed = sum(0.4 * 0.6**head for head in set(range(12)) - heads_of(architecture))
        return float(missed + 0.1 * (2 - len(architecture.layers[0].attention.query_key)))

    search(strategy, loss, 500)
    costs = np.array([strategy.cost.of(one) for one in strategy.most_likely()])
    assert (costs[1:] <= 1.02 * costs[:-1]).all(), costs
    assert costs[-1] < 0.5 * costs[0]


def test_its_front_is_larger_than_random_searchs() -> None:
    """Hypervolume of loss and FLOPs, mean of five additive problems, 300 evaluations each."""
    space = make_space(shape=SHAPE, feed_forward_slices=8, vertical=())
    options: dict[str, Any] = {
        "cost_weights": (0.1, 0.3, 1.0, 3.0),
        "certainty": 0.7,
        "learning_rate": 0.4,
        "ramp": 0,
    }
    largest = space.cost(space.anchors()[0]).flops

    def volume(strategy: Strategy, seed: int) -> float:
        found = [one.objectives for one in search(strategy, additive_loss(space, seed), 300)]
        points = [(one["loss"], one["flops"] / largest) for one in found if one is not None]
        return hypervolume(points, [1.0, 1.05])

    own = [volume(make_search(space, seed, **options), seed) for seed in range(5)]
    chance = [volume(RandomSearch(space, [LOSS, FLOPS], [], seed), seed) for seed in range(5)]
    assert np.mean(own) > np.mean(chance) + 0.01, (own, chance)


# --- groups ----------------------------------------------------------------------------------------------------------


def odds_of(strategy: Any) -> list[Any]:
    return [one["log_odds"] for one in strategy.state_dict()["own"]["distributions"]]


def without_first(strategy: Any, count: int) -> list[Any]:
    """So many draws, after the architecture that a search begins with."""
    strategy.tell([Measurement(one, None, "failed") for one in strategy.ask(1)])
    asked: list[Any] = strategy.ask(count)
    return asked


def test_a_group_teaches_once_it_is_complete_in_whatever_order() -> None:
    strategy = make_search(cost_weights=[0.1], certainty=0.6)
    loss = additive_loss(strategy.space, 0)
    asked = without_first(strategy, 8)
    before = odds_of(strategy)
    for architecture in [*asked[:3], *asked[5:]]:
        strategy.tell([measured(strategy, architecture, loss)])
    assert odds_of(strategy) == before, "neither group is complete"
    strategy.tell([measured(strategy, asked[4], loss)])
    after_second = odds_of(strategy)
    assert after_second != before, "the second group is complete, and waits for no other"
    strategy.tell([Measurement(asked[3], None, "failed")])
    assert odds_of(strategy) != after_second, "three losses and a failure complete the first group"


def test_a_group_without_two_losses_teaches_nothing() -> None:
    strategy = make_search(cost_weights=[0.1], certainty=0.6)
    asked = without_first(strategy, 4)
    before = odds_of(strategy)
    strategy.tell([Measurement(one, None, "failed") for one in asked[1:]])
    strategy.tell([measured(strategy, asked[0], additive_loss(strategy.space, 0))])
    assert odds_of(strategy) == before
    assert strategy.state_dict()["own"]["distributions"][0]["groups"] == []


def test_distributions_draw_in_turn_and_learn_by_their_own_draws() -> None:
    strategy = make_search(cost_weights=[0.0, 1.0], certainty=0.6, estimator="score_function")
    loss = additive_loss(strategy.space, 0)
    asked = without_first(strategy, 8)
    before = odds_of(strategy)
    strategy.tell([measured(strategy, one, loss) for one in asked[::2]])
    changed = [one != other for one, other in zip(odds_of(strategy), before, strict=True)]
    assert sorted(changed) == [False, True]


@pytest.mark.parametrize("estimator", ["control_variate", "importance_weighted"])
@pytest.mark.parametrize("seed", range(3))
def test_killed_anywhere_it_goes_on_alike(estimator: str, seed: int) -> None:
    """Tells come late, out of order and with failures; the state is taken wherever it happens to be."""
    rng = random.Random(seed)
    make = lambda: make_search(  # noqa: E731
        estimator=estimator, cost_weights=[0.1, 1.0], certainty=0.7, paths=3, constraints=[Constraint("flops", 4e6)]
    )
    whole, stopped = make(), make()
    for strategy in (whole, stopped):
        strategy.use_budget(60)
    loss, waiting = additive_loss(whole.space, seed), []
    for _ in range(15):
        wanted = rng.randint(1, 6)
        asked = whole.ask(wanted)
        assert stopped.ask(wanted) == asked
        waiting += asked
        rng.shuffle(waiting)
        told = [waiting.pop() for _ in range(rng.randint(0, len(waiting)))]
        answers = [
            Measurement(one, None, "failed") if int(one.arch_id, 16) % 7 == 0 else measured(whole, one, loss)
            for one in told
        ]
        whole.tell(answers)
        stopped.tell(answers)
        if rng.random() < 0.5:
            saved = json.loads(json.dumps(stopped.state_dict()))
            stopped = make()
            stopped.use_budget(60)
            stopped.load_state_dict(saved)
            under_way = stopped.ask(len(saved["pending"]))
            assert set(under_way) == set(waiting)
            assert stopped.state_dict() == whole.state_dict()
    assert whole.state_dict()["own"]["distributions"][0]["steps"] > 1


# --- the end, and what is known already ------------------------------------------------------------------------------


def test_the_last_candidates_are_the_most_likely_ones() -> None:
    strategy = make_search(cost_weights=[0.1, 0.3, 1.0], certainty=0.6, paths=2, learning_rate=0.5)
    SearchLoop(strategy, strategy.cheap, budget=43)  # says how many there will be
    loss = additive_loss(strategy.space, 1)
    known: set[Any] = set()
    for _ in range(40):
        asked = strategy.ask(1)
        known |= {*asked}
        strategy.tell([measured(strategy, one, loss) for one in asked])
    modes = strategy.most_likely()
    new = [mode for place, mode in enumerate(modes) if mode not in known and mode not in modes[:place]]
    assert new, "nothing to see"
    last = strategy.ask(3)
    assert [one for one in last if one in modes] == new


def test_a_distribution_that_has_collapsed_does_not_end_the_search() -> None:
    """Nearly certain of everything, it draws the teacher again and again: neighbours are asked, and it terminates."""
    strategy = make_search(cost_weights=[0.0], certainty=0.999999)
    asked = search(strategy, additive_loss(strategy.space, 0), 30)
    assert len({one.architecture for one in asked}) == 30
    shape = EncoderShape(1, 4, 1, 6, 9, 4, 0)
    tiny = make_space(shape=shape, feed_forward_slices=3, query_key_slices=1, fixed_attention=("0",))
    strategy = make_search(tiny, cost_weights=[0.0, 1.0], certainty=0.999)
    asked = search(strategy, lambda one: 1.0, 10_000)
    assert len({one.architecture for one in asked}) == len(asked) == tiny.cardinality()


def test_it_moves_to_where_the_constraints_are_kept() -> None:
    """At the start hardly a draw in a million keeps them."""
    space = make_two_layers()
    limit = 0.3 * space.cost(space.anchors()[0]).flops
    strategy = make_search(space, constraints=[Constraint("flops", limit)], cost_weights=[0.0], certainty=0.95)
    start = strategy.expected_cost_shares()[0]
    asked = strategy.ask(12)
    assert len(set(asked)) == 12
    assert all(space.cost(one).flops <= limit for one in asked)
    assert strategy.expected_cost_shares()[0] < 0.6 * start
    assert strategy.state_dict()["own"]["distributions"][0]["groups"], "after that it draws feasible ones by itself"


# --- what it is given ------------------------------------------------------------------------------------------------


def learned_state(space: ComponentsSpace, odds: float = -1.5) -> dict[str, Any]:
    distribution = space.distribution(0.9)
    return {name: torch.full_like(tensor, odds) for name, tensor in distribution.state_dict().items()}


def test_it_starts_at_what_was_learned_unless_it_shall_not() -> None:
    space = make_two_layers()
    starts = {}
    for start in ("learned", "teacher"):
        strategy = make_search(space, start=start)
        strategy.start_at(learned_state(space))
        starts[start] = strategy
    untouched = make_search(space)
    assert odds_of(starts["teacher"]) == odds_of(untouched)
    for odds in odds_of(starts["learned"]):
        assert all((np.array(values) == -1.5).all() for values in odds.values())
    assert starts["learned"].ask(1) == [starts["learned"].most_likely()[0]] != untouched.ask(1)


def test_what_was_learned_begins_no_surer_than_the_option_says() -> None:
    strategy = make_search(certainty=0.9)
    strategy.start_at(learned_state(strategy.space, odds=20.0))
    values = np.concatenate([np.ravel(values) for values in odds_of(strategy)[0].values()])
    assert values == pytest.approx(np.log(9.0), abs=1e-5)


def test_a_loaded_state_counts_more_than_what_was_learned_before() -> None:
    strategy, resumed = make_search(), make_search()
    search(strategy, additive_loss(strategy.space, 0), 40)
    resumed.start_at(learned_state(strategy.space))
    resumed.load_state_dict(strategy.state_dict())
    assert odds_of(resumed) == odds_of(strategy)


def test_a_distribution_over_another_space_is_refused() -> None:
    strategy = make_search(make_heads_space())
    with pytest.raises(UserError, match=r"option start: .* found \[2, 4\] of .*; set start: teacher") as caught:
        strategy.start_at(learned_state(make_two_layers()))
    assert "\n" not in str(caught.value)


def test_costs_are_those_of_the_search_or_of_the_space() -> None:
    space = make_two_layers()
    strategy = make_search(space)
    whole = space.anchors()[0]
    assert strategy.cost.of(whole) == space.cost(whole, strategy.cheap.sequence_length).flops
    flops, latency = space.expected_cost("flops", 7), space.expected_cost("parameters", 7)
    for costs, expected in (({"flops": flops}, flops), ({"flops": flops, "latency_ms": latency}, latency)):
        strategy = make_search(space)
        strategy.use_costs(costs)
        assert strategy.cost is expected
    strategy = make_search(space, **PARAMETERS_COUNT)
    assert strategy.cost.of(whole) == space.cost(whole).encoder_parameters


def test_mistakes_get_one_line() -> None:
    with pytest.raises(UserError, match="strategy sampling_distribution: the space 'toy' has no distribution"):
        DistributionSearch(ToySpace(), [LOSS], [], 0)
    with pytest.raises(UserError, match="found the objectives measured_latency_ms, expected loss among them"):
        DistributionSearch(make_two_layers(), [MEASURED_LATENCY], [], 0)
    fixed = make_space(shape=SHAPE, fixed_attention=("H1.M",) * 4, fixed_feed_forward=("0",) * 4)
    with pytest.raises(UserError, match="everything is fixed in the space 'components'"):
        DistributionSearch(fixed, [LOSS], [], 0)
    with pytest.raises(UserError, match=r"option cost: found 'latency_ms', .* one of encoder_parameters, flops"):
        search(make_search(cost="latency_ms"), lambda one: 0.0, 40)
    with pytest.raises(UserError, match=r"option cost: found 'latency_ms', .* expected auto or one of flops"):
        make_search(cost="latency_ms").use_costs({"flops": make_two_layers().expected_cost("flops", 7)})
    with pytest.raises(UserError, match=r"option weight_limits: found \[2.0, 5.0\]"):
        make_search(weight_limits=[2.0, 5.0])
    with pytest.raises(UserError, match=r"option cost_weights.1: found -1"):
        make_search(cost_weights=[0.1, -1])
