"""Every validity rule of the paper notes, section 2.5, refuses a counter-example, and only that rule does."""

from __future__ import annotations

import pytest

from spaces.efficient_bert.anchors import PUBLISHED
from spaces.efficient_bert.counting import ALL_KINDS, kinds_that_run, tree_counter
from spaces.efficient_bert.expressions import Expression
from spaces.efficient_bert.rules import TREE_RULES, TreeLimits, Widths, broken_rule, is_serial, width_problem
from spaces.errors import ArchitectureSyntaxError

LIMITS = TreeLimits(parallel=True)


def broken(text, limits=LIMITS):
    """The names of all rules that an expression breaks."""
    return [name for name, rule in TREE_RULES.items() if rule(Expression.parse(text), limits) is not None]


@pytest.mark.parametrize(
    ("text", "rule", "words"),
    [
        ("add(linear1(x),linear2(x))", "height", "its height is 2, expected 3 to 7"),
        ("add(x,add(x,add(x,add(x,add(x,linear2(gelu(linear1(x))))))))", "height", "its height is 8, expected 3 to 7"),
        ("linear1(gelu(add(x,tanh(x))))", "linear_maps", "linear2 occurs 0 times, expected once"),
        ("linear2(gelu(add(x,tanh(x))))", "linear_maps", "linear1 occurs 0 times, expected once"),
        ("linear2(gelu(add(linear1(x),linear1(x))))", "linear_maps", "linear1 occurs 2 times, expected once"),
        ("linear1(gelu(linear2(x)))", "linear_maps", "linear2 is finished before linear1"),
        ("add(linear2(tanh(x)),linear1(x))", "linear_maps", "linear2 is finished before linear1"),
        ("tanh(gelu(linear2(relu(linear1(x)))))", "activations", "tanh(gelu(...)) has an activation directly in an"),
        ("relu(relu(add(linear1(x),linear2(x))))", "activations", "relu(relu(...)) has an activation directly in an"),
        ("gelu(linear2(linear1(x)))", "linear_chain", "linear2(linear1(...)) has a linear map directly in a linear"),
        ("linear2(gelu(linear1(add(x,x))))", "equal_operands", "add(x,x) has two equal operands"),
        ("linear2(gelu(linear1(max(elu(x),elu(x)))))", "equal_operands", "max(elu(x),elu(x)) has two equal operands"),
    ],
)
def test_each_rule_refuses_a_counter_example(text, rule, words):
    assert broken(text) == [rule]
    name, problem = broken_rule(Expression.parse(text), LIMITS)
    assert name == rule
    assert words in problem


def test_longer_equal_operands_are_allowed_as_in_the_papers_code():
    """Their texts have commas there; no valid tree within 20 nodes is so short that it would matter for counts of 8."""
    assert broken("linear2(gelu(linear1(mul(add(x,elu(x)),add(x,elu(x))))))") == []


@pytest.mark.parametrize("text", ["linear2(gelu(linear1()))", "linear2(linear1)", "gelu(wb1)", "linear1(x,x)"])
def test_types_and_inputs_are_the_grammars_business(text):
    """Rules 1 and 3: what is typed wrongly, or has no x, is no text."""
    with pytest.raises(ArchitectureSyntaxError):
        Expression.parse(text)


def test_trees_of_too_many_nodes():
    text = "linear2(gelu(linear1(max(x,tanh(x)))))"
    assert broken(text, TreeLimits(max_nodes=8)) == ["nodes"]
    assert broken(text, TreeLimits(max_nodes=9)) == []


def test_parallel_trees_only_where_they_are_wanted():
    text = "add(gelu(linear1(x)),linear2(x))"
    assert not is_serial(Expression.parse(text))
    assert broken(text, TreeLimits()) == ["serial"]
    assert broken(text, TreeLimits(parallel=True)) == []


def test_the_published_expressions_are_valid():
    for block in PUBLISHED:
        expression = Expression.parse(block.partition(":")[2])
        assert broken_rule(expression, TreeLimits()) is None
        assert width_problem(expression, Widths(540, 180)) is None


@pytest.mark.parametrize(
    ("text", "widths", "problem"),
    [
        ("add(gelu(linear1(x)),linear2(x))", Widths(4, 4), None),
        ("add(gelu(linear1(x)),linear2(x))", Widths(4, 2), "linear2 gets something 4 wide, expected 2"),
        ("add(gelu(linear1(x)),linear2(x))", Widths(4, 4, "pad"), None),
        ("linear2(mul(linear1(x),x))", Widths(4, 2), None),
        ("linear2(mul(linear1(x),x))", Widths(4, 8), "linear2 gets something 4 wide, expected 8"),
        ("linear2(mul(linear1(x),x))", Widths(4, 8, "pad"), None),
        ("linear2(mul(linear1(x),x))", Widths(4, 2, "pad"), "linear2 gets something 4 wide, expected 2"),
        ("max(x,linear2(gelu(linear1(x))))", Widths(4, 8), None),
        ("linear1(x)", Widths(4, 2), "its result is 2 wide, expected the hidden size 4"),
    ],
)
def test_expressions_run_where_their_widths_meet(text, widths, problem):
    assert width_problem(Expression.parse(text), widths) == problem


@pytest.mark.parametrize("rule", ["crop", "pad"])
@pytest.mark.parametrize("inner", [2, 4, 8])
def test_kinds_of_trees_say_where_they_run(rule, inner):
    """What counting takes for granted of whole kinds is what rule 9 finds for each of 811 trees."""
    widths = Widths(4, inner, rule)
    running = set(kinds_that_run(widths, parallel=True))
    for kind in ALL_KINDS:
        for tree in tree_counter(TreeLimits(max_nodes=8)).enumerate((kind,)):
            assert (width_problem(tree, widths) is None) == (kind in running), f"{tree} is {kind}"
