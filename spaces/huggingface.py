"""Registers the project's models with Hugging Face: after importing this module, ``AutoModel`` loads exports."""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

from spaces.nas_bert.configuration import NasBertConfig
from spaces.nas_bert.masked_lm import NasBertForMaskedLM
from spaces.nas_bert.modeling import NasBertModel

AutoConfig.register(NasBertConfig.model_type, NasBertConfig, exist_ok=True)
AutoModel.register(NasBertConfig, NasBertModel, exist_ok=True)
AutoModelForMaskedLM.register(NasBertConfig, NasBertForMaskedLM, exist_ok=True)

__all__ = ["NasBertConfig", "NasBertForMaskedLM", "NasBertModel"]
