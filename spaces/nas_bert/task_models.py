"""NAS-BERT encoders with a head for a task, as ordinary Hugging Face models.

Like ``modeling.py`` this file travels with exported models and imports nothing of the project but what travels along.
"""

from __future__ import annotations

from spaces.model_parts.task_heads import (
    EncoderForQuestionAnswering,
    EncoderForSequenceClassification,
    EncoderForTokenClassification,
)

from .configuration import NasBertConfig
from .modeling import NasBertModel


class NasBertForSequenceClassification(EncoderForSequenceClassification):
    """A NAS-BERT encoder that classifies sequences, or predicts one number for each."""

    config_class = NasBertConfig
    encoder_class = NasBertModel


class NasBertForTokenClassification(EncoderForTokenClassification):
    """A NAS-BERT encoder that classifies every token."""

    config_class = NasBertConfig
    encoder_class = NasBertModel


class NasBertForQuestionAnswering(EncoderForQuestionAnswering):
    """A NAS-BERT encoder that finds the span of a context that answers a question."""

    config_class = NasBertConfig
    encoder_class = NasBertModel
