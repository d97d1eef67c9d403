"""Encoders with a head for a task, as ordinary Hugging Face models; families of encoders derive theirs from these.

Shape legend: B batch, T tokens, D output width of the encoder, C classes (or 1 for a regression).

The heads are the simplest there are: dropout and one linear map, on one vector a sequence or on every token; whole
sequences may have BERT's pooler before it. This file travels with exported models, so it imports nothing of the project
but what travels along.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - PyTorch's own abbreviation
from torch import Tensor, nn
from transformers.modeling_outputs import (
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)

from .encoder_with_head import EncoderWithHead

Pooling = Literal["first", "mean"]


def pool(hidden_BTD: Tensor, mask_BT: Tensor, how: str) -> Tensor:
    """One vector a sequence, ``[B, D]``.

    Args:
        hidden_BTD: last hidden state.
        mask_BT: 1 for valid tokens.
        how: ``first``: the first token's state, as NAS-BERT and BERT do; ``mean``: the mean of the valid tokens, for
            encoders whose first token was never trained to stand for the sequence (all-MiniLM and its students).

    Raises:
        ValueError: ``how`` is neither.
    """
    if how == "first":
        return hidden_BTD[:, 0]
    if how != "mean":
        raise ValueError(f"classifier_pooling: found {how!r}, expected first or mean")
    weight_BT1 = mask_BT.to(hidden_BTD.dtype).unsqueeze(-1)
    return (hidden_BTD * weight_BT1).sum(1) / weight_BT1.sum(1).clamp(min=1)


class _EncoderWithClassifier(EncoderWithHead):
    """What the three models share: dropout, and a linear map to ``config.num_labels`` numbers."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        own = getattr(config, "classifier_dropout", None)
        self.dropout = nn.Dropout(config.hidden_dropout_prob if own is None else own)
        self.classifier = nn.Linear(config.hidden_size, int(config.num_labels or 0))
        self._add_maps(config)
        self.post_init()

    def _add_maps(self, config: Any) -> None:
        """What else the head has."""

    def _encode(self, input_ids: Tensor, attention_mask: Tensor | None, token_type_ids: Tensor | None) -> Tensor:
        hidden_BTD: Tensor = self.encoder(input_ids, attention_mask, token_type_ids).last_hidden_state
        return hidden_BTD


class EncoderForSequenceClassification(_EncoderWithClassifier):
    """Classifies sequences, or predicts one number for each.

    ``config.num_labels`` is the number of classes, or 1 for a regression; ``config.classifier_pooling`` is ``first``
    (the default, as in BERT) or ``mean``; ``config.classifier_pooler`` is true where BERT's pooler (a linear map and
    tanh) comes before the classifier.

    Args:
        config: of the encoder, with those.
    """

    def _add_maps(self, config: Any) -> None:
        has_pooler = getattr(config, "classifier_pooler", False)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size) if has_pooler else None

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **_: Any,
    ) -> SequenceClassifierOutput:
        """Predict.

        Args:
            input_ids: int64 ``[B, T]``.
            attention_mask: 1 for valid tokens; all valid by default.
            token_type_ids: segments, 0 by default.
            labels: ``[B]``, int64 classes or (one label) real numbers; asks for the loss.

        Returns:
            ``logits`` of shape ``[B, C]`` and, with labels, ``loss``.
        """
        mask_BT = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden_BTD = self._encode(input_ids, mask_BT, token_type_ids)
        pooled_BD = pool(hidden_BTD, mask_BT, getattr(self.config, "classifier_pooling", "first"))
        if self.pooler is not None:
            pooled_BD = torch.tanh(self.pooler(pooled_BD))
        logits_BC = self.classifier(self.dropout(pooled_BD))
        loss = None
        if labels is not None:
            is_number = self.config.num_labels == 1
            loss = F.mse_loss(logits_BC[:, 0], labels.float()) if is_number else F.cross_entropy(logits_BC, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits_BC)


