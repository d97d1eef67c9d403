"""What a gate would change, told to its gradient alone: for gates that are 0 or 1, whose value needs no arithmetic.

Shape legend: B batch, T tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Slope = Callable[[Tensor], Tensor]
"""From the gradient of a value to that of a gate: the sum of its products with what the value changes by."""


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, gate: Tensor, slope: Slope) -> Tensor:
        ctx.slope, ctx.kind = slope, gate.dtype
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,) = gradients
        return gradient, ctx.slope(gradient).to(ctx.kind), None


def gated(value: Tensor, gate: Tensor, slope: Slope) -> Tensor:
    """A value as it is, which a gate has a part in.

    Args:
        value: any.
        gate: a scalar.
        slope: called in the backward pass.
    """
    if not gate.requires_grad:
        return value
    found: Tensor = _Gated.apply(value, gate, slope)
    return found


def along(direction: Tensor) -> Slope:
    """The slope where a value changes by some multiple of a direction of its shape."""
    kept = direction.detach()
    return lambda gradient: torch.dot(gradient.flatten(), kept.to(gradient.dtype).flatten())


def of_mean(hidden_BTD: Tensor, weight_D: Tensor, eps: float, mean: bool) -> Slope:
    """The slope of a LayerNorm's output by how much of the mean it moves (:func:`spaces.components.blocks.normalise`).

    Args:
        hidden_BTD: what is normalised.
        weight_D: of the LayerNorm.
        eps: its epsilon.
        mean: whether it moves by all of the mean, or not at all.
    """
    kept_BTD = hidden_BTD.detach()
    scale_D = weight_D.detach().to(kept_BTD.dtype)

    def slope(gradient_BTD: Tensor) -> Tensor:
        # Faster than torch.var_mean by far.
        _, mean_BT1, inverse_BT1 = torch.native_layer_norm(kept_BTD, scale_D.shape, None, None, eps)
        gradient_BTD = gradient_BTD.to(kept_BTD.dtype)
        lost_BT1 = (gradient_BTD @ scale_D).unsqueeze(-1)
        if mean:  # the second moment has its least there, and does not change
            return -(mean_BT1 * inverse_BT1 * lost_BT1).sum()
        inverse_BT1 = torch.rsqrt(inverse_BT1.pow(-2) + mean_BT1.square())
        share_BT1 = (gradient_BTD * kept_BTD) @ scale_D.unsqueeze(-1)
        return (mean_BT1 * inverse_BT1 * (mean_BT1 * inverse_BT1.square() * share_BT1 - lost_BT1)).sum()

    return slope
