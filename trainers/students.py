"""Loading stand-alone students from their folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModel, PreTrainedModel

from spaces import huggingface as _registered_models  # noqa: F401 - AutoModel has to know the project's models
from trainers.teacher import quieten_transformers


def load_student(folder: Path) -> PreTrainedModel:
    """Load a student as an encoder, in evaluation mode; a BERT comes without the pooler that no student has trained."""
    quieten_transformers()
    options: dict[str, Any] = {}
    if AutoConfig.from_pretrained(folder).model_type == "bert":
        options["add_pooling_layer"] = False
    model: PreTrainedModel = AutoModel.from_pretrained(folder, **options)
    model.eval()
    return model
