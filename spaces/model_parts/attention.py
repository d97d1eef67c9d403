"""Multi-head self-attention of stand-alone models, post-norm, with its scores for those who compare them.

Shape legend: B batch, T tokens, H hidden size, N heads, S size of a head, A = N × S width of all heads.

This file travels with exported models, so it imports nothing of the project.
"""

from __future__ import annotations

import math

import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor, nn

PADDED_KEY = -10000.0
"""What is added to the scores in the columns of padded keys: after the softmax they are exactly 0."""


class SelfAttention(nn.Module):
    """Multi-head self-attention with residual and LayerNorm.

    Args:
        hidden_size: width H.
        head_size: width S of a head.
        dropout: probability for attention weights and output.
        layer_norm_eps: epsilon of the LayerNorm.
        num_heads: N; by default as many as fit the hidden size, which is then a multiple of the head size.
    """

    def __init__(
        self, hidden_size: int, head_size: int, dropout: float, layer_norm_eps: float, num_heads: int | None = None
    ) -> None:
        super().__init__()
        self.num_heads = hidden_size // head_size if num_heads is None else num_heads
        self.head_size = head_size
        inner_size = self.num_heads * head_size
        self.query = nn.Linear(hidden_size, inner_size)
        self.key = nn.Linear(hidden_size, inner_size)
        self.value = nn.Linear(hidden_size, inner_size)
        self.output = nn.Linear(inner_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dropout = dropout

    def _heads(self, projected_BTA: Tensor) -> Tensor:
        batch, tokens, _ = projected_BTA.shape
        return projected_BTA.view(batch, tokens, self.num_heads, self.head_size).transpose(1, 2)

    def _leave(self, attended_BNTS: Tensor) -> Tensor:
        output_BTH: Tensor = self.output(attended_BNTS.transpose(1, 2).flatten(2))
        return F.dropout(output_BTH, self.dropout, self.training)

    def scores(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        """What the softmax is taken of: ``QK^T/sqrt(S)``, with :data:`PADDED_KEY` added in padded keys' columns.

        Args:
            hidden_BTH: input.
            mask_BT: bool, True for valid tokens.

        Returns:
            ``scores_BNTT``, a row for each query.
        """
        query_BNTS, key_BNTS = self._heads(self.query(hidden_BTH)), self._heads(self.key(hidden_BTH))
        scores_BNTT: Tensor = query_BNTS @ key_BNTS.transpose(-1, -2) / math.sqrt(self.head_size)
        padded_BT = (~mask_BT).to(scores_BNTT.dtype) * PADDED_KEY
        return scores_BNTT + padded_BT[:, None, None, :]

    def contribution(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        """What attention adds to the residual stream, before the LayerNorm."""
        attended_BNTS = F.scaled_dot_product_attention(
            self._heads(self.query(hidden_BTH)),
            self._heads(self.key(hidden_BTH)),
            self._heads(self.value(hidden_BTH)),
            attn_mask=mask_BT[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self._leave(attended_BNTS)

    def forward(self, hidden_BTH: Tensor, mask_BT: Tensor) -> Tensor:
        """Apply the operation; ``mask_BT`` is bool, True for valid tokens."""
        return self.norm(hidden_BTH + self.contribution(hidden_BTH, mask_BT))

    def forward_with_scores(self, hidden_BTH: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`forward` and :meth:`scores`, in one pass; slower than :meth:`forward` alone."""
        scores_BNTT = self.scores(hidden_BTH, mask_BT)
        weights_BNTT = F.dropout(scores_BNTT.softmax(-1), self.dropout, self.training)
        attended_BNTS = weights_BNTT @ self._heads(self.value(hidden_BTH))
        return self.norm(hidden_BTH + self._leave(attended_BNTS)), scores_BNTT
