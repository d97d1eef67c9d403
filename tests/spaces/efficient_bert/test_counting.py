"""Counts of valid expressions, and the one order that drawing and enumeration share."""

from __future__ import annotations

import random
from collections import Counter
from functools import lru_cache
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.efficient_bert.counting import ALL_KINDS, FORM_ALPHABET, SERIAL_KINDS, Alphabet, TreeCounter, tree_counter
from spaces.efficient_bert.expressions import LINEAR_MAPS, PLAIN, Expression, X
from spaces.efficient_bert.rules import TreeLimits, broken_rule, is_serial


@pytest.mark.parametrize(("nodes", "valid", "serial"), [(6, 7, 7), (7, 111, 111), (8, 811, 706)])
def test_valid_trees_are_those_of_the_paper(nodes, valid, serial):
    counter = TreeCounter(TreeLimits(max_nodes=nodes))
    assert counter.count(ALL_KINDS) == valid
    assert counter.count(SERIAL_KINDS) == serial
    listed = list(counter.enumerate(ALL_KINDS))
    assert len(set(listed)) == valid
    assert sum(map(is_serial, listed)) == serial
    assert all(broken_rule(tree, TreeLimits(max_nodes=nodes, parallel=True)) is None for tree in listed)


FEW = Alphabet(("gelu", "tanh"), ("max",))


@lru_cache
def all_trees(nodes):
    """Every tree of so many nodes and few operators, valid or not."""
    if nodes == 1:
        return [X]
    trees = [Expression(name, (one,)) for name in FEW.activations for one in all_trees(nodes - 1)]
    if nodes > 2:
        trees += [Expression(name, (one,)) for name in LINEAR_MAPS for one in all_trees(nodes - 2)]
    for left in range(1, nodes - 1):
        for name, one, two in product(FEW.combinations, all_trees(left), all_trees(nodes - 1 - left)):
            trees.append(Expression(name, (one, two)))
    return trees


def test_counts_are_those_of_brute_force():
    """Trees are made of all operators and sorted out by the rules, one after the other."""
    limits = TreeLimits(min_height=2, max_height=5, max_nodes=9, parallel=True)
    valid = [tree for nodes in range(1, 10) for tree in all_trees(nodes) if broken_rule(tree, limits) is None]
    counter = TreeCounter(limits, FEW)
    assert set(counter.enumerate(ALL_KINDS)) == set(valid)
    assert counter.count(ALL_KINDS) == len(valid)
    assert counter.by_nodes(ALL_KINDS) == Counter(tree.nodes for tree in valid)
    assert counter.by_height(ALL_KINDS) == Counter(tree.height for tree in valid)
    serial = [tree for tree in valid if is_serial(tree)]
    assert counter.by_height(SERIAL_KINDS) == Counter(tree.height for tree in serial)


def test_the_order_is_by_nodes_and_leads_back():
    counter = TreeCounter(TreeLimits(max_nodes=8))
    listed = list(counter.enumerate(ALL_KINDS))
    assert listed[0] == PLAIN
    assert [tree.nodes for tree in listed] == sorted(tree.nodes for tree in listed)
    assert [counter.place(tree, ALL_KINDS) for tree in listed] == list(range(811))
    with pytest.raises(IndexError):
        counter.at(811, ALL_KINDS)
    with pytest.raises(IndexError):
        counter.at(-1, ALL_KINDS)


@pytest.mark.parametrize(
    "text",
    [
        "linear2(linear1(x))",
        "linear2(gelu(linear1(add(x,x))))",
        "linear2(gelu(linear1(add(elu(x),elu(x)))))",
        "linear1(gelu(linear2(x)))",
        "gelu(tanh(linear2(gelu(linear1(x)))))",
        "x",
    ],
)
def test_other_trees_have_no_place(text):
    with pytest.raises(ValueError, match=r"none of the trees|equal operands|in an order"):
        tree_counter(TreeLimits(max_nodes=10)).place(Expression.parse(text), ALL_KINDS)


@settings(max_examples=15)
@given(st.integers(0, 2**64), st.integers(7, 16), st.integers(3, 7))
def test_places_of_large_spaces_lead_there_and_back(number, nodes, height):
    limits = TreeLimits(max_height=height, max_nodes=nodes, parallel=True)
    counter = tree_counter(limits)
    place = number % counter.count(ALL_KINDS)
    tree = counter.at(place, ALL_KINDS)
    assert broken_rule(tree, limits) is None
    assert counter.place(tree, ALL_KINDS) == place


def test_draws_are_uniform():
    """Chi-square of 111 trees, each expected 60 times: 110 degrees of freedom, so 0.1 % lie above 163."""
    counter = TreeCounter(TreeLimits(max_nodes=7))
    rng = random.Random(0)
    drawn = Counter(counter.sample(rng, SERIAL_KINDS) for _ in range(60 * 111))
    assert len(drawn) == 111
    assert sum((count - 60) ** 2 / 60 for count in drawn.values()) < 163


def test_forms_are_expressions_without_their_operators():
    """Every form stands for 7 to the activations times 3 to the combinations, or 42 for two activations of x."""
    limits = TreeLimits(max_nodes=9, parallel=True)
    fillings = 0
    for form in TreeCounter(limits, FORM_ALPHABET).enumerate(ALL_KINDS):
        pairs = form.text.count("add(gelu(x),gelu(x))")
        fillings += 42**pairs * 7 ** (form.text.count("gelu") - 2 * pairs) * 3 ** form.text.count("add")
    assert fillings == TreeCounter(limits).count(ALL_KINDS) == 6_817
