"""Registers the project's models with Hugging Face: after importing this module, ``AutoModel`` loads exports."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PretrainedConfig,
)

from spaces.nas_bert.configuration import NasBertConfig
from spaces.nas_bert.masked_lm import NasBertForMaskedLM
from spaces.nas_bert.modeling import NasBertModel
from spaces.nas_bert.task_models import (
    NasBertForQuestionAnswering,
    NasBertForSequenceClassification,
    NasBertForTokenClassification,
)
from spaces.pooled_encoder import (
    PooledEncoderConfig,
    PooledEncoderForQuestionAnswering,
    PooledEncoderForSequenceClassification,
)

AutoConfig.register(NasBertConfig.model_type, NasBertConfig, exist_ok=True)
AutoModel.register(NasBertConfig, NasBertModel, exist_ok=True)
AutoModelForMaskedLM.register(NasBertConfig, NasBertForMaskedLM, exist_ok=True)
AutoConfig.register(PooledEncoderConfig.model_type, PooledEncoderConfig, exist_ok=True)
AutoModelForSequenceClassification.register(PooledEncoderConfig, PooledEncoderForSequenceClassification, exist_ok=True)
AutoModelForQuestionAnswering.register(PooledEncoderConfig, PooledEncoderForQuestionAnswering, exist_ok=True)

HEADS = {
    AutoModelForSequenceClassification: NasBertForSequenceClassification,
    AutoModelForTokenClassification: NasBertForTokenClassification,
    AutoModelForQuestionAnswering: NasBertForQuestionAnswering,
}
"""The models with a head for a task, by the class of Hugging Face that loads them."""
for _auto_class, _own_class in HEADS.items():
    _auto_class.register(NasBertConfig, _own_class, exist_ok=True)


def send_heads_along(config: PretrainedConfig, folder: Path) -> None:
    """Let an exported encoder take a head where netsuke is not installed.

    Args:
        config: of the encoder, before it is saved; learns which class loads which head.
        folder: of the export; gets the heads' code beside the encoder's. Made if absent.
    """
    known = dict(getattr(config, "auto_map", None) or {})
    names = {auto_class.__name__: f"task_models.{own_class.__name__}" for auto_class, own_class in HEADS.items()}
    config.auto_map = {**names, **known}
    folder.mkdir(parents=True, exist_ok=True)
    source = sys.modules[NasBertForSequenceClassification.__module__].__file__
    assert source is not None
    shutil.copyfile(source, folder / "task_models.py")


__all__ = [
    "NasBertConfig",
    "NasBertForMaskedLM",
    "NasBertForQuestionAnswering",
    "NasBertForSequenceClassification",
    "NasBertForTokenClassification",
    "NasBertModel",
    "PooledEncoderConfig",
    "PooledEncoderForQuestionAnswering",
    "PooledEncoderForSequenceClassification",
    "send_heads_along",
]
