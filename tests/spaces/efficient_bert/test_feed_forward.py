"""Expressions as functions and modules: operators, width rules, and what is refused."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spaces.efficient_bert import expressions
from spaces.efficient_bert.expressions import Expression
from spaces.efficient_bert.feed_forward import (
    ACTIVATIONS,
    COMBINATIONS,
    LINEAR_MAPS,
    FeedForward,
    FeedForwardWeights,
    combine,
    compile_expression,
    expression_text,
    run_expression,
)
from spaces.efficient_bert.rules import Widths, width_problem
from tests.spaces.efficient_bert.microscopic import CROPPING, PLAIN
from tests.spaces.microscopic import shaken

CLOSED_FORMS = {
    "gelu": lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
    "tanh": lambda x: 1 - 2 / (torch.exp(2 * x) + 1),
    "relu": lambda x: torch.where(x > 0, x, 0),
    "leaky_relu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "elu": lambda x: torch.where(x > 0, x, torch.exp(x) - 1),
    "swish": lambda x: x / (1 + torch.exp(-x)),
}
ON_NUMBERS = {"add": lambda a, b: a + b, "mul": lambda a, b: a * b, "max": torch.maximum}
OPERANDS = st.recursive(
    st.just("x"),
    lambda inner: st.one_of(
        st.tuples(st.sampled_from([*ACTIVATIONS, "linear1", "linear2"]), inner),
        st.tuples(st.sampled_from(list(COMBINATIONS)), inner, inner),
    ),
    max_leaves=6,
)
WIDTHS = st.integers(1, 7)
RULES = st.sampled_from(["crop", "pad"])


def make_maps(hidden_size, inner_size, dtype=torch.float64):
    torch.manual_seed(3)
    linear1 = nn.Linear(hidden_size, inner_size, dtype=dtype)
    return linear1, nn.Linear(inner_size, hidden_size, dtype=dtype)


def by_hand(expression, x, maps, rule):
    """The value of an expression for one token, one channel after the other."""
    if expression == "x":
        return x
    operator, *parts = expression
    values = [by_hand(part, x, maps, rule) for part in parts]
    if operator in CLOSED_FORMS:
        return CLOSED_FORMS[operator](values[0])
    if operator in ("linear1", "linear2"):
        linear = maps[operator == "linear2"]
        return linear.weight @ values[0] + linear.bias
    first, second = values
    both = min(len(first), len(second))
    combined = ON_NUMBERS[operator](first[:both], second[:both])
    rest = torch.cat([first[both:], second[both:]])  # one of them is empty
    return torch.cat([combined, rest]) if rule == "pad" else combined


@pytest.mark.parametrize("name", sorted(CLOSED_FORMS))
def test_activations_are_their_closed_forms(name):
    assert set(CLOSED_FORMS) == set(ACTIVATIONS)
    x = torch.linspace(-4, 4, 41, dtype=torch.float64)
    torch.testing.assert_close(run_expression([name, "x"], x, *make_maps(41, 1)), CLOSED_FORMS[name](x))


@pytest.mark.parametrize("operator", ["add", "mul", "max"])
@pytest.mark.parametrize("order", [(540, 270), (270, 540), (270, 270)])
def test_operands_of_two_widths(operator, order):
    """Cropping uses the leading channels; padding leaves the wider operand's last ones as they are."""
    torch.manual_seed(1)
    first, second = (torch.randn(2, 3, width) * 3 for width in order)
    cropped = combine(operator, first, second, "crop")
    leading = ON_NUMBERS[operator](first[..., :270], second[..., :270])
    assert torch.equal(cropped, leading)
    padded = combine(operator, first, second, "pad")
    assert torch.equal(padded[..., :270], leading)
    wider = max(first, second, key=lambda operand: operand.shape[-1])
    assert torch.equal(padded[..., 270:], wider[..., 270:])
    assert padded.shape[-1] == max(order)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_padding_for_max_is_below_every_number(dtype):
    """The authors' 1e-10 below zero is not: negative channels would become 0."""
    lowest = torch.finfo(dtype).min
    wide = torch.tensor([[-1.0, -3e4, lowest, 5.0]], dtype=dtype)
    padded = combine("max", wide, torch.tensor([[0.0]], dtype=dtype), "pad")
    assert padded.dtype == dtype
    assert torch.equal(padded, torch.tensor([[0.0, -3e4, lowest, 5.0]], dtype=dtype))


