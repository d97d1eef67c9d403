"""The distribution over genes: what it draws, how likely that is, and what it costs on the average."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.components.additive_cost import (
    COUNTS,
    AdditiveCost,
    counts_of,
    expected_counts,
    flops_prices,
    parameter_prices,
)
from spaces.components.distribution import GeneDistribution, SublayerDistribution
from spaces.components.gene_weights import GeneWeights, SublayerWeights
from spaces.components.space import ComponentsSpace
from spaces.encoder_shape import EncoderShape
from tests.spaces.components.microscopic import WITHIN, make_space

SPACES = {
    "whole": {"feed_forward_slices": 3, "query_key_slices": 1},
    "no edges": {"vertical": (), "feed_forward_slices": 2, "query_key_slices": 2},
    "edges of slices": {"vertical": ("feed_forward",), "feed_forward_slices": 3, "query_key_slices": 2},
    "a fixed feed-forward": {"feed_forward_slices": 2, "query_key_slices": 2, "fixed_feed_forward": ("F1",)},
    "within": {"feed_forward_slices": 4, "query_key_slices": 2, "within": "H2.Q2/F1,3>4.M"},
    "within stages": {"feed_forward_slices": 3, "query_key_slices": 1, "within": "H1>2.M/F3"},
    "within, no edges": {"vertical": (), "feed_forward_slices": 4, "query_key_slices": 2, "within": "H1-2.Q1/F2-3"},
    "an absent attention": {"feed_forward_slices": 3, "query_key_slices": 1, "fixed_attention": ("0",)},
}


def little_space(name: str = "whole") -> ComponentsSpace:
    shape = EncoderShape(1, 12, 2, 12, 9, 4, 0)
    return make_space(shape=shape, **SPACES[name])


@cache
def everything(name: str):
    """All architectures of a little space."""
    space = little_space(name)
    kinds = [replace(kind, within=None) for kind in space.options.sublayers]
    pairs = itertools.product(*([kind.at(place) for place in range(kind.count)] for kind in kinds))
    return [one for one in map(type(space.smallest()).of_sublayers, pairs) if space.contains(one)]


def shaken(distribution: GeneDistribution, seed: int = 0, spread: float = 1.5) -> GeneDistribution:
    """Odds that differ from gene to gene."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in distribution.parameters():
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    return distribution


def make(name: str = "whole", seed: int = 0, spread: float = 1.5) -> GeneDistribution:
    return shaken(GeneDistribution(little_space(name).options), seed, spread).double()


def all_prices(options):
    """A table in which every count has a price of its own."""
    generator = torch.Generator().manual_seed(7)
    prices_SK = torch.rand(len(options.sublayers), len(COUNTS), generator=generator, dtype=torch.float64)
    return AdditiveCost("prices", prices_SK, 3.0)


def entropy_of(probability):
    return -probability * math.log(probability) - (1 - probability) * math.log(1 - probability)


# --- probabilities ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACES)
def test_probabilities_of_all_architectures_add_up_to_one(name):
    assert len(everything(name)) == little_space(name).cardinality()
    for seed in range(3):
        found = make(name, seed).log_probability(everything(name)).detach().exp()
        assert float(found.sum()) == pytest.approx(1, abs=1e-9)
        assert (found > 0).all()


@pytest.mark.parametrize("name", SPACES)
def test_what_is_drawn_follows_the_probabilities(name):
    """1,000 draws from odds at which a third of them would be empty, were the empty network among them."""
    distribution = make(name, spread=0.7)
    with torch.no_grad():
        for _, half in distribution.searched():
            half.presence_LN -= 1.2
    generator = torch.Generator().manual_seed(1)
    drawn = Counter(distribution.draw(generator) for _ in range(1000))
    expected = distribution.log_probability(everything(name)).exp().tolist()
    assert set(drawn) <= set(everything(name))
    for one, probability in zip(everything(name), expected, strict=True):
        spread = math.sqrt(1000 * probability * (1 - probability))
        assert abs(drawn[one] - 1000 * probability) <= 5 * spread + 1, str(one)


def test_draws_depend_on_the_generator_alone():
    space = make_space()
    distribution = shaken(GeneDistribution(space.options))
    draws = [[distribution.draw(torch.Generator().manual_seed(seed)) for seed in range(20)] for _ in range(2)]
    assert draws[0] == draws[1]
    assert len(set(draws[0])) == 20
    assert all(space.contains(one) for one in draws[0])
    gates = [distribution.draw_gates(torch.Generator().manual_seed(seed), 0.5).architecture for seed in range(20)]
    assert gates == draws[0]


def test_it_begins_near_the_teacher():
    space = make_space()
    distribution = GeneDistribution(space.options)
    assert distribution.most_likely() == space.supernet().largest()
    chances = distribution.probabilities().map(torch.Tensor.detach)
    assert float(chances.attention.presence_LN.min()) == pytest.approx(0.95)
    assert float(chances.feed_forward.edges_LN.max()) == pytest.approx(0.05)


