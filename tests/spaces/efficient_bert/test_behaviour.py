"""Expressions that compute the same are told from those that do not."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
import torch

from spaces.efficient_bert.anchors import published
from spaces.efficient_bert.behaviour import HIDDEN, behaviour_of, evaluate, trial
from spaces.efficient_bert.counting import SERIAL_KINDS, kinds_that_run, tree_counter
from spaces.efficient_bert.expressions import ACTIVATIONS, Expression
from spaces.efficient_bert.modeling import run_expression
from spaces.efficient_bert.rules import TreeLimits, Widths
from spaces.efficient_bert.space import EfficientBertSpace

WIDTHS = Widths(540, 270)
SMALL = tree_counter(TreeLimits(max_nodes=8))


def behaviour(text, widths=WIDTHS):
    return behaviour_of(Expression.parse(text), widths)


@pytest.mark.parametrize("operator", ["add", "mul", "max"])
def test_swapped_operands_behave_alike(operator):
    first, second = "tanh(x)", "linear2(gelu(linear1(x)))"
    assert behaviour(f"{operator}({first},{second})") == behaviour(f"{operator}({second},{first})")
    inside = "linear2(gelu(linear1(add({},relu(x)))))"
    assert behaviour(inside.format("x")) != behaviour(inside.format("tanh(x)"))


def test_algebra_is_seen():
    assert behaviour("linear2(gelu(linear1(max(x,relu(x)))))") == behaviour("linear2(gelu(linear1(relu(x))))")
    assert behaviour("add(x,add(tanh(x),linear2(gelu(linear1(x)))))") == behaviour(
        "add(add(x,tanh(x)),linear2(gelu(linear1(x))))"
    )


def test_one_other_activation_behaves_otherwise():
    """In all 706 serial trees, but those in which a maximum may leave nothing of the difference."""
    asked = 0
    for expression in SMALL.enumerate(SERIAL_KINDS):
        for place, node in enumerate(expression.walk()):
            if node.operator not in ACTIVATIONS or "max" in str(expression):
                continue
            others = [expression.replaced(place, Expression(one, node.arguments)) for one in ACTIVATIONS]
            assert len({behaviour_of(other, WIDTHS) for other in others}) == len(ACTIVATIONS), str(expression)
            asked += 1
    assert asked > 1_000


@pytest.mark.parametrize("widths", [Widths(8, 4), Widths(8, 8), Widths(8, 16), Widths(8, 16, "pad")])
def test_equal_behaviour_means_equal_functions(widths):
    """Trees of one behaviour agree on other inputs and weights, too; most trees have a behaviour of their own."""
    groups = defaultdict(list)
    trees = list(SMALL.enumerate(kinds_that_run(widths, parallel=True)))
    for tree in trees:
        groups[behaviour_of(tree, widths)].append(tree)
    assert len(groups) > 0.5 * len(trees)
    x_TH, weights = trial(5 if widths.inner < 8 else 8 if widths.inner == 8 else 11, seed=3)
    for alike in groups.values():
        values = [evaluate(tree, x_TH, weights, widths.rule) for tree in alike]
        assert all(np.allclose(value, values[0], atol=1e-9) for value in values), list(map(str, alike))
    assert len(groups) < len(trees), "swapped operands are among them"


@pytest.mark.parametrize("width_rule", ["crop", "pad"])
def test_what_is_hashed_is_what_models_compute(width_rule):
    inner = {"crop": 5, "pad": 11}[width_rule]
    x_TH, weights = trial(inner)
    maps = [_linear_map(*(torch.from_numpy(values) for values in pair)) for pair in weights.values()]
    for tree in SMALL.enumerate(kinds_that_run(Widths(HIDDEN, inner, width_rule), parallel=False)):
        expected = run_expression(tree.nested(), torch.from_numpy(x_TH)[None], *maps, width_rule)[0]
        found = evaluate(tree, x_TH, weights, width_rule)
        assert np.allclose(found, expected.numpy(), atol=1e-9), str(tree)


def _linear_map(matrix, bias):
    return lambda values: values @ matrix + bias


def test_networks_behave_by_sizes_and_expressions():
    space = EfficientBertSpace()
    found = published(540, 6)
    assert space.behaviour(found) == space.behaviour(space.parse(str(found)))
    swapped = space.parse(str(found).replace("mul(linear1(x),x)", "mul(x,linear1(x))"))
    assert swapped != found
    assert space.behaviour(swapped) == space.behaviour(found)
    for before, after in (
        ("relu(mul", "elu(mul"),
        ("mul(", "add("),
        ("4_2", "4_3"),
        ("tanh(linear2", "sigmoid(linear2"),
    ):
        assert space.behaviour(space.parse(str(found).replace(before, after))) != space.behaviour(found)


def test_cropping_makes_behaviours():
    """Which of hidden and inner size is larger decides what a combination sees."""
    text = "linear2(gelu(mul(linear1(x),x)))"
    assert behaviour(text, Widths(8, 4)) == behaviour(text, Widths(540, 135))
    assert len({behaviour(text, Widths(8, inner)) for inner in (4, 8)}) == 2
