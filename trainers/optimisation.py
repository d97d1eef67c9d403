"""Optimiser, learning-rate schedule and gradient exchange, shared by all trainings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

_LARGEST_SEED = 2**63


@dataclass(frozen=True)
class OptimiserSettings:
    """Adam with decoupled weight decay and a linear warm-up and decay (NAS-BERT, section 4.1).

    Attributes:
        learning_rate: at the peak, after warm-up.
        warmup_steps: steps of linear rise.
        total_steps: steps until the learning rate has fallen to zero.
        weight_decay: decoupled, on matrices only.
        gradient_clip: largest norm of the gradient; 0 for no limit.
    """

    learning_rate: float
    warmup_steps: int
    total_steps: int
    weight_decay: float = 0.01
    gradient_clip: float = 1.0

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of optimiser step ``step``, counted from 0."""
        rising = min(1.0, (step + 1) / max(1, self.warmup_steps))
        falling = max(0.0, (self.total_steps - step) / max(1, self.total_steps - self.warmup_steps))
        return self.learning_rate * min(rising, falling, 1.0)


def make_optimiser(module: nn.Module, settings: OptimiserSettings) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; vectors (biases, norms) are not decayed.

    A parameter whose gradient is ``None`` in a step is left untouched: no decay, no momentum. That is what keeps the
    paths that were not sampled bit-identical.
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=settings.learning_rate, fused=True)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients over all workers; every worker must hold gradients for the same parameters."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()


def complete_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Give a gradient of zero to parameters that only other workers have one for, where each trained another path."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return
    has_P = torch.tensor([parameter.grad is not None for parameter in parameters], device=parameters[0].device).int()
    dist.all_reduce(has_P, dist.ReduceOp.MAX)
    for parameter, has in zip(parameters, has_P.tolist(), strict=True):
        if has and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)


def apply_step(
    optimiser: torch.optim.AdamW,
    settings: OptimiserSettings,
    step: int,
    parts: Iterable[nn.Module | Sequence[nn.Parameter]],
) -> None:
    """Exchange gradients, clip them per part, take one optimiser step and forget the gradients.

    Args:
        optimiser: made by :func:`make_optimiser`.
        settings: the same.
        step: counted from 0.
        parts: modules, or their parameters, whose gradients are clipped on their own (blocks that share nothing, or
            one student). Walking through a supernet's thousands of modules takes longer than a step of a few of them
            on an accelerator, so whoever takes many steps lists the parameters once.
    """
    for part in parts:
        members = part.parameters() if isinstance(part, nn.Module) else part
        parameters = [parameter for parameter in members if parameter.grad is not None]
        average_gradients(parameters)
        if settings.gradient_clip > 0 and parameters:
            nn.utils.clip_grad_norm_(parameters, settings.gradient_clip)
    for group in optimiser.param_groups:
        group["lr"] = settings.learning_rate_at(step)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def seed_dropout(seed: int, step: int, rank: int) -> None:
    """Set the chance of a step by itself, so that a resumed training drops what an undisturbed one would have.

    Args:
        seed: of the training.
        step: counted from 0.
        rank: of the worker; each drops others.
    """
    torch.manual_seed(hash((seed, step, rank)) % _LARGEST_SEED)
