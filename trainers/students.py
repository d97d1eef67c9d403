"""Stand-alone students: loading them from their folders, with or without a masked-LM head, and giving them one.

Shape legend: N positions, D width of a student's state, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    BertForMaskedLM,
    BertModel,
    PreTrainedConfig,
    PreTrainedModel,
)

from spaces.huggingface import EncoderForMaskedLM, own_family
from trainers.errors import TrainingInputError
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


def has_masked_lm_head(folder: Path) -> bool:
    """Whether a student was saved with a masked-LM head, by its configuration."""
    architectures = AutoConfig.from_pretrained(folder).architectures or []
    return any(name.endswith("ForMaskedLM") for name in architectures)


def load_whole_student(folder: Path) -> PreTrainedModel:
    """Load a student as it was saved, in evaluation mode: with its masked-LM head if it has one."""
    if not has_masked_lm_head(folder):
        return load_student(folder)
    quieten_transformers()
    model: PreTrainedModel = AutoModelForMaskedLM.from_pretrained(folder)
    model.eval()
    return model


def encoder_of(model: nn.Module) -> PreTrainedModel:
    """The encoder of a student: the model itself, or what is below its masked-LM head."""
    encoder: Any = model
    encoder = encoder.base_model  # a model without a head is its own base
    assert isinstance(encoder, PreTrainedModel)
    return encoder


def ties_embeddings(model: PreTrainedModel) -> bool | None:
    """Whether a model predicts tokens by the table that it looks them up in; ``None`` if it predicts none.

    Args:
        model: as :func:`load_whole_student` gives it.
    """
    if isinstance(model, EncoderForMaskedLM):
        return True  # its head has no table of its own
    output: Any = model.get_output_embeddings()
    given: Any = model.get_input_embeddings()
    return None if output is None else output.weight is given.weight


def predict_tokens(model: nn.Module, hidden_ND: Tensor) -> Tensor:
    """Logits of a student's masked-LM head, ``[N, V]``, from its own last states at any positions.

    Raises:
        TrainingInputError: the student has no such head.
    """
    if isinstance(model, EncoderForMaskedLM):
        return model.predict(hidden_ND)
    if isinstance(model, BertForMaskedLM):
        logits: Tensor = model.cls(hidden_ND)
        return logits
    raise TrainingInputError(
        f"distillation.objective: found masked_lm, but a student of type {type(model).__name__} has no masked-LM head; "
        f"use hidden_states"
    )


def with_masked_lm_head(encoder: PreTrainedModel, teachers_head: nn.Module | None = None) -> PreTrainedModel:
    """Put a masked-LM head on a student's encoder.

    Args:
        encoder: of a family of the project's own, or a BERT without a pooler; taken over, not copied.
        teachers_head: where the new head starts, as far as its sizes are the same (the bias always is); ``None`` for
            a random start.

    Raises:
        TrainingInputError: there is no head for such an encoder.
    """
    family = own_family(encoder.config)
    if family is not None:
        model = family.masked_lm_class.of_encoder(encoder)
        if teachers_head is not None:
            _start_own_head(model, teachers_head)
        return model
    if isinstance(encoder, BertModel):
        config: Any = encoder.config
        masked_lm = BertForMaskedLM(config)
        masked_lm.bert = encoder
        if teachers_head is not None:
            masked_lm.cls = copy.deepcopy(teachers_head)  # type: ignore[assignment]
        masked_lm.tie_weights()
        return masked_lm
    raise TrainingInputError(
        f"distillation.objective: found masked_lm, but no masked-LM head fits an encoder of type "
        f"{type(encoder).__name__}; use hidden_states"
    )


def fresh_bert(config: PreTrainedConfig, seed: int) -> BertModel:
    """A BERT encoder at random weights, without a pooler."""
    torch.manual_seed(seed)
    return BertModel(config, add_pooling_layer=False)  # type: ignore[arg-type]


@torch.no_grad()
def _start_own_head(model: EncoderForMaskedLM, teachers_head: nn.Module) -> None:
    source: Any = teachers_head
    predictions, head = source.predictions, model.head
    head.bias.copy_(predictions.bias)
    if predictions.transform.dense.weight.shape == head.transform.weight.shape:
        head.transform.load_state_dict(predictions.transform.dense.state_dict())
        head.norm.load_state_dict(predictions.transform.LayerNorm.state_dict())


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The state of a module, each tensor once: a tied one goes by the first of its names, so that it can be saved."""
    seen: set[int] = set()
    own: dict[str, Tensor] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            own[name] = tensor.detach()
    return own


def load_own_tensors(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Take over what :func:`own_tensors` gave.

    Raises:
        RuntimeError: they are another module's.
    """
    expected = own_tensors(module).keys()
    if expected != tensors.keys():
        odd = sorted(expected ^ tensors.keys())
        raise RuntimeError(f"found weights of another model: {', '.join(odd[:3])} in one of both only")
    module.load_state_dict(tensors, strict=False)  # the other names of tied tensors are not there
