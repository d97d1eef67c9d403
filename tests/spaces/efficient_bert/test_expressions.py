"""Expressions and architectures as texts: what is read, what is printed, and where an error is found."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces.efficient_bert.anchors import PUBLISHED
from spaces.efficient_bert.architecture import BlockChoice, EfficientBertArchitecture
from spaces.efficient_bert.expressions import (
    ACTIVATIONS,
    COMBINATIONS,
    DEEPEST,
    LINEAR_MAPS,
    PLAIN,
    Expression,
    X,
)
from spaces.errors import ArchitectureSyntaxError, SpaceError

TREES = st.recursive(
    st.just(X),
    lambda below: (
        st.builds(lambda name, one: Expression(name, (one,)), st.sampled_from((*ACTIVATIONS, *LINEAR_MAPS)), below)
        | st.builds(lambda name, one, two: Expression(name, (one, two)), st.sampled_from(COMBINATIONS), below, below)
    ),
    max_leaves=8,
)
"""Any tree, valid or not."""
ARCHITECTURES = st.builds(
    EfficientBertArchitecture,
    st.integers(1, 10**9 - 1),
    st.lists(st.builds(BlockChoice, st.integers(1, 99), st.integers(1, 99), TREES), min_size=1, max_size=4).map(tuple),
)


@given(TREES)
def test_parsing_undoes_printing(tree):
    assert Expression.parse(str(tree)) == tree
    assert hash(Expression.parse(str(tree))) == hash(tree)
    assert Expression.from_nested(tree.nested()) == tree
    assert str(Expression.from_nested(tree.nested())) == str(tree)


@given(ARCHITECTURES)
def test_architectures_are_read_back(architecture):
    twin = EfficientBertArchitecture.parse(str(architecture))
    assert twin == architecture
    assert (twin.arch_id, str(twin)) == (architecture.arch_id, str(architecture))


@given(TREES, TREES)
def test_trees_are_equal_if_their_texts_are(first, second):
    assert (first == second) == (str(first) == str(second)) == (first.nested() == second.nested())


@given(TREES)
def test_nodes_and_heights_are_those_of_the_papers_trees(tree):
    assert tree.nodes == sum(1 for _ in tree.prefix())
    below = [argument.height for argument in tree.arguments]
    assert tree.height == (1 + max(below) if below else 0)


def test_the_published_expressions_have_the_sizes_of_the_paper():
    expressions = [Expression.parse(block.partition(":")[2]) for block in PUBLISHED]
    assert [expression.height for expression in expressions] == [4, 4, 4, 5, 4, 4]
    assert [expression.nodes for expression in expressions] == [7, 7, 7, 9, 8, 7]
    assert (PLAIN.height, PLAIN.nodes, str(PLAIN)) == (3, 6, "linear2(gelu(linear1(x)))")


def test_spaces_between_words_do_not_matter():
    text = " 540 | 4_2 : tanh ( linear2(gelu(linear1( x ))))|1_1:add(x, linear2(relu(linear1(x)))) "
    read = EfficientBertArchitecture.parse(text)
    assert str(read) == "540|4_2:tanh(linear2(gelu(linear1(x))))|1_1:add(x,linear2(relu(linear1(x))))"
    assert read.linear_ids == ("4_2", "1_1")
    assert read.blocks[1].expression.nested() == ["add", "x", ["linear2", ["relu", ["linear1", "x"]]]]


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("", 1, "expected the hidden size such as 540, found ''"),
        ("x|1_1:x", 1, "expected the hidden size such as 540, found 'x'"),
        ("0540|1_1:x", 1, "expected the hidden size such as 540, found '0540'"),
        ("540", 4, "expected at least one block"),
        ("540|", 5, "expected a block that begins with its linear id such as 4_2, found ''"),
        ("540|1_1:x||", 11, "expected a block that begins with its linear id"),
        ("540|1_0:x", 5, "expected a block that begins with its linear id such as 4_2, found '1_0'"),
        ("540| 4-2:x", 6, "expected a block that begins with its linear id such as 4_2, found '4-2'"),
        ("540|1_1", 8, "expected ':' and an expression behind the linear id 1_1"),
        ("540|1_1:", 9, "expected x or an operator, found the end"),
        ("540|1_1:x|1_1:gell(x)", 15, "found 'gell', which is no operator; did you mean 'gelu'?"),
        ("540|1_1:linear3(x)", 9, "found 'linear3', which is no operator; did you mean 'linear"),
        ("540|1_1:gelu(y)", 14, "found 'y', which is no operator; expected x or one of linear1, linear2, gelu"),
        ("540|1_1:gelu", 13, "expected '(' and 1 argument behind gelu, found the end"),
        ("540|1_1:gelu x", 14, "expected '(' and 1 argument behind gelu, found 'x'"),
        ("540|1_1:gelu()", 14, "expected x or an operator, found ')'"),
        ("540|1_1:gelu(x", 15, "expected ')', since gelu takes 1 argument, found the end"),
        ("540|1_1:gelu(x,x)", 15, "expected ')', since gelu takes 1 argument, found ','"),
        ("540|1_1:add(x)", 14, "expected ',' and another argument: add takes 2 arguments, found ')'"),
        ("540|1_1:add(x,x,x)", 16, "expected ')', since add takes 2 arguments, found ','"),
        ("540|1_1:x)", 10, "expected nothing more after 'x', found ')'"),
        ("540|1_1:x(x)", 10, "expected nothing more after 'x', found '(x)'"),
        ("540|1_1:gelu(x);import os", 16, "expected nothing more after 'gelu(x)', found ';import os'"),
        ("540|1_1:gelu($)", 14, "expected x or an operator, found '$'"),
        ("540|1_1:__import__(x)", 9, "found '__import__', which is no operator"),
        ("540|1_1:linear1(x, wb1)", 18, "expected ')', since linear1 takes 1 argument, found ','"),
        ("540|1_1:" + "gelu(" * 200, 9 + 5 * DEEPEST, f"expected at most {DEEPEST} operators inside each other"),
    ],
)
def test_errors_point_at_the_column_within_the_whole_text(text, column, message):
    with pytest.raises(ArchitectureSyntaxError) as raised:
        EfficientBertArchitecture.parse(text)
    assert f", column {column}: {message}" in str(raised.value)
    assert str(raised.value).startswith(f"architecture {text!r}")
    assert "\n" not in str(raised.value)


@settings(max_examples=50)
@given(st.text("540|_:,()xaddgelulinear12 \n", max_size=40))
def test_any_text_is_read_or_refused_in_one_line(text):
    try:
        read = EfficientBertArchitecture.parse(text)
    except ArchitectureSyntaxError as error:
        message = str(error)
    else:
        message = str(read)
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("nested", "message"),
    [
        (["gelu"], "gelu has 0 arguments, expected 1"),
        (["add", "x"], "add has 1 argument, expected 2"),
        (["x", "x"], "x has 1 argument, expected none"),
        (["tan", "x"], "found 'tan', which is no operator; did you mean 'tanh'?"),
        ([], "found \\[\\], expected x or \\[operator, argument, ...\\]"),
        ([3], "found \\[3\\], expected x or"),
    ],
)
def test_nested_forms_that_are_none(nested, message):
    with pytest.raises(SpaceError, match=f"expression: {message}"):
        Expression.from_nested(nested)


def test_values_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PLAIN.operator = "gelu"
    with pytest.raises(dataclasses.FrozenInstanceError):
        BlockChoice(1, 1).divisor = 2