def test_it_begins_near_what_the_space_lies_within():
    """Stages of its own included; what it drops is certain, costs nothing, and is not undecided."""
    space = make_space(within=WITHIN)
    distribution = GeneDistribution(space.options, keep=0.9, vertical=0.1)
    assert str(distribution.most_likely()) == WITHIN == str(space.supernet().largest())
    chances = distribution.probabilities().map(torch.Tensor.detach)
    kept = torch.tensor([0.0, 0.9])
    rows = [[1, 1, 0, 1], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    torch.testing.assert_close(chances.attention.presence_LN, kept[torch.tensor(rows)])
    torch.testing.assert_close(chances.attention.edges_LN[0], torch.tensor([0.1, 0.9, 0.0, 0.1]))
    torch.testing.assert_close(chances.attention.query_key_LC[:2], kept[torch.tensor([[0, 1], [0, 0]])])
    torch.testing.assert_close(chances.feed_forward.mean_L, kept[torch.tensor([0, 1, 0, 0])])
    components, others = 12, 4
    undecided = (components + others) * entropy_of(0.9) + 0.9 * components * entropy_of(0.1)
    assert float(distribution.entropy().detach()) == pytest.approx(undecided)
    drawn = [shaken(distribution, seed).draw(torch.Generator().manual_seed(seed)) for seed in range(30)]
    assert all(space.contains(one) for one in drawn)


@pytest.mark.parametrize("name", ["within", "within stages", "within, no edges"])
def test_what_is_dropped_has_no_gradient(name):
    """Neither of a probability, nor of a cost, nor of gates, which are zeros there."""
    distribution = make(name)
    largest = GeneWeights.of(little_space(name).supernet().largest(), distribution.options)
    gates = distribution.draw_gates(torch.Generator().manual_seed(0), 0.5)
    value = distribution.log_probability(everything(name)[:9]).sum() + all_prices(distribution.options).expected(
        distribution
    )
    value = (
        value + distribution.entropy() + sum(tensor.sum() for half in gates.weights.halves for tensor in half.tensors)
    )
    value.backward()
    for half, most, gate in zip(distribution.children(), largest.halves, gates.weights.halves, strict=True):
        for bits, own in (
            (most.presence_LN, "presence_LN"),
            (most.query_key_LC, "query_key_LC"),
            (most.mean_L, "mean_L"),
        ):
            gradient = half.get_parameter(own).grad
            assert torch.equal(gradient != 0, bits > 0), own
            assert not getattr(gate, own)[bits == 0].any()


def test_what_is_fixed_is_certain():
    space = make_space(fixed_attention=("0", "H1", "H1>2.Q1", "H4.M"))
    distribution = shaken(GeneDistribution(space.options))
    draws = [distribution.draw(torch.Generator().manual_seed(seed)) for seed in range(20)]
    assert all(space.contains(one) for one in [*draws, distribution.most_likely()])
    assert {name.split(".")[0] for name, _ in distribution.named_parameters()} == {"feed_forward"}


@pytest.mark.parametrize("odds", [-30.0, 30.0])
def test_even_extreme_odds_leave_something_and_finite_gradients(odds):
    distribution = GeneDistribution(little_space().options)
    with torch.no_grad():
        for parameter in distribution.parameters():
            parameter.fill_(odds)
    drawn = [distribution.draw(torch.Generator().manual_seed(seed)) for seed in range(50)]
    assert not any(one.is_empty for one in drawn)
    assert len(set(drawn)) == (5 if odds < 0 else 1), "any of five components alone, or all of them"
    cost = parameter_prices(distribution.options).expected(distribution)
    (distribution.log_probability(drawn[:3]).sum() + cost).backward()
    for parameter in distribution.parameters():
        assert torch.isfinite(parameter.grad).all()


# --- the likeliest, and how much is undecided ------------------------------------------------------------------------


def test_the_most_likely_is_what_the_likeliest_genes_spell():
    distribution = make()
    with torch.no_grad():
        distribution.attention.presence_LN.copy_(torch.tensor([[-1.0, 2.0]]))
        distribution.feed_forward.presence_LN.copy_(torch.tensor([[1.0, -0.1, 0.1]]))
        distribution.feed_forward.edges_LN.copy_(torch.tensor([[0.1, 9.0, 9.0]]))
        for half in (distribution.attention, distribution.feed_forward):
            half.query_key_LC.fill_(1.0)
            half.mean_L.fill_(-1.0)
    assert str(distribution.most_likely()) == "H2.Q1/F1>3"
    with torch.no_grad():
        distribution.attention.presence_LN.copy_(torch.tensor([[-1.0, -2.0]]))
        distribution.feed_forward.presence_LN.copy_(torch.tensor([[-1.0, -3.0, -0.9]]))
    assert str(distribution.most_likely()) == "F3", "something has to be left: the likeliest component"


def test_entropy_is_that_of_independent_genes():
    """Against the sum over all codes of a network that cannot vanish, edges counted where they make a difference."""
    distribution = make("a fixed feed-forward", seed=2)
    chances = distribution.probabilities().attention.map(torch.Tensor.detach)
    presence, slices, mean = chances.presence_LN[0], chances.query_key_LC[0], chances.mean_L[0]
    edges = chances.edges_LN[0]
    codes = []
    for kept in itertools.product((0, 1), repeat=2):
        for behind in itertools.product(*((0, 1) if one else (0,) for one in kept)):
            likely = 1.0
            for number in range(2):
                likely *= float(presence[number] if kept[number] else 1 - presence[number])
                if kept[number]:
                    likely *= float(edges[number] if behind[number] else 1 - edges[number])
            for bits in itertools.product((0, 1), repeat=3):
                rest = zip(bits, [*slices, mean], strict=True)
                codes.append(likely * math.prod(float(one if bit else 1 - one) for bit, one in rest))
    assert sum(codes) == pytest.approx(1)
    assert float(distribution.entropy().detach()) == pytest.approx(-sum(code * math.log(code) for code in codes))
    likely = distribution.log_probability(everything("a fixed feed-forward")).detach()
    assert float(distribution.entropy().detach()) >= float(-(likely.exp() * likely).sum())


# --- expected cost ---------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), tokens=st.integers(1, 30))
def test_prices_add_up_to_the_cost_by_arithmetic(seed, tokens):
    space = make_space()
    one = space.sample(random.Random(seed))
    cost = space.cost(one, tokens)
    assert parameter_prices(space.options).of(one) == cost.encoder_parameters
    assert flops_prices(space.options, tokens).of(one) == cost.flops


@pytest.mark.parametrize("name", SPACES)
def test_expected_cost_in_closed_form_is_the_mean_over_all_architectures(name):
    for seed in range(3):
        distribution = make(name, seed)
        probability = distribution.log_probability(everything(name)).exp()
        for table in (all_prices(distribution.options), flops_prices(distribution.options, 5)):
            costs = torch.tensor([table.of(one) for one in everything(name)], dtype=torch.float64)
            ways = table.expected(distribution), (probability * costs).sum()
            torch.testing.assert_close(*ways)
            weights = [*distribution.parameters()]
            gradients = [torch.autograd.grad(way, weights, retain_graph=True, materialize_grads=True) for way in ways]
            torch.testing.assert_close(*gradients)


def test_expected_cost_is_the_mean_of_what_is_drawn():
    space = make_space()
    distribution = shaken(GeneDistribution(space.options))
    table = flops_prices(space.options, 12)
    generator = torch.Generator().manual_seed(3)
    costs = torch.tensor([table.of(distribution.draw(generator)) for _ in range(600)])
    expected = float(table.expected(distribution).detach())
    assert abs(float(costs.mean()) - expected) <= 4 * float(costs.std()) / math.sqrt(len(costs))


def test_expected_counts_of_zeros_and_ones_are_the_counts():
    space = make_space()
    for seed in range(20):
        one = space.sample(random.Random(seed))
        genes = GeneWeights.of(one, space.options)
        counts = torch.stack([expected_counts(half) for half in genes.halves], 1).flatten(0, 1)
        assert counts.tolist() == [[float(count) for count in counts_of(choice)] for choice in one.sublayers]


# --- gates -----------------------------------------------------------------------------------------------------------


def test_gates_have_the_law_and_the_gradient_of_a_binary_concrete():
    """The gradient is that of sigmoid((phi + logistic noise) / tau), on the average over bits and noise."""
    ones_L, nothing_LC, temperature = torch.ones(1, dtype=torch.float64), torch.zeros(1, 0, dtype=torch.float64), 0.7
    largest = SublayerWeights(torch.ones(1, 40_000), torch.zeros(1, 40_000), nothing_LC, ones_L)
    half = SublayerDistribution(largest, has_edges=False, keep=0.7, vertical=0.5)
    generator = torch.Generator().manual_seed(5)
    numbers_LN = [torch.rand(1, 40_000, generator=generator, dtype=torch.float64) for _ in range(2)]
    bits_LN = (numbers_LN[0] < 0.7).double()
    genes, noise = (SublayerWeights(one, one, nothing_LC, ones_L / 2) for one in (bits_LN, numbers_LN[1]))
    gates = half.gates(genes, noise, temperature)
    assert torch.equal(gates.presence_LN.double(), bits_LN)
    assert torch.equal(gates.edges_LN, bits_LN), "they are given as they are, where there is nothing to learn"
    (slopes_LN,) = torch.autograd.grad(gates.presence_LN.sum(), half.presence_LN)
    odds = half.presence_LN.detach()[0, 0].double()
    relaxed = torch.sigmoid((odds + torch.logit((torch.arange(20_000) + 0.5) / 20_000)) / temperature)
    slope = float((relaxed * (1 - relaxed) / temperature).mean())
    assert float(slopes_LN.mean()) == pytest.approx(slope, rel=0.02)
