"""Encoders of components with a head, as ordinary Hugging Face models.

Like ``modeling.py`` this file travels with exported models and imports nothing of the project but what travels along.
"""

from __future__ import annotations

from spaces.model_parts.prediction_head import EncoderForMaskedLM
from spaces.model_parts.task_heads import (
    EncoderForQuestionAnswering,
    EncoderForSequenceClassification,
    EncoderForTokenClassification,
)

from .configuration import ComponentsConfig
from .modeling import ComponentsModel


class ComponentsForMaskedLM(EncoderForMaskedLM):
    """An encoder of components that predicts tokens by the table that it looks them up in."""

    config_class = ComponentsConfig
    encoder_class = ComponentsModel


class ComponentsForSequenceClassification(EncoderForSequenceClassification):
    """An encoder of components that classifies sequences, or predicts one number for each."""

    config_class = ComponentsConfig
    encoder_class = ComponentsModel


class ComponentsForTokenClassification(EncoderForTokenClassification):
    """An encoder of components that classifies every token."""

    config_class = ComponentsConfig
    encoder_class = ComponentsModel


class ComponentsForQuestionAnswering(EncoderForQuestionAnswering):
    """An encoder of components that finds the span of a context that answers a question."""

    config_class = ComponentsConfig
    encoder_class = ComponentsModel