class EncoderForTokenClassification(_EncoderWithClassifier):
    """Classifies every token.

    Args:
        config: of the encoder, with ``num_labels``.
    """

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **_: Any,
    ) -> TokenClassifierOutput:
        """Predict.

        Args:
            input_ids: int64 ``[B, T]``.
            attention_mask: 1 for valid tokens; all valid by default.
            token_type_ids: segments, 0 by default.
            labels: int64 ``[B, T]``, -100 where there is none; asks for the loss.

        Returns:
            ``logits`` of shape ``[B, T, C]`` and, with labels, ``loss``.
        """
        hidden_BTD = self._encode(input_ids, attention_mask, token_type_ids)
        logits_BTC = self.classifier(self.dropout(hidden_BTD))
        loss = None if labels is None else F.cross_entropy(logits_BTC.flatten(0, 1), labels.flatten())
        return TokenClassifierOutput(loss=loss, logits=logits_BTC)


@dataclass
class AnswerOutput(QuestionAnsweringModelOutput):
    """Starts, ends and, where a model has a layer for it, whether there is an answer at all.

    Attributes:
        answerable_logits: ``[B]``, above 0 where the text holds the answer; ``None`` without that layer.
    """

    answerable_logits: Tensor | None = None


def answers_of(
    hidden_BTD: Tensor,
    spans: nn.Module,
    answerability: nn.Module | None,
    positions: tuple[Tensor | None, Tensor | None] = (None, None),
) -> AnswerOutput:
    """Predict spans from token states, and from the first token's whether there is an answer (RoBERTa, SQuAD 2.0).

    Args:
        hidden_BTD: last hidden state.
        spans: linear map to a start and an end.
        answerability: linear map to one number; ``None`` where the span alone decides.
        positions: int64 ``[B]`` each, the answers' first and last tokens, 0 and 0 for no answer; both ask for the loss.

    Returns:
        Logits and, with positions, ``loss``: mean of start's and end's cross entropy, plus the binary layer's.
    """
    start_BT, end_BT = spans(hidden_BTD).unbind(-1)
    answerable_B = None if answerability is None else answerability(hidden_BTD[:, 0])[:, 0]
    starts_B, ends_B = positions
    loss = None
    if starts_B is not None and ends_B is not None:
        loss = (F.cross_entropy(start_BT, starts_B) + F.cross_entropy(end_BT, ends_B)) / 2
        if answerable_B is not None:
            has_answer_B = ((starts_B != 0) | (ends_B != 0)).to(answerable_B.dtype)
            loss = loss + F.binary_cross_entropy_with_logits(answerable_B, has_answer_B)
    return AnswerOutput(loss=loss, start_logits=start_BT, end_logits=end_BT, answerable_logits=answerable_B)


class EncoderForQuestionAnswering(_EncoderWithClassifier):
    """Finds the span of a context that answers a question.

    Args:
        config: of the encoder; ``num_labels`` becomes 2, a start and an end. Where ``config.answerability`` is
            ``layer``, a second linear map on the first token tells whether there is an answer.
    """

    def __init__(self, config: Any) -> None:
        config.num_labels = 2
        super().__init__(config)

    def _add_maps(self, config: Any) -> None:
        has_layer = getattr(config, "answerability", "span") == "layer"
        self.answerability = nn.Linear(config.hidden_size, 1) if has_layer else None

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **_: Any,
    ) -> AnswerOutput:
        """Predict.

        Args:
            input_ids: int64 ``[B, T]``.
            attention_mask: 1 for valid tokens; all valid by default.
            token_type_ids: segments, 0 by default.
            start_positions: int64 ``[B]``, the answers' first tokens; with ``end_positions`` asks for the loss.
            end_positions: int64 ``[B]``, the answers' last tokens.

        Returns:
            ``start_logits`` and ``end_logits`` of shape ``[B, T]``, with the layer ``answerable_logits`` of shape
            ``[B]`` and, with positions, ``loss``.
        """
        hidden_BTD = self._encode(input_ids, attention_mask, token_type_ids)
        positions = (start_positions, end_positions)
        return answers_of(self.dropout(hidden_BTD), self.classifier, self.answerability, positions)
