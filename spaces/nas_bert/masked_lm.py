"""The stand-alone NAS-BERT encoder with a masked-LM head, as an ordinary Hugging Face model.

Like ``modeling.py`` this file travels with exported models and imports nothing of the project but what travels along.
"""

from __future__ import annotations

from spaces.model_parts.prediction_head import EncoderForMaskedLM

from .configuration import NasBertConfig
from .modeling import NasBertModel


class NasBertForMaskedLM(EncoderForMaskedLM):
    """A NAS-BERT encoder that predicts tokens: a linear map to the embedding size, GELU, LayerNorm, the tied table."""

    config_class = NasBertConfig
    encoder_class = NasBertModel
