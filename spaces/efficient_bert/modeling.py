"""The stand-alone EfficientBERT encoder as an ordinary Hugging Face model.

Shape legend: B batch, T tokens, E width of the token table, H hidden size of the blocks, N attention heads, D output
width.

This file and the modules it imports travel with exported models, so that they load with ``trust_remote_code`` where
netsuke is not installed; where it is, ``import spaces.huggingface`` registers the class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor, nn

from spaces.model_parts.attention import SelfAttention
from spaces.model_parts.encoder import Encoder, mask_of

from .configuration import EfficientBertConfig
from .feed_forward import FeedForward, run_expression

__all__ = [
    "EfficientBertBlock",
    "EfficientBertModel",
    "FeedForward",
    "SelfAttention",
    "TrigramEmbeddings",
    "run_expression",
    "walk",
]


class TrigramEmbeddings(nn.Module):
    """Embeddings of the next, the current and the previous token, mapped to the blocks' width (MobileBERT's form).

    Beyond either end of a text, and where padding is, a neighbour is zero, so that padding says nothing.

    Args:
        embedding_size: width E of the token table.
        hidden_size: width H.
        vocab_size: rows of the token table.
        max_positions: rows of the position table.
        type_vocab_size: rows of the segment table; 0 for none.
        dropout: dropout probability.
        layer_norm_eps: epsilon of the LayerNorm.
    """

    def __init__(
        self,
        embedding_size: int,
        hidden_size: int,
        vocab_size: int,
        max_positions: int,
        type_vocab_size: int,
        dropout: float,
        layer_norm_eps: float,
    ) -> None:
        super().__init__()
        self.token = nn.Embedding(vocab_size, embedding_size)
        self.transform = nn.Linear(3 * embedding_size, hidden_size)
        self.position = nn.Embedding(max_positions, hidden_size)
        self.segment = nn.Embedding(type_vocab_size, hidden_size) if type_vocab_size else None
        self.norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dropout = nn.Dropout(dropout)

    def forward(self, input_ids_BT: Tensor, mask_BT: Tensor, token_type_ids_BT: Tensor | None = None) -> Tensor:
        """Embed token ids.

        Args:
            input_ids_BT: int64.
            mask_BT: bool, True for valid tokens.
            token_type_ids_BT: segments; 0 by default.

        Returns:
            ``hidden_BTH``.
        """
        token_BTE = self.token(input_ids_BT)
        token_BTE = token_BTE * mask_BT.unsqueeze(-1).to(token_BTE.dtype)
        next_BTE = F.pad(token_BTE[:, 1:], (0, 0, 0, 1))
        previous_BTE = F.pad(token_BTE[:, :-1], (0, 0, 1, 0))
        hidden_BTH = self.transform(torch.cat([next_BTE, token_BTE, previous_BTE], dim=-1))
        hidden_BTH = hidden_BTH + self.position(torch.arange(input_ids_BT.shape[1], device=input_ids_BT.device))
        if self.segment is not None:
            segments_BT = torch.zeros_like(input_ids_BT) if token_type_ids_BT is None else token_type_ids_BT
            hidden_BTH = hidden_BTH + self.segment(segments_BT)
        return self.dropout(self.norm(hidden_BTH))


class EfficientBertBlock(nn.Module):
    """Attention, and the feed-forwards behind it.

    Args:
        config: sizes.
        expression: of the feed-forwards, in nested form.
        stacked: how many of them follow each other, each with weights of its own.
        inner_size: their inner width.
    """

    def __init__(self, config: EfficientBertConfig, expression: Any, stacked: int, inner_size: int) -> None:
        super().__init__()
        width, heads = config.block_hidden_size, config.num_attention_heads
        dropout, eps = config.hidden_dropout_prob, config.layer_norm_eps
        self.attention = SelfAttention(width, width // heads, dropout, eps, heads)
        self.feed_forwards = nn.ModuleList(
            FeedForward(expression, width, inner_size, config.width_rule, dropout, eps)  # type: ignore[arg-type]
            for _ in range(stacked)
        )

    def feed_forward(self, hidden_BTH: Tensor) -> Tensor:
        """Apply the feed-forwards, one after the other."""
        for feed_forward in self.feed_forwards:
            hidden_BTH = feed_forward(hidden_BTH)
        return hidden_BTH


Layer = tuple[SelfAttention, Callable[[Tensor], Tensor]]
"""A block in two steps: its attention, and all its feed-forwards."""


def walk(
    hidden_BTH: Tensor, mask_BT: Tensor, layers: Iterable[Layer], with_scores: bool = False
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Run blocks one after the other.

    Args:
        hidden_BTH: output of the embeddings.
        mask_BT: bool, True for valid tokens.
        layers: the blocks.
        with_scores: also compute the attention's scores, which takes longer.

    Yields:
        The hidden state after each block, and its attention's ``scores_BNTT``, or ``None``.
    """
    for attention, feed_forward in layers:
        scores_BNTT = None
        if with_scores:
            hidden_BTH, scores_BNTT = attention.forward_with_scores(hidden_BTH, mask_BT)
        else:
            hidden_BTH = attention(hidden_BTH, mask_BT)
        hidden_BTH = feed_forward(hidden_BTH)
        yield hidden_BTH, scores_BNTT