@settings(max_examples=150, deadline=None)
@given(expression=OPERANDS, hidden_size=WIDTHS, inner_size=WIDTHS, rule=RULES)
def test_every_expression_means_what_it_says_and_widths_are_foreseen(expression, hidden_size, inner_size, rule):
    """What the space's rule for widths lets through runs, is as wide as its input, and is what one computes by hand."""
    maps = make_maps(hidden_size, inner_size)
    x_BTH = torch.randn(2, 3, hidden_size, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        if width_problem(Expression.from_nested(expression), Widths(hidden_size, inner_size, rule)):
            with pytest.raises((RuntimeError, AssertionError)):
                assert run_expression(expression, x_BTH, *maps, rule).shape == x_BTH.shape
            return
        found_BTH = run_expression(expression, x_BTH, *maps, rule)
        assert found_BTH.shape == x_BTH.shape
        for found_H, x_H in zip(found_BTH.flatten(0, 1), x_BTH.flatten(0, 1), strict=True):
            torch.testing.assert_close(found_H, by_hand(expression, x_H, maps, rule))


@pytest.mark.parametrize("operator", sorted(COMBINATIONS))
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_operands_of_two_precisions(operator, half):
    """Under automatic mixed precision a linear map gives another one than the input has."""
    wide, narrow = torch.tensor([-2.0, 0.5, 3.0], dtype=half), torch.tensor([1.0, -4.0])
    padded = combine(operator, wide, narrow, "pad")
    assert torch.equal(padded[:2], ON_NUMBERS[operator](wide[:2], narrow))
    assert padded[2] == 3.0
    assert torch.equal(combine(operator, narrow.to(half), wide.float(), "pad"), padded)


def test_the_grammar_has_the_same_operators():
    arities = dict.fromkeys((*LINEAR_MAPS, *ACTIVATIONS), 1) | dict.fromkeys(COMBINATIONS, 2)
    assert arities == expressions.ARITIES


def test_lists_and_tuples_are_compiled_once():
    as_tuples = ("linear2", ("gelu", ("linear1", "x")))
    assert compile_expression(PLAIN) is compile_expression(as_tuples)
    assert compile_expression(CROPPING, "crop") is not compile_expression(CROPPING, "pad")


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("y", "found 'y', expected x or one of linear1, linear2, gelu"),
        (["softmax", "x"], "found 'softmax', expected x or one of"),
        (["gelu", "x", "x"], "found gelu of 2 arguments, expected 1"),
        (["add", "x"], "found add of 1 arguments, expected 2"),
        (["linear2", ["gelu", ["lineer1", "x"]]], "found 'lineer1'"),
        ("gelu", "found gelu of 0 arguments, expected 1"),
    ],
)
def test_malformed_expressions(expression, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        compile_expression(expression)


def test_parallel_trees_run_at_full_width():
    """Both linear maps beside each other: possible where the inner width is the hidden one."""
    parallel = ["add", ["linear1", "x"], ["linear2", "x"]]
    module = FeedForward(parallel, 8, 8, "crop", 0.0, 1e-5)
    x_BTH = torch.randn(2, 3, 8)
    with torch.no_grad():
        expected = module.norm(x_BTH + module.linear1(x_BTH) + module.linear2(x_BTH))
        torch.testing.assert_close(module(x_BTH), expected)


def test_the_plain_expression_is_a_plain_feed_forward_bit_for_bit():
    module = shaken(FeedForward(PLAIN, 12, 12, "crop", 0.1, 1e-5)).eval()
    x_BTH = torch.randn(2, 3, 12)
    with torch.no_grad():
        inner = F.gelu(F.linear(x_BTH, module.linear1.weight, module.linear1.bias), approximate="tanh")
        plain = F.linear(inner, module.linear2.weight, module.linear2.bias)
        assert torch.equal(module(x_BTH), F.layer_norm(x_BTH + plain, (12,), module.norm.weight, module.norm.bias))


def test_dropout_is_on_what_is_added():
    """Without it the residual alone goes through the norm; in evaluation mode there is none."""
    module = shaken(FeedForward(PLAIN, 12, 6, "crop", 1.0, 1e-5))
    x_BTH = torch.randn(2, 3, 12)
    with torch.no_grad():
        assert torch.equal(module.train()(x_BTH), module.norm(x_BTH))
        assert not torch.allclose(module.eval()(x_BTH), module.norm(x_BTH))


@pytest.mark.parametrize("expression", [PLAIN, ["tanh", PLAIN], ["linear2", ["elu", ["mul", ["linear1", "x"], "x"]]]])
def test_gradients_of_cropped_weights(expression):
    """Against finite differences, with respect to the input and to every weight, unused ones included."""
    weights = shaken(FeedForwardWeights(4, 4, 0.0, 1e-5)).double()
    names = [name for name, _ in weights.named_parameters()]

    def run(x_BTH, *tensors):
        called = dict(zip(names, tensors, strict=True))
        return torch.func.functional_call(
            Computing(weights, expression, 2), {f"inner.{n}": t for n, t in called.items()}, (x_BTH,)
        )

    x_BTH = torch.randn(1, 2, 4, dtype=torch.float64, requires_grad=True)
    tensors = [parameter.detach().requires_grad_() for parameter in weights.parameters()]
    assert torch.autograd.gradcheck(run, (x_BTH, *tensors))


class Computing(nn.Module):
    """Weights that are called with one expression and inner width."""

    def __init__(self, weights, expression, inner_size):
        super().__init__()
        self.inner, self.expression, self.inner_size = weights, expression, inner_size

    def forward(self, x_BTH):
        return self.inner.compute(x_BTH, compile_expression(self.expression), self.inner_size)


def test_modules_are_copied_pickled_and_printed():
    module = shaken(FeedForward(CROPPING, 8, 4, "crop", 0.1, 1e-5)).eval()
    x_BTH = torch.randn(1, 2, 8)
    with torch.no_grad():
        for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert torch.equal(twin(x_BTH), module(x_BTH))
    assert "linear2(relu(mul(linear1(x),x)))" in repr(module)
    assert expression_text(CROPPING) == "linear2(relu(mul(linear1(x),x)))"
