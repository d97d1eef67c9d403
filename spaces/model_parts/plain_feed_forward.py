"""BERT's feed-forward with residual and LayerNorm, post-norm: as teachers have it, and layers of NAS-BERT's space.

Shape legend: B batch, T tokens, H hidden size, I inner size.

This file travels with exported models, so it imports nothing of the project.
"""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor, nn


class FeedForward(nn.Module):
    """Two linear maps with GELU between them, residual and LayerNorm (NAS-BERT's ``F``, ``F1``, ``F2``, ...).

    Args:
        hidden_size: width H.
        inner_size: width I between the two maps.
        dropout: probability after the activation and after the second map.
        layer_norm_eps: epsilon of the LayerNorm.
    """

    def __init__(self, hidden_size: int, inner_size: int, dropout: float, layer_norm_eps: float) -> None:
        super().__init__()
        self.inner = nn.Linear(hidden_size, inner_size)
        self.output = nn.Linear(inner_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dropout = dropout

    def contribution(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        """What the feed-forward adds to the residual stream, before the LayerNorm."""
        inner_BTI = F.dropout(F.gelu(self.inner(hidden_BTH)), self.dropout, self.training)
        return F.dropout(self.output(inner_BTI), self.dropout, self.training)

    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        """Apply the operation; the mask is not needed, tokens do not mix."""
        return self.norm(hidden_BTH + self.contribution(hidden_BTH, mask_BT))
