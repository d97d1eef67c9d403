"""The embeddings of stand-alone models as BERT has them.

Shape legend: B batch, T tokens, E embedding size.

This file travels with exported models, so it imports nothing of the project.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn


class SummedEmbeddings(nn.Module):
    """Sum of token, position and (optional) segment embeddings, then LayerNorm and dropout (BERT's form).

    Args:
        size: width E.
        vocab_size: rows of the token table.
        max_positions: rows of the position table.
        type_vocab_size: rows of the segment table; 0 for none.
        pad_token_id: token id of padding.
        dropout: dropout probability.
        layer_norm_eps: epsilon of the LayerNorm.
    """

    def __init__(
        self,
        size: int,
        vocab_size: int,
        max_positions: int,
        type_vocab_size: int,
        pad_token_id: int | None,
        dropout: float,
        layer_norm_eps: float,
    ) -> None:
        super().__init__()
        self.token = nn.Embedding(vocab_size, size, padding_idx=pad_token_id)
        self.position = nn.Embedding(max_positions, size)
        self.segment = nn.Embedding(type_vocab_size, size) if type_vocab_size else None
        self.norm = nn.LayerNorm(size, eps=layer_norm_eps)
        self.dropout = nn.Dropout(dropout)

    @classmethod
    def of_config(cls, config: Any) -> Self:
        """The embeddings of a family's configuration."""
        return cls(
            config.embedding_size,
            config.vocab_size,
            config.max_position_embeddings,
            config.type_vocab_size,
            config.pad_token_id,
            config.hidden_dropout_prob,
            config.layer_norm_eps,
        )

    def forward(self, input_ids_BT: Tensor, token_type_ids_BT: Tensor | None = None) -> Tensor:
        """Embed token ids (int64); segments default to 0. Returns ``hidden_BTE``."""
        positions_T = torch.arange(input_ids_BT.shape[1], device=input_ids_BT.device)
        hidden_BTE = self.token(input_ids_BT) + self.position(positions_T)
        if self.segment is not None:
            segments_BT = torch.zeros_like(input_ids_BT) if token_type_ids_BT is None else token_type_ids_BT
            hidden_BTE = hidden_BTE + self.segment(segments_BT)
        return self.dropout(self.norm(hidden_BTE))
