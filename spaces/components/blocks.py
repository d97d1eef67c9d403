"""The blocks that stand-alone models of components are stacks of, and what they and the supernet compute.

Shape legend: B batch, T tokens, D hidden size, N heads of a block, S size of a head, K channels of a head's queries and
keys, I neurons of a block.

This file travels with exported models, so it imports nothing of the project.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor, nn
from transformers.activations import ACT2FN

Affine = tuple[Tensor, Tensor | None]
"""Weight and bias of a linear map."""


def affine_of(linear: nn.Linear) -> Affine:
    """Weight and bias of a linear map."""
    return linear.weight, linear.bias


def attend(
    hidden_BTD: Tensor,
    mask_BT: Tensor,
    query: Affine | None,
    key: Affine | None,
    value: Affine,
    output: Affine,
    heads: int,
    head_size: int,
    dropout: float = 0.0,
) -> Tensor:
    """What some heads of attention add to the stream.

    Args:
        hidden_BTD: input.
        mask_BT: bool, True for valid tokens.
        query: to N × K channels; ``None`` where queries and keys have none left: attention is then uniform over valid
            tokens, so that their mean is mapped once instead of each of them.
        key: as ``query``.
        value: to N × S channels.
        output: back to D.
        heads: N.
        head_size: S, whose root divides the scores however many channels of queries and keys are left.
        dropout: probability for attention weights and output.
    """
    if query is None or key is None:
        weight_BT = mask_BT.to(hidden_BTD.dtype)
        weight_BT = weight_BT / weight_BT.sum(1, keepdim=True).clamp(min=1)
        mixed_B1D = weight_BT.unsqueeze(1) @ hidden_BTD
        added_BTD = F.linear(F.linear(mixed_B1D, *value), *output).expand_as(hidden_BTD)
    else:
        query_BNTK, key_BNTK, value_BNTS = (
            F.linear(hidden_BTD, *affine).unflatten(-1, (heads, -1)).transpose(1, 2) for affine in (query, key, value)
        )
        # Kernels for attention want queries, keys and values of one size, and are several times slower otherwise.
        query_BNTS, key_BNTS = (F.pad(part, (0, head_size - part.shape[-1])) for part in (query_BNTK, key_BNTK))
        mixed_BNTS = F.scaled_dot_product_attention(
            query_BNTS, key_BNTS, value_BNTS, mask_BT[:, None, None, :], dropout, scale=head_size**-0.5
        )
        added_BTD = F.linear(mixed_BNTS.transpose(1, 2).flatten(2), *output)
    return F.dropout(added_BTD, dropout, training=dropout > 0)


@cache
def _activation(name: str) -> nn.Module:
    """Made once: Hugging Face makes a new module each time it is asked."""
    made: nn.Module = ACT2FN[name]
    return made


def feed_forward(hidden_BTD: Tensor, inner: Affine, output: Affine, activation: str, dropout: float = 0.0) -> Tensor:
    """What some neurons of a feed-forward add to the stream.

    Args:
        hidden_BTD: input.
        inner: to I neurons.
        output: back to D.
        activation: as Hugging Face calls it.
        dropout: probability for the output.
    """
    added_BTD = F.linear(_activation(activation)(F.linear(hidden_BTD, *inner)), *output)
    return F.dropout(added_BTD, dropout, training=dropout > 0)


def normalise(hidden_BTD: Tensor, weight_D: Tensor, bias_D: Tensor, eps: float, mean: Tensor | float) -> Tensor:
    """LayerNorm that subtracts ``mean`` times the mean, divided by the root of the second moment around that.

    With 1 it is LayerNorm, with 0 RMSNorm with a bias; in between it is smooth.
    """
    if not isinstance(mean, Tensor):
        if mean == 1:
            return F.layer_norm(hidden_BTD, weight_D.shape, weight_D, bias_D, eps)
        if mean == 0:
            return F.rms_norm(hidden_BTD, weight_D.shape, weight_D, eps) + bias_D
    moved_BTD = hidden_BTD - mean * hidden_BTD.mean(-1, keepdim=True)
    return moved_BTD * torch.rsqrt(moved_BTD.square().mean(-1, keepdim=True) + eps) * weight_D + bias_D


class Norm(nn.LayerNorm):
    """LayerNorm, with the mean or without.

    Args:
        hidden_size: width D.
        eps: epsilon.
        mean: whether the mean is subtracted.
    """

    def __init__(self, hidden_size: int, eps: float, mean: bool = True) -> None:
        super().__init__(hidden_size, eps=eps)
        self.mean = mean

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return normalise(hidden_BTD, self.weight, self.bias, self.eps, float(self.mean))


class ResidualBlock(nn.Module):
    """The input plus what the block adds to it, and a LayerNorm behind the last block of a layer's half.

    Args:
        hidden_size: width D.
        dropout: probability in training mode.
        norm: ``mean`` or ``no_mean`` for a LayerNorm with or without the mean, ``None`` for none.
        layer_norm_eps: its epsilon.
    """

    def __init__(self, hidden_size: int, dropout: float, norm: str | None, layer_norm_eps: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm = None if norm is None else Norm(hidden_size, layer_norm_eps, norm == "mean")

    def contribution(self, hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """What the block adds."""
        raise NotImplementedError

    def forward(self, hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Apply the block; ``mask_BT`` is bool, True for valid tokens."""
        hidden_BTD = hidden_BTD + self.contribution(hidden_BTD, mask_BT)
        return hidden_BTD if self.norm is None else self.norm(hidden_BTD)


class AttentionBlock(ResidualBlock):
    """Attention of some heads.

    Args:
        hidden_size: width D.
        heads: N.
        head_size: S.
        key_size: K; 0 for the mean of all valid tokens.
        bias: whether the map back has a bias.
        **others: as :class:`ResidualBlock` takes them.
    """

    def __init__(
        self, hidden_size: int, heads: int, head_size: int, key_size: int, bias: bool = True, **others: Any
    ) -> None:
        super().__init__(hidden_size, **others)
        self.heads, self.head_size = heads, head_size
        self.query = nn.Linear(hidden_size, heads * key_size) if key_size else None
        self.key = nn.Linear(hidden_size, heads * key_size) if key_size else None
        self.value = nn.Linear(hidden_size, heads * head_size)
        self.output = nn.Linear(heads * head_size, hidden_size, bias=bias)

    def contribution(self, hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """What the heads add."""
        query, key = (None if linear is None else affine_of(linear) for linear in (self.query, self.key))
        maps = (query, key, affine_of(self.value), affine_of(self.output))
        return attend(hidden_BTD, mask_BT, *maps, self.heads, self.head_size, self.dropout if self.training else 0.0)


class FeedForwardBlock(ResidualBlock):
    """A feed-forward of some neurons.

    Args:
        hidden_size: width D.
        inner_size: I.
        activation: as Hugging Face calls it.
        bias: whether the map back has a bias.
        **others: as :class:`ResidualBlock` takes them.
    """

    def __init__(self, hidden_size: int, inner_size: int, activation: str, bias: bool = True, **others: Any) -> None:
        super().__init__(hidden_size, **others)
        self.activation = activation
        self.inner = nn.Linear(hidden_size, inner_size)
        self.output = nn.Linear(inner_size, hidden_size, bias=bias)

    def contribution(self, hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """What the neurons add; the mask is not needed, tokens do not mix."""
        maps = (affine_of(self.inner), affine_of(self.output))
        return feed_forward(hidden_BTD, *maps, self.activation, self.dropout if self.training else 0.0)
