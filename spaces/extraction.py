"""What to keep when a smaller model is cut out of a larger one.

Shape legend: N calibration tokens, I inner size of a feed-forward, D hidden size.
"""

from __future__ import annotations

import torch
from torch import Tensor


def neuron_importance(activations_NI: Tensor, output_weight_DI: Tensor) -> Tensor:
    """Variance that each inner neuron adds to the residual stream, ``[I]``.

    The mean of what a neuron adds can go into the bias of the smaller model; only what varies is lost with it.
    """
    return activations_NI.var(0) * output_weight_DI.square().sum(0)


def leading(importance: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` most important, in ascending order; ties go to the lower index."""
    order = torch.sort(importance, descending=True, stable=True).indices
    return order[:count].sort().values


def uniform_layers(teacher_layers: int, kept: int) -> list[int]:
    """Layers of the teacher, from 0, that a shallower uniform model keeps, the last one always.

    Counted from 1 they are n/m, 2n/m, ..., n (Extract Then Distill, uniform layer selection).
    """
    return [round(number * teacher_layers / kept) - 1 for number in range(1, kept + 1)]