class EfficientBertModel(Encoder):
    """The encoder: embeddings, blocks, and where the configuration says so a linear map to the teacher's width.

    Args:
        config: sizes and expressions.

    Raises:
        ValueError: an expression is malformed.
    """

    config_class = EfficientBertConfig
    _no_split_modules = ["EfficientBertBlock"]  # noqa: RUF012 - as in the base class

    def __init__(self, config: EfficientBertConfig) -> None:
        super().__init__(config)
        width = config.block_hidden_size
        self.embeddings = TrigramEmbeddings(
            config.embedding_size,
            width,
            config.vocab_size,
            config.max_position_embeddings,
            config.type_vocab_size,
            config.hidden_dropout_prob,
            config.layer_norm_eps,
        )
        self.blocks = nn.ModuleList(
            EfficientBertBlock(config, block["expression"], block["stacked"], block["inner_size"])
            for block in config.blocks
        )
        self.projection = nn.Identity() if config.projection_size is None else nn.Linear(width, config.projection_size)
        self.post_init()

    def _layers(self) -> Iterator[Layer]:
        for block in self.blocks:
            assert isinstance(block, EfficientBertBlock)
            yield block.attention, block.feed_forward

    def _states(self, input_ids: Tensor, mask_BT: Tensor, token_type_ids: Tensor | None) -> Iterator[Tensor]:
        hidden_BTH = self.embeddings(input_ids, mask_BT, token_type_ids)
        yield hidden_BTH
        for state_BTH, _scores in walk(hidden_BTH, mask_BT, self._layers()):
            yield state_BTH

    def _outward(self, state: Tensor) -> Tensor:
        """A state mapped to the output's width."""
        output_BTD: Tensor = self.projection(state)
        return output_BTD

    def layer_states(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
        """All that a layer-wise distillation compares.

        Args:
            input_ids: int64 ``[B, T]``.
            attention_mask: 1 for valid tokens, ``[B, T]``; all valid by default.
            token_type_ids: segments, ``[B, T]``; 0 by default.

        Returns:
            The embeddings' output and the hidden state after each block, ``[B, T, D]`` each, mapped to the output's
            width; the attention scores of each block before the softmax, ``[B, N, T, T]``, -10000 added in the columns
            of padded keys.
        """
        mask_BT = mask_of(input_ids, attention_mask)
        hidden_BTH = self.embeddings(input_ids, mask_BT, token_type_ids)
        states = list(walk(hidden_BTH, mask_BT, self._layers(), with_scores=True))
        hidden_BTD = tuple(self.projection(state_BTH) for state_BTH, _ in states)
        scores_BNTT = tuple(scores for _, scores in states if scores is not None)
        return self.projection(hidden_BTH), hidden_BTD, scores_BNTT
