"""Neighbours of an expression: what one step makes of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

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
    if rng.random() >= REDRAWN:
        steps = _steps(expression)
        while steps:
            stepped = steps.pop(rng.randrange(len(steps)))()
            if (
                stepped != expression
                and broken_rule(stepped, limits) is None
                and width_problem(stepped, widths) is None
            ):
                return stepped
    if counter.count(kinds) < 2:
        return None
    while True:
        drawn = counter.sample(rng, kinds)
        if drawn != expression:
            return drawn


def _steps(expression: Expression) -> list[Callable[[], Expression]]:
    """Every step from an expression, valid or not, to be taken only when it is drawn.

    A step puts another operator of as many arguments in the place of one, puts an activation above a node or a
    combination with the input, or removes an activation or a combination with one of its operands. Operands are not
    swapped: that changes nothing that is computed.
    """
    steps: list[Callable[[], Expression]] = []
    for place, node in enumerate(expression.walk()):
        put = partial(_put, expression, place)
        for kind in (ACTIVATIONS, COMBINATIONS):
            if node.operator in kind:
                steps += [partial(put, operator, node.arguments) for operator in kind if operator != node.operator]
                steps += [partial(expression.replaced, place, argument) for argument in node.arguments]
        steps += [partial(put, operator, (node,)) for operator in ACTIVATIONS]
        for operator in COMBINATIONS:
            steps += [partial(put, operator, operands) for operands in ((node, X), (X, node))]
    return steps


def _put(expression: Expression, place: int, operator: str, arguments: tuple[Expression, ...]) -> Expression:
    return expression.replaced(place, Expression(operator, arguments))
