"""The proposals of the paper's code have the law that the paper notes measured (section 2.7)."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from spaces.efficient_bert.anchors import published
from spaces.efficient_bert.expressions import ACTIVATIONS, COMBINATIONS, LINEAR_MAPS, PLAIN, Expression, X
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


def in_full(base, linear_maps, rng):
    """One try as the paper's code has it: all is drawn, then looked at; in the order in which proposals draw."""
    below = lambda end: int(rng.random() * end)  # noqa: E731
    linear = [f"linear-{number}" for number in range(linear_maps)]
    names = ["x", "weights1", "weights2", *ACTIVATIONS, *COMBINATIONS, *linear]
    arity = lambda name: 0 if name in names[:3] else 1 if name in ACTIVATIONS else 2  # noqa: E731

    def end_of(tree, start):
        end, waiting = start, 1
        while waiting:
            waiting += arity(tree[end]) - 1
            end += 1
        return end

    def full_tree(depth):
        name = names[3 + below(len(names) - 3)] if depth else names[below(3)]
        return [name, *(inner for _ in range(arity(name)) for inner in full_tree(depth - 1))]

    operator = names[3 + below(len(names) - 3)]
    start, subtree = below(base.nodes), full_tree(below(4))
    name = linear[below(linear_maps)]
    tree = [name if one in LINEAR_MAPS else one for one in base.prefix()]
    tree[start : end_of(tree, start)] = subtree
    if len(tree) > 1:
        place = 1 + below(len(tree) - 1)
        alike = [one for one in names if arity(one) == arity(tree[place])]
        tree[place] = alike[below(len(alike))]
    start = below(len(tree))
    arguments = [[names[below(3)]] for _ in range(arity(operator))]
    arguments[below(len(arguments))] = tree[start : end_of(tree, start)]
    tree[start : end_of(tree, start)] = [operator, *(one for argument in arguments for one in argument)]
    own = [one for one in tree if one in linear]
    once = tree.count("weights1") == tree.count("weights2") == 1
    found = typed(tree, linear) if once and len(own) == 2 and len(set(own)) == 1 else None
    return found if isinstance(found, Expression) else None


def typed(tree, linear):
    """What begins a tree, which is used up: an expression or weights; ``None`` where the two are mixed up."""
    name = tree.pop(0)
    if name == "x" or name.startswith("weights"):
        return X if name == "x" else name
    arguments = [typed(tree, linear) for _ in range(1 if name in ACTIVATIONS else 2)]
    if name in linear and isinstance(arguments[0], Expression) and isinstance(arguments[1], str):
        return Expression(f"linear{arguments[1][-1]}", (arguments[0],))
    if name in linear or not all(isinstance(one, Expression) for one in arguments):
        return None
    return Expression(name, tuple(arguments))


@pytest.mark.parametrize("linear_maps", [1, 16])
@pytest.mark.parametrize("base", [PLAIN, *FOUND.expressions[3:5]], ids=str)
def test_trying_no_longer_than_there_is_hope_changes_no_try(base, linear_maps):
    """Each try comes to what it comes to if everything is drawn, so the law is the same."""
    proposals, found = Proposals(LIMITS, linear_maps), 0
    for number in range(4_000):
        whole = in_full(base, linear_maps, random.Random(number))
        assert proposals.mutated(base, random.Random(number)) == whole
        found += whole is not None
    assert found > 10, "enough to compare"


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
