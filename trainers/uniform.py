"""The baseline every winner is compared with: a uniform BERT of equal size, cut out of the same teacher.

Shape legend: N calibration tokens, I inner size of the feed-forward, D hidden size.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import BertModel

from spaces.encoder_shape import EncoderShape
from spaces.extraction import TeacherImportance, leading, neuron_importance, uniform_layers
from trainers.errors import TrainingInputError

UniformShape = Literal["layers", "feed_forward"]


@dataclass(frozen=True)
class UniformArchitecture:
    """A BERT of the teacher's width, whose layers are all alike.

    Attributes:
        num_layers: layers kept.
        intermediate_size: inner width of every feed-forward.
    """

    num_layers: int
    intermediate_size: int

    def __str__(self) -> str:
        return f"BERT L{self.num_layers} I{self.intermediate_size}"

    def shape(self, teacher: EncoderShape) -> EncoderShape:
        """The shape of this BERT, cut out of ``teacher``."""
        return EncoderShape(
            **{**vars(teacher), "num_layers": self.num_layers, "intermediate_size": self.intermediate_size}
        )


def uniform_of_size(teacher: EncoderShape, encoder_parameters: int, how: UniformShape) -> UniformArchitecture:
    """The uniform BERT whose encoder comes closest to a number of parameters from above or below.

    Args:
        teacher: to cut from.
        encoder_parameters: weights behind the embeddings to match.
        how: ``layers`` keeps the fewest layers that reach the size with a feed-forward no wider than the teacher's;
            ``feed_forward`` keeps all layers that fit and narrows the feed-forward.

    Raises:
        TrainingInputError: not even one layer with one neuron is that small.
    """

    def fitting(num_layers: int) -> int:
        base = EncoderShape(**{**vars(teacher), "num_layers": num_layers, "intermediate_size": 0}).encoder_parameters
        return round((encoder_parameters - base) / (num_layers * (2 * teacher.hidden_size + 1)))

    counts = range(1, teacher.num_layers + 1)
    for num_layers in counts if how == "layers" else reversed(counts):
        inner = fitting(num_layers)
        if 1 <= inner <= teacher.intermediate_size:
            return UniformArchitecture(num_layers, inner)
    if encoder_parameters >= teacher.encoder_parameters:
        return UniformArchitecture(teacher.num_layers, teacher.intermediate_size)
    raise TrainingInputError(
        f"budgets: no uniform BERT of width {teacher.hidden_size} has only {encoder_parameters} encoder parameters; "
        f"set distillation.uniform_baseline: false or raise the budget"
    )


def extract_uniform(
    teacher: BertModel,
    architecture: UniformArchitecture,
    input_ids_BT: Tensor,
    attention_mask_BT: Tensor,
    importance: TeacherImportance | None = None,
) -> BertModel:
    """Cut a uniform BERT out of the teacher: layers evenly spaced, neurons by importance, lost means in the bias.

    Args:
        teacher: in evaluation mode.
        architecture: no larger than the teacher.
        input_ids_BT: calibration text, int64.
        attention_mask_BT: 1 for valid tokens.
        importance: which neurons are kept; ``None``: those that add most variance to the residual stream.
    """
    kept_layers = uniform_layers(len(_layers(teacher)), architecture.num_layers)
    activations = _activations(teacher, input_ids_BT, attention_mask_BT)
    student = copy.deepcopy(teacher)
    student.encoder.layer = nn.ModuleList([_layers(student)[index] for index in kept_layers])
    student.config.num_hidden_layers = architecture.num_layers
    student.config.intermediate_size = architecture.intermediate_size
    with torch.no_grad():
        for layer, index in zip(_layers(student), kept_layers, strict=True):
            scores_I = None if importance is None else importance.neurons[index]
            _narrow(layer, activations[index], architecture.intermediate_size, scores_I)
    return student


def _layers(model: BertModel) -> Any:
    return model.encoder.layer


@torch.no_grad()
def _activations(teacher: BertModel, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> list[Tensor]:
    captured: list[Tensor] = []
    mask_BT = attention_mask_BT.to(torch.bool)
    handles = [
        layer.intermediate.register_forward_hook(lambda _, __, output: captured.append(output[mask_BT]))
        for layer in _layers(teacher)
    ]
    teacher(input_ids=input_ids_BT, attention_mask=attention_mask_BT)
    for handle in handles:
        handle.remove()
    return captured


def _narrow(layer: Any, activations_NI: Tensor, inner_size: int, scores_I: Tensor | None) -> None:
    inner, output = layer.intermediate.dense, layer.output.dense
    if scores_I is None:
        scores_I = neuron_importance(activations_NI, output.weight)
    kept = leading(scores_I, inner_size)
    dropped = torch.ones(inner.out_features, dtype=torch.bool)
    dropped[kept] = False
    lost_D = output.weight[:, dropped] @ activations_NI.mean(0)[dropped]
    narrow_inner = nn.Linear(inner.in_features, inner_size)
    narrow_inner.weight.copy_(inner.weight[kept])
    narrow_inner.bias.copy_(inner.bias[kept])
    narrow_output = nn.Linear(inner_size, output.out_features)
    narrow_output.weight.copy_(output.weight[:, kept])
    narrow_output.bias.copy_(output.bias + lost_D)
    layer.intermediate.dense, layer.output.dense = narrow_inner, narrow_output
