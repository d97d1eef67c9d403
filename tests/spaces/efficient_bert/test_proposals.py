"""The proposals of the paper's code have the law that the paper notes measured (section 2.7)."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from spaces.efficient_bert.anchors import published
from spaces.efficient_bert.expressions import PLAIN
from spaces.efficient_bert.options import EfficientBertOptions
from spaces.efficient_bert.proposals import Proposals
from spaces.efficient_bert.rules import TreeLimits, broken_rule
from spaces.efficient_bert.space import EfficientBertSpace

LIMITS = TreeLimits(parallel=True)
FOUND = published(540, 6)


@pytest.mark.parametrize(
    ("linear_maps", "accepted", "seven_nodes"), [(16, 0.0026, 0.81), (1, 0.0078, 0.69)], ids=["stage 1", "stage 2"]
)
def test_few_mutations_are_valid_and_most_add_one_operation(linear_maps, accepted, seven_nodes):
    proposals = Proposals(LIMITS, linear_maps)
    rng = random.Random(0)
    tries = 40_000
    mutated = [proposals.mutated(PLAIN, rng) for _ in range(tries)]
    valid = [one for one in mutated if one is not None and broken_rule(one, LIMITS) is None]
    assert len(valid) / tries == pytest.approx(accepted, rel=0.3)
    nodes = Counter(one.nodes for one in valid)
    assert nodes[7] / len(valid) == pytest.approx(seven_nodes, abs=0.13)
    assert nodes.most_common(1)[0][0] == 7


def test_the_third_stage_likes_the_sizes_it_starts_from():
    """27.4 % of its draws are within the window, against 26.7 % of all vectors (paper notes, section 2.6)."""
    winner = FOUND
    options = EfficientBertOptions(mutation="proposal")
    free = EfficientBertSpace(options).narrowed(winner, ["expressions"])
    rng = random.Random(0)
    drawn = [free.sample(rng) for _ in range(3_000)]
    assert {architecture.expressions for architecture in drawn} == {winner.expressions}
    kept = sum(a.linear_id == b.linear_id for one in drawn for a, b in zip(one.blocks, winner.blocks, strict=True))
    assert kept / (6 * len(drawn)) == pytest.approx(2 / 17, abs=0.01)
    within = sum(15_000_000 <= free.cost(architecture).parameters <= 16_000_000 for architecture in drawn)
    assert within / len(drawn) == pytest.approx(0.274, abs=0.025)


def test_proposals_start_from_the_plain_network_or_from_the_winner():
    options = EfficientBertOptions(mutation="proposal", max_nodes=None)
    rng = random.Random(0)
    first = EfficientBertSpace(options)
    assert max(choice.expression.nodes for _ in range(5) for choice in first.sample(rng).blocks) <= 12
    second = first.narrowed(FOUND, ["sizes"])
    drawn = [second.sample(rng) for _ in range(6)]
    assert {architecture.linear_ids for architecture in drawn} == {FOUND.linear_ids}
    assert any("max(x,tanh(x))" in str(one.blocks[3]) for one in drawn), "some start from the winner's expression"
    assert any("max(x,tanh(x))" not in str(one.blocks[3]) for one in drawn), "some from the plain one"
    assert len(set(drawn)) == 6


def test_bases_that_may_not_be_kept_are_not_given_back():
    """Where the plain feed-forward itself is not valid, expressions are drawn instead."""
    space = EfficientBertSpace(EfficientBertOptions(mutation="proposal", min_height=4, layers=1))
    rng = random.Random(0)
    assert all(space.contains(space.sample(rng)) for _ in range(20))
