"""EfficientBERT encoders with a head, as ordinary Hugging Face models.

Like ``modeling.py`` this file travels with exported models and imports nothing of the project but what travels along.
"""

from __future__ import annotations

from spaces.model_parts.prediction_head import EncoderForMaskedLM
from spaces.model_parts.task_heads import (
    EncoderForQuestionAnswering,
    EncoderForSequenceClassification,
    EncoderForTokenClassification,
)

from .configuration import EfficientBertConfig
from .modeling import EfficientBertModel


class EfficientBertForMaskedLM(EncoderForMaskedLM):
    """An EfficientBERT encoder that predicts tokens by the table that it looks them up in."""

    config_class = EfficientBertConfig
    encoder_class = EfficientBertModel


class EfficientBertForSequenceClassification(EncoderForSequenceClassification):
    """An EfficientBERT encoder that classifies sequences, or predicts one number for each."""

    config_class = EfficientBertConfig
    encoder_class = EfficientBertModel


class EfficientBertForTokenClassification(EncoderForTokenClassification):
    """An EfficientBERT encoder that classifies every token."""

    config_class = EfficientBertConfig
    encoder_class = EfficientBertModel


class EfficientBertForQuestionAnswering(EncoderForQuestionAnswering):
    """An EfficientBERT encoder that finds the span of a context that answers a question."""

    config_class = EfficientBertConfig
    encoder_class = EfficientBertModel
