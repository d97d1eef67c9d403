"""Telling expressions apart by what they compute, so that no search asks the same function twice.

Shape legend: T rows of the input, H hidden size, I inner size, W width of any operand.

An expression is run in memory on a few fixed random rows with fixed random weights, and what comes out is hashed.
Expressions that are algebraically the same (``add(a,b)`` and ``add(b,a)``) give the same hash. The widths are small;
which of hidden and inner size is the larger one is as it is in the network, since cropping and padding hang on it.
(The paper's code hashes a sum of two decimals, paper notes, section 3.3.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from spaces.efficient_bert.expressions import INPUT, LINEAR_MAPS, Expression
from spaces.efficient_bert.rules import Widths

Values = NDArray[np.float64]

HIDDEN, ROWS, DECIMALS = 8, 12, 7
"""Width of the trial input, its rows, and the decimals that are compared."""
_SMALLER, _LARGER = 5, 11
"""Inner sizes on either side of :data:`HIDDEN`."""


def _gelu(values_TW: Values) -> Values:
    return 0.5 * values_TW * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (values_TW + 0.044715 * values_TW**3)))


def _sigmoid(values_TW: Values) -> Values:
    return 0.5 * (1.0 + np.tanh(0.5 * values_TW))  # 1 / (1 + exp(-x)) without overflow


_ACTIVATIONS: Mapping[str, Callable[[Values], Values]] = {
    "gelu": _gelu,
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "relu": lambda values_TW: np.maximum(values_TW, 0.0),
    "leaky_relu": lambda values_TW: np.where(values_TW > 0, values_TW, 0.01 * values_TW),
    "elu": lambda values_TW: np.where(values_TW > 0, values_TW, np.expm1(np.minimum(values_TW, 0.0))),
    "swish": lambda values_TW: values_TW * _sigmoid(values_TW),
}
_COMBINATIONS: Mapping[str, tuple[Callable[[Values, Values], Values], float]] = {
    "add": (np.add, 0.0),
    "mul": (np.multiply, 1.0),
    "max": (np.maximum, -np.inf),
}
"""Each with what it does not feel, for padding."""


def evaluate(
    expression: Expression, x_TH: Values, weights: Mapping[str, tuple[Values, Values]], width_rule: str
) -> Values:
    """The value of an expression.

    Args:
        expression: any that can run at the widths.
        x_TH: the input.
        weights: for ``linear1`` matrix [H, I] and bias [I], for ``linear2`` matrix [I, H] and bias [H].
        width_rule: ``crop`` or ``pad``.

    Returns:
        The result [T, H].
    """
    if expression.operator == INPUT:
        return x_TH
    arguments = [evaluate(argument, x_TH, weights, width_rule) for argument in expression.arguments]
    if expression.operator in LINEAR_MAPS:
        matrix, bias = weights[expression.operator]
        return arguments[0] @ matrix + bias
    if expression.operator in _ACTIVATIONS:
        return _ACTIVATIONS[expression.operator](arguments[0])
    combine, neutral = _COMBINATIONS[expression.operator]
    widths = [argument.shape[-1] for argument in arguments]
    if width_rule == "crop":
        return combine(*(argument[:, : min(widths)] for argument in arguments))
    missing = [((0, 0), (0, max(widths) - width)) for width in widths]
    first, second = (
        np.pad(argument, pad, constant_values=neutral) for argument, pad in zip(arguments, missing, strict=True)
    )
    return combine(first, second)


@lru_cache(maxsize=8)
def trial(inner: int, seed: int = 17) -> tuple[Values, Mapping[str, tuple[Values, Values]]]:
    """The fixed input and weights of one inner size; see :func:`evaluate` for their shapes."""
    generator = np.random.default_rng(seed)
    x_TH = generator.normal(0.0, 1.5, (ROWS, HIDDEN))
    shapes = {"linear1": (HIDDEN, inner), "linear2": (inner, HIDDEN)}
    weights = {
        name: (generator.normal(0.0, shape[0] ** -0.5, shape), generator.normal(0.0, 0.5, shape[1]))
        for name, shape in shapes.items()
    }
    return x_TH, weights


def behaviour_of(expression: Expression, widths: Widths) -> str:
    """A hash of what an expression computes at some widths, of 16 hexadecimal digits."""
    inner = HIDDEN if widths.inner == widths.hidden else _SMALLER if widths.inner < widths.hidden else _LARGER
    return _hashed(expression, inner, widths.rule)


@lru_cache(maxsize=65_536)
def _hashed(expression: Expression, inner: int, width_rule: str) -> str:
    x_TH, weights = trial(inner)
    result_TH = evaluate(expression, x_TH, weights, width_rule)
    rounded = np.round(result_TH, DECIMALS) + 0.0  # no negative zeros
    return hashlib.sha256(rounded.tobytes()).hexdigest()[:16]
