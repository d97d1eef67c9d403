"""Encoders with a masked-LM head, as ordinary Hugging Face models; families of encoders derive theirs from it.

Shape legend: B batch, T tokens, E embedding size, D output width of the encoder, V vocabulary.

This file travels with exported models, so it imports nothing of the project but what travels along.
"""

from __future__ import annotations

from typing import Any, Self

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput

from .encoder_with_head import EncoderWithHead


class PredictionHead(nn.Module):
    """Linear(D -> E), GELU, LayerNorm, then the token table turned round, with a bias (as NAS-BERT has it).

    The table is not the head's own: it is handed in, so that there is only one, whoever saves, loads or moves it.

    Args:
        input_size: width D of the encoder's output.
        embedding_size: width E of the token table.
        vocab_size: rows V of the token table.
        layer_norm_eps: epsilon of the LayerNorm.
    """

    def __init__(self, input_size: int, embedding_size: int, vocab_size: int, layer_norm_eps: float) -> None:
        super().__init__()
        self.transform = nn.Linear(input_size, embedding_size)
        self.norm = nn.LayerNorm(embedding_size, eps=layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, hidden_BTD: Tensor, table_VE: Tensor) -> Tensor:
        """Score every token of the vocabulary at every position; any leading dimensions do."""
        transformed_BTE = self.norm(F.gelu(self.transform(hidden_BTD)))
        return F.linear(transformed_BTE, table_VE, self.bias)


class EncoderForMaskedLM(EncoderWithHead):
    """The encoder with a masked-LM head whose output table is the token embedding, one table for both.

    Args:
        config: of the encoder; ``embedding_size`` is the width of its token table.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.head = PredictionHead(config.hidden_size, config.embedding_size, config.vocab_size, config.layer_norm_eps)
        self.post_init()

    @classmethod
    def of_encoder(cls, encoder: PreTrainedModel) -> Self:
        """Put a fresh head on an encoder; the encoder is taken over, not copied."""
        model = cls(encoder.config)
        model.encoder = encoder
        return model

    def _init_weights(self, module: nn.Module) -> None:
        """Start a part of the head that a checkpoint lacks."""
        super()._init_weights(module)
        if isinstance(module, PredictionHead):
            nn.init.zeros_(module.bias)

    def predict(self, hidden_BTD: Tensor) -> Tensor:
        """Logits over the vocabulary of the encoder's output at any positions, ``[..., V]``."""
        logits: Tensor = self.head(hidden_BTD, self.get_input_embeddings().weight)
        return logits

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool = False,
        return_dict: bool | None = None,
        **_: Any,
    ) -> MaskedLMOutput | tuple[Any, ...]:
        """Predict the token at every position.

        Args:
            input_ids: int64 ``[B, T]``.
            attention_mask: 1 for valid tokens, 0 for padding, ``[B, T]``; all valid by default.
            token_type_ids: segments, ``[B, T]``; 0 by default.
            labels: int64 ``[B, T]`` for a loss; -100 where nothing is to be predicted.
            output_hidden_states: also return the encoder's states at block borders.
            return_dict: False for a plain tuple.

        Returns:
            ``logits`` of shape ``[B, T, V]``; with labels the mean cross entropy as ``loss``.
        """
        encoded: Any = self.encoder(input_ids, attention_mask, token_type_ids, output_hidden_states)
        logits_BTV = self.predict(encoded.last_hidden_state)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits_BTV.flatten(0, 1).float(), labels.flatten(), ignore_index=-100)
        if return_dict is False:
            return tuple(part for part in (loss, logits_BTV, encoded.hidden_states) if part is not None)
        return MaskedLMOutput(loss=loss, logits=logits_BTV, hidden_states=encoded.hidden_states)
