"""Bins, rounds and draws on plain numbers: nothing here is trained."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from spaces.nas_bert.space import NasBertSpace
from tests.spaces.microscopic import make_space
from trainers import population as population_module
from trainers.errors import TrainingInputError
from trainers.population import Population, RemovalRules, assign_bins, law_weights, rounds_ahead

SPACE = make_space(layers_per_block=2, hidden_sizes=(16, 32), operations=("M", "F1", "S3"))  # 24 architectures
COSTS = SPACE.block_costs(12)

PAPER_BINS = {1: 46_770, 2: 17_364, 3: 13_028, 10: 7}


def make_population(rules: RemovalRules, bins: int = 3, space: NasBertSpace = SPACE, **options) -> Population:
    costs = space.block_costs(12)
    return Population(space, *assign_bins(costs.parameters, costs.flops, bins, "none"), rules, **options)


# --- bins -------------------------------------------------------------------------------------------------------------


def test_the_paper_s_bins_and_its_latency_rules_with_flops():
    costs = NasBertSpace().block_costs(128)
    bins_N, allowed_N = assign_bins(costs.parameters, costs.flops, 10, "two_sided")
    counts = np.bincount(bins_N)
    assert counts.sum() == 97_650
    assert {number: counts[number] for number in PAPER_BINS} == PAPER_BINS
    assert bins_N[costs.parameters.argmax()] == 10
    assert allowed_N.sum() == 91_562
    assert assign_bins(costs.parameters, costs.flops, 10, "upper")[1].sum() == 91_577
    assert assign_bins(costs.parameters, costs.flops, 10, "none")[1].all()


@given(st.lists(st.tuples(st.integers(1, 10**7), st.floats(0.01, 100.0)), min_size=1, max_size=50), st.integers(1, 12))
def test_a_bin_has_its_share_of_parameters_and_latency(architectures, bins):
    parameters = np.array([p for p, _ in architectures])
    latencies = np.array([ms for _, ms in architectures])
    bins_N, allowed_N = assign_bins(parameters, latencies, bins, "two_sided")
    upper_N = assign_bins(parameters, latencies, bins, "upper")[1]
    largest = parameters.argmax()
    assert bins_N[largest] == bins
    for p, ms, number, allowed, below in zip(parameters, latencies, bins_N, allowed_N, upper_N, strict=True):
        assert (number - 1) * parameters[largest] < p * bins <= number * parameters[largest]
        assert below == (ms * bins <= number * latencies[largest])
        assert allowed == (below and ms * bins > (number - 1) * latencies[largest])


# --- rounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "rounds"),
    [
        (RemovalRules(), (53, 24, 19, 0)),
        (RemovalRules(evaluate="all", remove="half_bin"), (13, 11, 11, 0)),
        (RemovalRules(by="operations"), (24, 21, 20, 0)),  # 30 % of what is left each round
    ],
)
def test_the_rounds_that_the_paper_s_bins_need(rules, rounds):
    assert tuple(len(rounds_ahead([count], rules)) for count in PAPER_BINS.values()) == rounds


def test_the_worst_half_of_a_sample_dies():
    rules = RemovalRules(sample=6, keep=2)
    population = make_population(rules, bins=1, seed=5)
    before = population.alive
    chosen = population.to_evaluate(1, 0)
    assert len(chosen) == 6
    losses = np.array([0.3, 0.9, 0.1, 0.8, 0.2, np.nan])
    (report,) = population.shrink(0, chosen, losses)
    died = np.flatnonzero(before[0] & ~population.alive[0])
    assert sorted(died) == sorted(chosen[[1, 3, 5]]), "a loss that is no number is the worst"
    assert (report.live_before, report.removed, len(report.losses)) == (24, 3, 6)
    assert np.array_equal(population.alive[1], before[1]), "another block was shrunk along"


def test_all_are_evaluated_where_that_is_wanted():
    population = make_population(RemovalRules(evaluate="all", remove="half_bin", keep=1), bins=1)
    chosen = population.to_evaluate(1, 0)
    assert np.array_equal(chosen, np.arange(24))
    (report,) = population.shrink(0, chosen, np.arange(24.0))
    assert report.removed == 12
    assert np.array_equal(np.flatnonzero(population.alive[0]), np.arange(12))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(2, 12),
    st.integers(1, 4),
    st.sampled_from(["half_sampled", "half_bin", "operations"]),
    st.integers(0, 2**32 - 1),
)
def test_any_shrinking_ends_and_keeps_its_promises(bins, sample, keep, how, seed):
    by = "operations" if how == "operations" else "architectures"
    remove, evaluate = ("half_bin", "all") if how == "half_bin" else ("half_sampled", "sample")
    rules = RemovalRules(evaluate, sample, remove, keep, by)
    population = make_population(rules, bins, seed=seed)
    again = make_population(rules, bins, seed=seed)
    initial = population.live_counts(0)
    rng = np.random.default_rng(seed)
    rounds = 0
    while not population.done:
        rounds += 1
        assert rounds <= 100, "it does not end"
        for block in range(SPACE.num_blocks):
            chosen = population.to_evaluate(rounds, block)
            losses = rng.random(len(chosen))
            before = population.alive[block]
            reports = population.shrink(block, chosen, losses)
            assert np.array_equal(again.to_evaluate(rounds, block), chosen)
            again.shrink(block, chosen, losses)
            after = population.alive[block]
            assert before[chosen].all(), "the dead were evaluated"
            assert not (after & ~before).any(), "the dead rose"
            died = np.flatnonzero(before & ~after)
            for report in reports:
                of_bin = population.bins_N[chosen] == report.bin
                of_bin_died = died[population.bins_N[died] == report.bin]
                assert report.removed == len(of_bin_died) >= rules.removed(report.live_before)
                if by == "architectures":
                    ranked = chosen[of_bin][np.argsort(losses[of_bin])]
                    assert set(of_bin_died) == set(ranked[len(ranked) - report.removed :].tolist())
            counts = population.live_counts(block)
            assert (counts >= np.minimum(keep, initial)).all()
    if by == "architectures":
        assert rounds == len(rounds_ahead(initial.tolist(), rules))
    assert np.array_equal(again.alive, population.alive)
    assert np.array_equal(population.live_counts(0), np.minimum(initial, keep))


def test_the_worst_operation_goes_with_all_that_have_it():
    rules = RemovalRules(evaluate="all", keep=2, by="operations", operation_share=0.3)
    population = make_population(rules, bins=1)
    chosen = population.to_evaluate(1, 0)
    blocks = [SPACE.block_at(int(index)) for index in chosen]
    bad = [block.hidden_size == 32 and block.operations[0] == "M" for block in blocks]
    losses = np.array([1.0 if is_bad else 0.1 for is_bad in bad]) + np.arange(len(blocks)) * 1e-4
    (report,) = population.shrink(0, chosen, losses)
    assert report.dropped_operations[0] == "layer 1: 32 M"
    alive = [block for block, living in zip(blocks, population.alive[0], strict=True) if living]
    assert not any(block.hidden_size == 32 and block.operations[0] == "M" for block in alive)
    assert report.removed >= 0.3 * 24


# --- draws ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", ["architectures", "operations"])
def test_the_living_are_drawn_by_the_law_and_nobody_else(law):
    population = make_population(RemovalRules(), law=law)
    alive = population.alive
    alive[0, ::3] = False
    population.restore(alive)
    rng = random.Random(4)
    counts = np.zeros(24)
    for _ in range(6000):
        counts[SPACE.block_index(population.draw(0, rng))] += 1
    assert (counts[~alive[0]] == 0).all()
    weights = law_weights(SPACE, law)[alive[0]]
    assert chisquare(counts[alive[0]], weights / weights.sum() * 6000).pvalue > 1e-3


def test_the_law_of_operations_is_the_space_s():
    rng = random.Random(5)
    counts = np.zeros(24)
    for _ in range(8000):
        counts[SPACE.block_index(SPACE.sample_block(rng, "operations"))] += 1
    weights = law_weights(SPACE, "operations")
    assert weights.min() < weights.max()
    assert chisquare(counts, weights / weights.sum() * 8000).pvalue > 1e-3


def test_draws_follow_a_removal():
    population = make_population(RemovalRules(evaluate="all", remove="half_bin", keep=1), bins=1)
    rng = random.Random(0)
    population.draw(0, rng)
    chosen = population.to_evaluate(1, 0)
    population.shrink(0, chosen, np.arange(24.0))
    assert {SPACE.block_index(population.draw(0, rng)) for _ in range(300)} == set(range(12))


@pytest.mark.parametrize("law", ["architectures", "operations"])
def test_a_family_begins_alike_and_each_member_follows_the_law(law):
    population = make_population(RemovalRules(), law=law)
    alive = population.alive
    alive[0, ::5] = False
    population.restore(alive)
    rng = random.Random(6)
    counts = np.zeros((3, 24))
    different = 0
    for _ in range(3000):
        family = population.draw_family(0, rng, 3, shared_layers=1)
        assert len({(block.hidden_size, block.operations[0]) for block in family}) == 1
        different += len(set(family)) > 1
        for member, block in enumerate(family):
            counts[member, SPACE.block_index(block)] += 1
    assert different > 1000
    assert (counts[:, ~alive[0]] == 0).all()
    weights = law_weights(SPACE, law)[alive[0]]
    for member in counts:
        assert chisquare(member[alive[0]], weights / weights.sum() * 3000).pvalue > 1e-3


# --- what cannot be shrunk --------------------------------------------------------------------------------------------


def test_a_space_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(population_module, "ENUMERABLE", 23)
    with pytest.raises(TrainingInputError, match="a block of the space has 24 architectures, expected at most 23"):
        population_module.check_enumerable(SPACE)


def test_a_rule_that_allows_nothing_is_refused():
    bins_N = np.ones(24, dtype=np.int64)
    with pytest.raises(TrainingInputError, match=r"supernet\.shrinking\.latency_rule: no architecture"):
        Population(SPACE, bins_N, np.zeros(24, dtype=bool), RemovalRules())
