"""What to keep when a smaller model is cut out of a larger one.

Shape legend: N calibration tokens, A attention heads, I inner size of a feed-forward, D hidden size.

Hidden dimensions are not scored: narrower widths work in the basis of the principal components of the teacher's states.
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
    """

    heads: tuple[Tensor, ...]
    neurons: tuple[Tensor, ...]


def neuron_importance(activations_NI: Tensor, output_weight_DI: Tensor) -> Tensor:
    """Variance that each inner neuron adds to the residual stream, ``[I]``.

    The mean of what a neuron adds can go into the bias of the smaller model; only what varies is lost with it.
    """
    return activations_NI.var(0) * output_weight_DI.square().sum(0)


def leading(importance: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` most important, in ascending order; ties go to the lower index."""
    order = torch.sort(importance, descending=True, stable=True).indices
    return order[:count].sort().values


def random_importance(num_layers: int, num_heads: int, intermediate_size: int, seed: int) -> TeacherImportance:
    """An order of heads and neurons that knows nothing of them: the extraction called ETD-Rand.

    Args:
        num_layers: of the teacher.
        num_heads: of each layer.
        intermediate_size: neurons of each layer's feed-forward.
        seed: decides the order; no two parts of a layer are worth the same.
    """
    rng = np.random.default_rng(seed)

    def order(count: int) -> Tensor:
        return torch.from_numpy(rng.permutation(count)).to(torch.float32)

    heads = tuple(order(num_heads) for _ in range(num_layers))
    return TeacherImportance(heads, tuple(order(intermediate_size) for _ in range(num_layers)))


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


@torch.no_grad()
def correct_linear(linear: nn.Linear, inputs_NH: Tensor, target_ND: Tensor, ridge: float) -> None:
    """Move a linear map towards its least-squares fit; what the inputs do not settle stays as it is.

    Args:
        linear: from width H to width D, at weights that are a good guess.
        inputs_NH: what it will see.
        target_ND: what it should give.
        ridge: how much the guess is trusted, as a share of the mean variance of the inputs.
    """
    correction = nn.Linear(linear.in_features, linear.out_features)
    fit_linear(correction, inputs_NH, target_ND - linear(inputs_NH), ridge)
    linear.weight.add_(correction.weight)
    linear.bias.add_(correction.bias)
