"""What to keep when a smaller model is cut out of a larger one.

Shape legend: N calibration tokens, A attention heads, I inner size of a feed-forward, D hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class TeacherImportance:
    """How much every part of a teacher matters, by whatever measure; larger is more.

    Attributes:
        heads: scores of the attention heads of each layer, ``[A]`` each.
        neurons: scores of the inner neurons of each layer's feed-forward, ``[I]`` each.
        hidden_D: scores of the hidden dimensions, which all layers share.
    """

    heads: tuple[Tensor, ...]
    neurons: tuple[Tensor, ...]
    hidden_D: Tensor


def neuron_importance(activations_NI: Tensor, output_weight_DI: Tensor) -> Tensor:
    """Variance that each inner neuron adds to the residual stream, ``[I]``.

    The mean of what a neuron adds can go into the bias of the smaller model; only what varies is lost with it.
    """
    return activations_NI.var(0) * output_weight_DI.square().sum(0)


def leading(importance: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` most important, in ascending order; ties go to the lower index."""
    order = torch.sort(importance, descending=True, stable=True).indices
    return order[:count].sort().values


def random_indices(available: int, count: int, seed: int) -> Tensor:
    """``count`` of ``available`` indices at random, ascending, without repeats: the extraction called ETD-Rand."""
    chosen = np.random.default_rng(seed).permutation(available)[:count]
    return torch.from_numpy(np.sort(chosen)).to(torch.int64)


def uniform_layers(teacher_layers: int, kept: int) -> list[int]:
    """Layers of the teacher, from 0, that a shallower uniform model keeps, the last one always.

    Counted from 1 they are n/m, 2n/m, ..., n (Extract Then Distill, uniform layer selection).
    """
    return [round(number * teacher_layers / kept) - 1 for number in range(1, kept + 1)]


@torch.no_grad()
def fit_linear(linear: nn.Linear, inputs_NH: Tensor, target_ND: Tensor, ridge: float = 1e-3) -> None:
    """Set a linear map to its least-squares fit.

    Args:
        linear: from width H to width D; weight and bias are overwritten.
        inputs_NH: what it will see.
        target_ND: what it should give.
        ridge: regularisation, as a share of the mean variance of the inputs.
    """
    mean_H, target_mean_D = inputs_NH.mean(0), target_ND.mean(0)
    centred_NH = (inputs_NH - mean_H).double()
    gram_HH = centred_NH.T @ centred_NH
    ridge_HH = torch.eye(len(gram_HH), dtype=torch.float64) * gram_HH.diagonal().mean() * ridge
    solution_HD = torch.linalg.solve(gram_HH + ridge_HH, centred_NH.T @ (target_ND - target_mean_D).double())
    linear.weight.copy_(solution_HD.T)
    linear.bias.copy_(target_mean_D - mean_H @ linear.weight.T)
