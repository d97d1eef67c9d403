"""Feed-forwards that are expressions over two linear maps: expressions as functions, and modules of them.

Shape legend: B batch, T tokens, H hidden size of the block, I inner size, W the width of any operand.

An expression in nested form is ``"x"`` or ``[operator, argument, ...]``: the plain feed-forward is
``["linear2", ["gelu", ["linear1", "x"]]]``. Operands of add, mul and max may have two widths, H and I. By the rule
``crop`` both lose what is beyond the narrower one's width; by ``pad`` the narrower one is filled up with what changes
nothing: 0 for add, 1 for mul, the lowest number there is for max.

This file travels with exported models, so it imports nothing of the project.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor, nn

WidthRule = Literal["crop", "pad"]
NestedExpression = str | Sequence[Any]
"""``"x"`` or ``[operator, argument, ...]``, each argument such a form itself; lists and tuples are alike."""
LinearMap = Callable[[Tensor], Tensor]
ExpressionFunction = Callable[[Tensor, LinearMap, LinearMap], Tensor]
"""From the input ``x_BTH``, the map from H to I, and the map from I to H, to the value of an expression."""

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": functools.partial(F.gelu, approximate="tanh"),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": F.relu,
    "leaky_relu": functools.partial(F.leaky_relu, negative_slope=0.01),
    "elu": functools.partial(F.elu, alpha=1.0),
    "swish": F.silu,
}
"""Operators of one argument."""
COMBINATIONS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "mul": torch.mul,
    "max": torch.maximum,
}
"""Operators of two arguments."""
LINEAR_MAPS = ("linear1", "linear2")


def _padded(operator: str, operand_BTW: Tensor, width: int) -> Tensor:
    """An operand of add, mul or max, filled up to a width with what that operator does not feel."""
    neutral = {"add": 0.0, "mul": 1.0}.get(operator, torch.finfo(operand_BTW.dtype).min)
    return F.pad(operand_BTW, (0, width - operand_BTW.shape[-1]), value=neutral)


def combine(operator: str, first_BTW: Tensor, second_BTW: Tensor, width_rule: WidthRule) -> Tensor:
    """Apply add, mul or max to operands of any two widths.

    Args:
        operator: a key of :data:`COMBINATIONS`.
        first_BTW: one operand.
        second_BTW: the other.
        width_rule: whether the wider one loses its last channels, or the narrower one gets neutral ones.

    Returns:
        The result, as wide as the narrower (``crop``) or the wider operand (``pad``).
    """
    widths = (first_BTW.shape[-1], second_BTW.shape[-1])
    if widths[0] != widths[1] and width_rule == "crop":
        first_BTW, second_BTW = first_BTW[..., : min(widths)], second_BTW[..., : min(widths)]
    elif widths[0] != widths[1]:
        first_BTW, second_BTW = (_padded(operator, operand, max(widths)) for operand in (first_BTW, second_BTW))
    return COMBINATIONS[operator](first_BTW, second_BTW)


def _frozen(expression: NestedExpression) -> NestedExpression:
    """The same with tuples in place of lists, so that it can be a key."""
    return expression if isinstance(expression, str) else tuple(_frozen(part) for part in expression)


def compile_expression(expression: NestedExpression, width_rule: WidthRule = "crop") -> ExpressionFunction:
    """Make a plain function of an expression; the same expression gives the same function again.

    Args:
        expression: in nested form.
        width_rule: ``crop`` or ``pad``.

    Raises:
        ValueError: an operator is unknown, or has another number of arguments than it takes.
    """
    return _compiled(_frozen(expression), width_rule)


@functools.lru_cache(maxsize=10_000)
def _compiled(expression: NestedExpression, width_rule: WidthRule) -> ExpressionFunction:
    if expression == "x":
        return _input
    operator, arguments = (expression, ()) if isinstance(expression, str) else (expression[0], expression[1:])
    takes = 2 if operator in COMBINATIONS else 1 if operator in ACTIVATIONS or operator in LINEAR_MAPS else None
    if takes is None:
        raise ValueError(
            f"expression: found {operator!r}, expected x or one of "
            f"{', '.join([*LINEAR_MAPS, *ACTIVATIONS, *COMBINATIONS])} with its arguments"
        )
    if len(arguments) != takes:
        raise ValueError(f"expression: found {operator} of {len(arguments)} arguments, expected {takes}")
    parts = [_compiled(argument, width_rule) for argument in arguments]
    if operator in COMBINATIONS:
        return _combination(operator, parts[0], parts[1], width_rule)
    if operator in ACTIVATIONS:
        return _activation(ACTIVATIONS[operator], parts[0])
    return _linear_map(LINEAR_MAPS.index(operator), parts[0])


def _input(x_BTH: Tensor, _linear1: LinearMap, _linear2: LinearMap) -> Tensor:
    return x_BTH


def _combination(
    operator: str, first: ExpressionFunction, second: ExpressionFunction, width_rule: WidthRule
) -> ExpressionFunction:
    def run(x_BTH: Tensor, linear1: LinearMap, linear2: LinearMap) -> Tensor:
        return combine(operator, first(x_BTH, linear1, linear2), second(x_BTH, linear1, linear2), width_rule)

    return run


def _activation(activation: Callable[[Tensor], Tensor], argument: ExpressionFunction) -> ExpressionFunction:
    def run(x_BTH: Tensor, linear1: LinearMap, linear2: LinearMap) -> Tensor:
        return activation(argument(x_BTH, linear1, linear2))

    return run


def _linear_map(which: int, argument: ExpressionFunction) -> ExpressionFunction:
    def run(x_BTH: Tensor, *linear_maps: LinearMap) -> Tensor:
        return linear_maps[which](argument(x_BTH, *linear_maps))

    return run


def run_expression(
    expression: NestedExpression,
    x_BTH: Tensor,
    linear1: LinearMap,
    linear2: LinearMap,
    width_rule: WidthRule = "crop",
) -> Tensor:
    """Compute an expression.

    Args:
        expression: in nested form.
        x_BTH: the input; any leading dimensions do.
        linear1: the map from H to I.
        linear2: the map from I to H.
        width_rule: ``crop`` or ``pad``.

    Returns:
        The value, H wide for every expression that a feed-forward can be.

    Raises:
        ValueError: the expression is malformed.
    """
    return compile_expression(expression, width_rule)(x_BTH, linear1, linear2)


class FeedForwardWeights(nn.Module):
    """The weights of one feed-forward, which is told at every call what to compute, and with how many of them.

    Args:
        hidden_size: width H.
        inner_size: width I.
        dropout: probability for what is added to the residual stream.
        layer_norm_eps: epsilon of the LayerNorm.
    """

    def __init__(self, hidden_size: int, inner_size: int, dropout: float, layer_norm_eps: float) -> None:
        super().__init__()
        self.inner_size = inner_size
        self.linear1 = nn.Linear(hidden_size, inner_size)
        self.linear2 = nn.Linear(inner_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dropout = nn.Dropout(dropout)

    def compute(self, hidden_BTH: Tensor, function: ExpressionFunction, inner_size: int) -> Tensor:
        """``LN(x + Dropout(f(x)))`` with the first ``inner_size`` inner channels; the others are left alone."""
        first, second = self.linear1, self.linear2

        def linear1(operand_BTH: Tensor) -> Tensor:
            return F.linear(operand_BTH, first.weight[:inner_size], first.bias[:inner_size])

        def linear2(operand_BTI: Tensor) -> Tensor:
            return F.linear(operand_BTI, second.weight[:, :inner_size], second.bias)

        return self.norm(hidden_BTH + self.dropout(function(hidden_BTH, linear1, linear2)))


class FeedForward(FeedForwardWeights):
    """One feed-forward of a stand-alone model: an expression over two linear maps, with residual and LayerNorm.

    Args:
        expression: in nested form.
        hidden_size: width H.
        inner_size: width I.
        width_rule: ``crop`` or ``pad``.
        dropout: probability for what is added to the residual stream.
        layer_norm_eps: epsilon of the LayerNorm.

    Raises:
        ValueError: the expression is malformed.
    """

    def __init__(
        self,
        expression: NestedExpression,
        hidden_size: int,
        inner_size: int,
        width_rule: WidthRule,
        dropout: float,
        layer_norm_eps: float,
    ) -> None:
        super().__init__(hidden_size, inner_size, dropout, layer_norm_eps)
        self.expression = _frozen(expression)
        self.width_rule: WidthRule = width_rule
        compile_expression(expression, width_rule)  # to find out now rather than in the first forward pass

    def forward(self, hidden_BTH: Tensor) -> Tensor:
        """Apply the feed-forward."""
        return self.compute(hidden_BTH, compile_expression(self.expression, self.width_rule), self.inner_size)

    def extra_repr(self) -> str:
        """The expression, for people who print the model."""
        return expression_text(self.expression)


def expression_text(expression: NestedExpression) -> str:
    """The text of an expression, such as ``linear2(gelu(linear1(x)))``."""
    if isinstance(expression, str):
        return expression
    return f"{expression[0]}({','.join(expression_text(part) for part in expression[1:])})"
