"""Neighbours of an expression: what one step makes of it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import lru_cache

from spaces.efficient_bert.counting import TreeCounter, TreeKind
from spaces.efficient_bert.expressions import ACTIVATIONS, COMBINATIONS, Expression, X
from spaces.efficient_bert.rules import TreeLimits, Widths, broken_rule, width_problem

REDRAWN = 0.1
"""How often an expression is drawn afresh instead of varied by a step, so that far ones are reached, too."""


def neighbour(
    expression: Expression,
    limits: TreeLimits,
    widths: Widths,
    counter: TreeCounter,
    kinds: tuple[TreeKind, ...],
    rng: random.Random,
) -> Expression | None:
    """Another valid expression, mostly one step away.

    Args:
        expression: a valid one.
        limits: of valid expressions.
        widths: of the block, which the neighbour has to run at.
        counter: of the expressions within the limits.
        kinds: of expressions that run at these widths.
        rng: all randomness.

    Returns:
        ``None`` if there is no other.
    """
    near = neighbours(expression, limits, widths)
    if near and rng.random() >= REDRAWN:
        return rng.choice(near)
    if counter.count(kinds) < 2:
        return None
    while True:
        drawn = counter.sample(rng, kinds)
        if drawn != expression:
            return drawn


@lru_cache(maxsize=4096)
def neighbours(expression: Expression, limits: TreeLimits, widths: Widths) -> tuple[Expression, ...]:
    """Every valid expression that is one step away, in a fixed order.

    A step puts another operator of as many arguments in the place of one, an activation above a node, a combination
    with the input above a node, or removes an activation or a combination with one of its operands.
    """
    found = dict.fromkeys(_steps(expression))
    return tuple(
        one
        for one in found
        if one != expression and broken_rule(one, limits) is None and width_problem(one, widths) is None
    )


def _steps(expression: Expression) -> Iterator[Expression]:
    for place, node in enumerate(expression.walk()):
        alike = ACTIVATIONS if node.operator in ACTIVATIONS else COMBINATIONS if node.operator in COMBINATIONS else ()
        for operator in alike:
            yield expression.replaced(place, Expression(operator, node.arguments))
        if alike:
            for argument in node.arguments:
                yield expression.replaced(place, argument)
        if len(node.arguments) == 2:
            yield expression.replaced(place, Expression(node.operator, node.arguments[::-1]))
        for operator in ACTIVATIONS:
            yield expression.replaced(place, Expression(operator, (node,)))
        for operator in COMBINATIONS:
            yield expression.replaced(place, Expression(operator, (node, X)))
            yield expression.replaced(place, Expression(operator, (X, node)))
