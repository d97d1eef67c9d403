"""The operations a layer can be: attention, feed-forward and separable convolution, all post-norm.

Shape legend: B batch, T tokens, H hidden size of the block.

Every operation maps ``hidden_BTH`` to ``hidden_BTH`` as ``LayerNorm(x + f(x))``. The identity operation has no module:
an identity layer is absent from the architecture.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor, nn

from spaces.model_parts.attention import SelfAttention
from spaces.model_parts.plain_feed_forward import FeedForward

from .operation_names import (
    attention_heads,
    feed_forward_multiple,
    is_attention,
    is_feed_forward,
    is_separable,
    kernel_size,
)


class SeparableUnit(nn.Module):
    """Depthwise then pointwise convolution with GELU, residual and LayerNorm: one unit of ``S<kernel>``.

    Args:
        hidden_size: width H.
        kernel_size: odd number of tokens the depthwise convolution sees.
        dropout: probability after the activation.
        layer_norm_eps: epsilon of the LayerNorm.
    """

    def __init__(self, hidden_size: int, kernel_size: int, dropout: float, layer_norm_eps: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(hidden_size, hidden_size, kernel_size, groups=hidden_size, padding=kernel_size // 2)
        self.pointwise = nn.Linear(hidden_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dropout = dropout
        deviation = math.sqrt(4 * (1 - dropout) / (kernel_size * hidden_size))
        nn.init.normal_(self.depthwise.weight, std=deviation)
        nn.init.zeros_(self._bias(self.depthwise))
        nn.init.normal_(self.pointwise.weight, std=math.sqrt(4 * (1 - dropout) / hidden_size))
        nn.init.zeros_(self.pointwise.bias)

    @staticmethod
    def _bias(convolution: nn.Conv1d) -> Tensor:
        assert convolution.bias is not None
        return convolution.bias

    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        """Apply the unit. Padded positions are zeroed first, so that what stands there never reaches valid tokens."""
        visible_BTH = hidden_BTH * mask_BT.unsqueeze(-1).to(hidden_BTH.dtype)
        mixed_BTH = self.depthwise(visible_BTH.transpose(1, 2)).transpose(1, 2)
        activated_BTH = F.gelu(self.pointwise(mixed_BTH))
        return self.norm(hidden_BTH + F.dropout(activated_BTH, self.dropout, self.training))


class SeparableConvolution(nn.Module):
    """Stacked separable-convolution units (operation ``S<kernel>``).

    The paper's sizes and FLOPs fit two units, although its text shows one: hence the switch.

    Args:
        hidden_size: width H.
        kernel_size: kernel of each unit.
        units: how many units are stacked, 1 or 2.
        dropout: probability within each unit.
        layer_norm_eps: epsilon of the LayerNorms.
    """

    def __init__(self, hidden_size: int, kernel_size: int, units: int, dropout: float, layer_norm_eps: float) -> None:
        super().__init__()
        self.units = nn.ModuleList(
            SeparableUnit(hidden_size, kernel_size, dropout, layer_norm_eps) for _ in range(units)
        )

    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        """Apply the units in turn; ``mask_BT`` is bool, True for valid tokens."""
        for unit in self.units:
            hidden_BTH = unit(hidden_BTH, mask_BT)
        return hidden_BTH


def build_operation(
    operation: str,
    hidden_size: int,
    *,
    head_size: int,
    separable_units: int,
    dropout: float,
    layer_norm_eps: float,
) -> nn.Module:
    """Make the module of an operation name with fresh weights.

    Args:
        operation: ``M``, ``M<heads>``, ``F``, ``F<multiple>`` or ``S<kernel>``.
        hidden_size: width H.
        head_size: width of an attention head.
        separable_units: stacked units of a separable convolution.
        dropout: dropout probability.
        layer_norm_eps: epsilon of the LayerNorms.

    Raises:
        ValueError: no such operation.
    """
    if is_attention(operation):
        heads = attention_heads(operation, hidden_size, head_size)
        return SelfAttention(hidden_size, head_size, dropout, layer_norm_eps, heads)
    if is_feed_forward(operation):
        return FeedForward(hidden_size, feed_forward_multiple(operation) * hidden_size, dropout, layer_norm_eps)
    if is_separable(operation):
        return SeparableConvolution(hidden_size, kernel_size(operation), separable_units, dropout, layer_norm_eps)
    raise ValueError(f"operation '{operation}' is not known; expected M, M<heads>, F, F<multiple> or S<kernel>")


def initialise_like_the_paper(module: nn.Module) -> None:
    """Random start of every linear map and embedding below ``module`` (paper notes, section 2.4).

    N(0, 0.02) for feed-forward, embeddings and projections; Xavier-uniform for attention, with gain 1/sqrt(2) for
    query, key and value; separable units keep the start they make themselves.
    """
    separable = {id(part) for unit in module.modules() if isinstance(unit, SeparableUnit) for part in unit.modules()}
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, (nn.Linear, nn.Embedding)) and id(part) not in separable:
                nn.init.normal_(part.weight, std=0.02)
                if isinstance(part, nn.Linear):
                    nn.init.zeros_(part.bias)
        for part in module.modules():
            if isinstance(part, SelfAttention):
                for linear in (part.query, part.key, part.value):
                    nn.init.xavier_uniform_(linear.weight, gain=1 / math.sqrt(2))
                nn.init.xavier_uniform_(part.output.weight)
