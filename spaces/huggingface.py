"""Registers the project's models with Hugging Face: after importing this module, ``AutoModel`` loads exports.

What the rest of the project has to know of a family of models (how to recognise one, which heads it takes, what its
exports take along) is said once, in :data:`OWN_FAMILIES`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from spaces.components.configuration import ComponentsConfig
from spaces.components.heads import (
    ComponentsForMaskedLM,
    ComponentsForQuestionAnswering,
    ComponentsForSequenceClassification,
    ComponentsForTokenClassification,
)
from spaces.components.modeling import ComponentsModel
from spaces.efficient_bert.configuration import EfficientBertConfig
from spaces.efficient_bert.heads import (
    EfficientBertForMaskedLM,
    EfficientBertForQuestionAnswering,
    EfficientBertForSequenceClassification,
    EfficientBertForTokenClassification,
)
from spaces.efficient_bert.modeling import EfficientBertModel
from spaces.model_parts.prediction_head import EncoderForMaskedLM
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
from spaces.travelling_code import travelling_files


@dataclass(frozen=True)
class ModelFamily:
    """The stand-alone models of one space: their classes, by Hugging Face's classes that load them.

    Attributes:
        config_class: what tells the family's models from all others.
        encoder_class: the model without a head.
        masked_lm_class: the encoder with a masked-LM head.
        task_classes: the encoder with a head for a task.
    """

    config_class: type[Any]
    encoder_class: type[Any]
    masked_lm_class: type[EncoderForMaskedLM]
    task_classes: Mapping[Any, type[Any]]

    def classes(self) -> dict[Any, type[Any]]:
        """All model classes by the class of Hugging Face that loads them."""
        return {AutoModel: self.encoder_class, AutoModelForMaskedLM: self.masked_lm_class, **self.task_classes}

    def register(self) -> None:
        """Let Hugging Face's classes load the family."""
        AutoConfig.register(self.config_class.model_type, self.config_class, exist_ok=True)
        for auto_class, own_class in self.classes().items():
            auto_class.register(self.config_class, own_class, exist_ok=True)

    def send_code_along(self, config: Any, folder: Path) -> None:
        """Let an exported model, and its encoder under any head, load where netsuke is not installed.

        Args:
            config: of the model, before it is saved; learns which class of which file is loaded by which class.
            folder: of the export; gets the code. Made if absent.
        """
        classes: dict[Any, type[Any]] = {AutoConfig: self.config_class, **self.classes()}
        files = {name: Path(inspect.getfile(own_class)) for name, own_class in classes.items()}
        config.auto_map = {
            auto_class.__name__: f"{files[auto_class].stem}.{own_class.__name__}"
            for auto_class, own_class in classes.items()
        }
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in travelling_files(files.values()).items():
            (folder / name).write_text(text, encoding="utf-8")


OWN_FAMILIES = (
    ModelFamily(
        NasBertConfig,
        NasBertModel,
        NasBertForMaskedLM,
        {
            AutoModelForSequenceClassification: NasBertForSequenceClassification,
            AutoModelForTokenClassification: NasBertForTokenClassification,
            AutoModelForQuestionAnswering: NasBertForQuestionAnswering,
        },
    ),
    ModelFamily(
        EfficientBertConfig,
        EfficientBertModel,
        EfficientBertForMaskedLM,
        {
            AutoModelForSequenceClassification: EfficientBertForSequenceClassification,
            AutoModelForTokenClassification: EfficientBertForTokenClassification,
            AutoModelForQuestionAnswering: EfficientBertForQuestionAnswering,
        },
    ),
    ModelFamily(
        ComponentsConfig,
        ComponentsModel,
        ComponentsForMaskedLM,
        {
            AutoModelForSequenceClassification: ComponentsForSequenceClassification,
            AutoModelForTokenClassification: ComponentsForTokenClassification,
            AutoModelForQuestionAnswering: ComponentsForQuestionAnswering,
        },
    ),
)
"""The families of models that the project's spaces build."""
for _family in OWN_FAMILIES:
    _family.register()
AutoConfig.register(PooledEncoderConfig.model_type, PooledEncoderConfig, exist_ok=True)
AutoModelForSequenceClassification.register(PooledEncoderConfig, PooledEncoderForSequenceClassification, exist_ok=True)
AutoModelForQuestionAnswering.register(PooledEncoderConfig, PooledEncoderForQuestionAnswering, exist_ok=True)


def own_family(config: Any) -> ModelFamily | None:
    """The family that a model's configuration belongs to, by its model type; ``None`` for models of others."""
    kind = getattr(config, "model_type", None)
    return next((family for family in OWN_FAMILIES if family.config_class.model_type == kind), None)


__all__ = [
    "OWN_FAMILIES",
    "ComponentsConfig",
    "ComponentsModel",
    "EfficientBertConfig",
    "EfficientBertModel",
    "EncoderForMaskedLM",
    "ModelFamily",
    "NasBertConfig",
    "NasBertForMaskedLM",
    "NasBertForQuestionAnswering",
    "NasBertForSequenceClassification",
    "NasBertForTokenClassification",
    "NasBertModel",
    "PooledEncoderConfig",
    "PooledEncoderForQuestionAnswering",
    "PooledEncoderForSequenceClassification",
    "own_family",
]
