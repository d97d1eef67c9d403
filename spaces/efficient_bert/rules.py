"""Which expressions a network may have: the validity rules of the paper notes, section 2.5, each as a check by name.

Rules 1 (typed correctly) and 3 (contains x) hold by the grammar: weights are not written, so that a linear map cannot
have the wrong ones, and ``x`` is the only leaf. That both linear maps of a block have the same sizes (the second half
of rule 6) holds because sizes are the block's. Rule 8, the window of parameters, is the space's. What is left:

==================  ====  ======================================================================================
name                rule  asks for
==================  ====  ======================================================================================
``height``          2     a height within limits
``nodes``           2     at most so many nodes (the paper's code has 20 places and does not guard them)
``linear_maps``     4     linear1 once, linear2 once, the weights of linear1 first
``activations``     5     no activation directly in an activation
``linear_chain``    6     no linear map directly in a linear map
``equal_operands``  7     no add, mul or max of x and x, or of an activation of x and the same of x
``serial``          9     linear2 applied to something that contains linear1, unless other trees are wanted
``widths``          9     every linear map gets what it takes, and the result is as wide as the input
==================  ====  ======================================================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from spaces.efficient_bert.expressions import ACTIVATIONS, COMBINATIONS, INPUT, LINEAR_MAPS, Expression

WidthRule = Literal["crop", "pad"]
"""What becomes of operands of two widths: the wider one is cropped, or the narrower one padded."""
MOST_NODES = 20
"""Places of an expression in the encoding (paper notes, section 2.4)."""


@dataclass(frozen=True)
class TreeLimits:
    """How large expressions may be, and whether they may be parallel.

    Attributes:
        min_height: least height.
        max_height: greatest height.
        max_nodes: greatest number of nodes.
        parallel: whether linear2 may stand beside linear1 instead of above it.
    """

    min_height: int = 3
    max_height: int = 7
    max_nodes: int = MOST_NODES
    parallel: bool = False


@dataclass(frozen=True)
class Widths:
    """What an expression works on.

    Attributes:
        hidden: width of the input and of the result.
        inner: width behind linear1 and before linear2.
        rule: what becomes of operands of two widths.
    """

    hidden: int
    inner: int
    rule: WidthRule = "crop"


def _height(expression: Expression, limits: TreeLimits) -> str | None:
    if limits.min_height <= expression.height <= limits.max_height:
        return None
    return f"its height is {expression.height}, expected {limits.min_height} to {limits.max_height}"


def _nodes(expression: Expression, limits: TreeLimits) -> str | None:
    if expression.nodes <= limits.max_nodes:
        return None
    return f"it has {expression.nodes} nodes (a linear map counts two), expected at most {limits.max_nodes}"


def _linear_maps(expression: Expression, limits: TreeLimits) -> str | None:
    weights = [name for name in expression.prefix() if name.startswith("weights")]
    for number, name in enumerate(LINEAR_MAPS, start=1):
        found = weights.count(f"weights{number}")
        if found != 1:
            return f"{name} occurs {found} times, expected once"
    if weights[0] != "weights1":
        return "linear2 is finished before linear1, expected linear1 inside linear2 or to the left of it"
    return None


def _activations(expression: Expression, limits: TreeLimits) -> str | None:
    return _nested_in_kind(expression, ACTIVATIONS, "an activation")


def _linear_chain(expression: Expression, limits: TreeLimits) -> str | None:
    return _nested_in_kind(expression, LINEAR_MAPS, "a linear map")


def _nested_in_kind(expression: Expression, kind: tuple[str, ...], called: str) -> str | None:
    for node in expression.walk():
        if node.operator in kind and node.arguments[0].operator in kind:
            found = f"{node.operator}({node.arguments[0].operator}(...))"
            return f"{found} has {called} directly in {called}, expected something between them"
    return None


def _equal_operands(expression: Expression, limits: TreeLimits) -> str | None:
    for node in expression.walk():
        if node.operator in COMBINATIONS:
            first, second = node.arguments
            if first == second and _is_short(first):
                return f"{node} has two equal operands, expected different ones"
    return None


def _is_short(expression: Expression) -> bool:
    """Whether the paper's text of it has no comma: x, and activations of x."""
    return all(node.operator == INPUT or node.operator in ACTIVATIONS for node in expression.walk())


def is_serial(expression: Expression) -> bool:
    """Whether linear2 is applied to something that contains linear1."""
    return any(
        below.operator == "linear1" for node in expression.walk() if node.operator == "linear2" for below in node.walk()
    )


def _serial(expression: Expression, limits: TreeLimits) -> str | None:
    if limits.parallel or is_serial(expression):
        return None
    return "linear2 is not applied to something with linear1 in it; set space.options.parallel to have such trees too"


Rule = Callable[[Expression, TreeLimits], str | None]
TREE_RULES: dict[str, Rule] = {
    "height": _height,
    "nodes": _nodes,
    "linear_maps": _linear_maps,
    "activations": _activations,
    "linear_chain": _linear_chain,
    "equal_operands": _equal_operands,
    "serial": _serial,
}
"""The rules that need no widths, by name, in the order in which they are asked; each says in a few words what is wrong,
or nothing."""


@lru_cache(maxsize=65_536)
def broken_rule(expression: Expression, limits: TreeLimits) -> tuple[str, str] | None:
    """The first rule that an expression breaks: its name, and what is wrong."""
    for name, rule in TREE_RULES.items():
        problem = rule(expression, limits)
        if problem is not None:
            return name, problem
    return None


@lru_cache(maxsize=65_536)
def width_problem(expression: Expression, widths: Widths) -> str | None:
    """Why an expression cannot run at some widths (rule ``widths``), in a few words; ``None`` if it can."""
    try:
        result = _width(expression, widths)
    except _WidthError as error:
        return str(error)
    if result != widths.hidden:
        return f"its result is {result} wide, expected the hidden size {widths.hidden}"
    return None


class _WidthError(Exception):
    pass


def _width(expression: Expression, widths: Widths) -> int:
    """The width of an expression's value."""
    if not expression.arguments:
        return widths.hidden
    found = [_width(argument, widths) for argument in expression.arguments]
    if expression.operator in LINEAR_MAPS:
        takes, gives = (widths.hidden, widths.inner)[:: 1 if expression.operator == "linear1" else -1]
        if found[0] != takes:
            raise _WidthError(f"{expression.operator} gets something {found[0]} wide, expected {takes}")
        return gives
    return min(found) if widths.rule == "crop" else max(found)
