"""What the latency of networks of components is a sum over, and what prices of that say."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.components.architecture import ComponentsArchitecture
from spaces.components.sublayers import SublayerChoice
from spaces.components.text import parse_architecture
from tests.spaces.components.microscopic import TEXT, make_space

SPACES = {
    "paper": make_space(),
    "pruning": make_space(vertical=()),
    "parallel heads": make_space(vertical=("feed_forward",)),
    "one slice of queries and keys": make_space(query_key_slices=1),
    "a fixed attention": make_space(fixed_attention=("H1-4.Q1.M", "0", "H1>2", "H3.Q1-2")),
    "within what has lost a first attention": make_space(within="F5|H2-3.Q1.M/F2.M|0|H1-4.Q2/F1-3"),
    "within plain heads without means": make_space(within="H1-2/F1|F2-4|0|H1-3>4/F1-8"),
    "a fixed feed-forward": make_space(fixed_feed_forward=("F1-8.M", "0", "F1>2", "F3")),
}
spaces = st.sampled_from(list(SPACES.values()))
seeds = st.integers(0, 2**32)


def some_prices(space, seed):
    rng = random.Random(seed)
    return {name: rng.uniform(0, 2) for name in space.latency_terms()}, rng.uniform(0, 2)


def test_counts_of_a_network():
    space = make_space()
    found = dict(zip(space.latency_terms(), space.latency_counts(parse_architecture(TEXT)), strict=True))
    assert found == {
        "attention.norm": 2,
        "attention.norm_without_mean": 1,
        "attention.component": 7,
        "attention.plain_component": 2,
        "attention.component_slice": 3 + 8,
        "attention.stage": 3,
        "attention.plain_stage": 1,
        "feed_forward.norm": 1,
        "feed_forward.norm_without_mean": 1,
        "feed_forward.component": 5 + 8,
        "feed_forward.stage": 4,
    }


@settings(max_examples=60, deadline=None)
@given(space=spaces, seed=seeds)
def test_counts_times_prices_are_what_the_additive_cost_says(space, seed):
    prices, base = some_prices(space, seed)
    one = space.sample(random.Random(seed))
    cost = space.latency_cost(prices, base)
    assert cost.name == "latency_ms"
    told = base + sum(price * count for price, count in zip(prices.values(), space.latency_counts(one), strict=True))
    assert cost.of(one) == pytest.approx(told)


@settings(max_examples=30, deadline=None)
@given(space=spaces, seed=seeds)
def test_a_narrowed_space_takes_the_prices_of_the_whole_one(space, seed):
    prices, base = some_prices(space, seed)
    rng = random.Random(seed)
    winner = space.sample(rng)
    for aspect in space.aspects():
        if not space.narrowed(winner, [aspect])._searched:
            continue
        narrow = space.narrowed(winner, [aspect])
        one = narrow.sample(rng)
        assert narrow.latency_cost(prices, base).of(one) == pytest.approx(space.latency_cost(prices, base).of(one))


@pytest.mark.parametrize("name", SPACES)
def test_no_term_follows_from_the_others_nor_is_the_same_in_every_network(name):
    space, rng = SPACES[name], random.Random(1)
    counts = np.array([[*space.latency_counts(space.sample(rng)), 1.0] for _ in range(400)])
    assert np.linalg.matrix_rank(counts) == len(space.latency_terms()) + 1


@pytest.mark.parametrize("name", SPACES)
def test_the_terms_say_as_much_as_all_counts_do(name):
    """What was left out is a sum of what was not: every additive cost is one of prices, down to a constant."""
    from spaces.components.additive_cost import counts_of

    space, rng = SPACES[name], random.Random(2)
    drawn = [space.sample(rng) for _ in range(400)]
    terms = np.array([[*space.latency_counts(one), 1.0] for one in drawn])
    halves = [[sum(map(np.array, map(counts_of, one.sublayers[half::2]))) for half in (0, 1)] for one in drawn]
    everything = np.column_stack([terms, np.array(halves).reshape(len(drawn), -1)])
    assert np.linalg.matrix_rank(everything) == np.linalg.matrix_rank(terms)


def test_the_expected_latency_is_the_mean_of_what_is_drawn():
    space = make_space()
    prices, base = some_prices(space, 5)
    cost, distribution = space.latency_cost(prices, base), space.distribution(0.7)
    generator = torch.Generator().manual_seed(3)
    drawn = torch.tensor([cost.of(distribution.draw(generator)) for _ in range(500)])
    expected = cost.expected(distribution)
    assert abs(float(drawn.mean()) - float(expected.detach())) <= 4 * float(drawn.std()) / 500**0.5
    expected.backward()
    assert all(parameter.grad.any() for parameter in distribution.parameters() if parameter.numel())


def first_layer(attention, feed_forward):
    nothing = [SublayerChoice()] * 6
    return ComponentsArchitecture.of_sublayers([attention, feed_forward, *nothing])


@given(seed=seeds)
def test_what_one_more_costs_is_the_difference_that_it_makes(seed):
    space = make_space()
    prices, base = some_prices(space, seed)
    cost = space.latency_cost(prices, base)
    told = {one.name: one for one in space.marginal_latencies(prices)}
    alone = {"head": ((0, 1), True), "head without queries and keys": ((), True), "feed-forward slice": ((), False)}
    for name, (slices, of_attention) in alone.items():

        def network(stages, slices=slices, of_attention=of_attention):
            choice = SublayerChoice(stages, slices, True)
            return first_layer(*((choice, SublayerChoice()) if of_attention else (SublayerChoice(), choice)))

        before = cost.of(network(((0,),)))
        assert cost.of(network(((0, 1),))) - before == pytest.approx(told[name].horizontal_ms)
        assert cost.of(network(((0,), (1,)))) - before == pytest.approx(told[name].vertical_ms)
    with_mean, without = (SublayerChoice(((0,),), (), mean) for mean in (True, False))
    saved = cost.of(first_layer(with_mean, with_mean)) - cost.of(first_layer(without, with_mean))
    assert saved == pytest.approx(told["mean of the LayerNorm behind attention"].horizontal_ms)


def test_what_cannot_stand_behind_others_has_no_vertical_cost():
    for name, vertical in (("pruning", set()), ("parallel heads", {"feed-forward slice"})):
        space = SPACES[name]
        found = space.marginal_latencies(some_prices(space, 1)[0])
        assert {one.name for one in found if one.vertical_ms is not None} == vertical


def test_what_is_fixed_has_no_terms_and_no_marginal_costs():
    space = SPACES["a fixed attention"]
    assert {name.partition(".")[0] for name in space.latency_terms()} == {"feed_forward"}
    assert not any("head" in one.name or "attention" in one.name for one in space.marginal_latencies({}))
    whole = make_space(fixed_attention=("H1-4",) * 4, fixed_feed_forward=("F1",) * 4)
    assert whole.latency_terms() == ()


def test_what_no_network_has_is_not_told_of():
    found = {one.name for one in SPACES["within plain heads without means"].marginal_latencies({})}
    assert found == {"head without queries and keys", "feed-forward slice"}


def test_every_term_is_told_in_words():
    for space in SPACES.values():
        assert tuple(space.latency_meanings()) == space.latency_terms()
        assert len(set(space.latency_meanings().values())) == len(space.latency_terms())


def test_sizes_that_prices_hang_on():
    sizes = make_space().latency_sizes()
    assert sizes == make_space(dropout=0.0, drawing="architectures").latency_sizes()
    for change in ({"feed_forward_slices": 4}, {"query_key_slices": 4}, {"fixed_attention": ("H1",) * 4}):
        assert make_space(**change).latency_sizes() != sizes
