"""The teacher seen from inside, and coordinates to see it in: what every start at a teacher's weights works with.

Shape legend: N calibration tokens or sequences, T tokens, D teacher's width, H hidden size of a student, A width of all
heads together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertModel

from spaces.encoder_shape import check_gelu
from spaces.model_parts.attention import SelfAttention
from spaces.model_parts.plain_feed_forward import FeedForward


@dataclass(frozen=True)
class Basis:
    """An affine change of coordinates from the teacher's width to a student's and back.

    Attributes:
        directions_DH: orthonormal columns.
        mean_D: the point that is mapped to zero.
    """

    directions_DH: Tensor
    mean_D: Tensor

    @property
    def is_identity(self) -> bool:
        """Whether the student has the teacher's own width and coordinates."""
        return self.directions_DH.shape[0] == self.directions_DH.shape[1]

    def to_block(self, states_ND: Tensor) -> Tensor:
        """Coordinates of teacher states in the student (``[..., H]``)."""
        return states_ND if self.is_identity else (states_ND - self.mean_D) @ self.directions_DH

    def reading(self) -> nn.Linear:
        """The way back to the teacher's coordinates, as a linear map."""
        width, size = self.directions_DH.shape
        linear = nn.Linear(size, width)
        with torch.no_grad():
            linear.weight.copy_(self.directions_DH)
            linear.bias.copy_(self.mean_D)
        return linear

    @classmethod
    def identity(cls, width: int) -> Basis:
        """The basis that changes nothing."""
        return cls(torch.eye(width), torch.zeros(width))

    @classmethod
    def of_states(cls, states_ND: Tensor, size: int) -> Basis:
        """The ``size`` leading principal components of states."""
        mean_D = states_ND.mean(0)
        centred_ND = (states_ND - mean_D).double()
        _, vectors_DD = torch.linalg.eigh(centred_ND.T @ centred_ND)
        return cls(vectors_DD[:, -size:].flip(1).to(states_ND.dtype), mean_D)


@dataclass(frozen=True)
class Calibration:
    """The teacher seen from inside on a few batches.

    Attributes:
        operations: attention and feed-forward of every teacher layer, in order, as this project's modules.
        states_NTD: hidden state before every operation and after the last, ``[sequences, tokens, D]`` each.
        mask_NT: bool, True for valid tokens.
    """

    operations: list[SelfAttention | FeedForward]
    states_NTD: list[Tensor]
    mask_NT: Tensor


def copy_layers(teacher: BertModel) -> list[SelfAttention | FeedForward]:
    """The teacher's sub-layers as this project's modules, weights copied: attention, feed-forward, attention, ...

    Raises:
        SpaceError: the teacher's activation is not GELU.
    """
    config = teacher.config
    check_gelu(config.hidden_act)
    width, eps = config.hidden_size, config.layer_norm_eps
    operations: list[SelfAttention | FeedForward] = []
    layers: Any = teacher.encoder.layer
    for layer in layers:
        attention = SelfAttention(width, width // config.num_attention_heads, 0.0, eps)
        attention.query.load_state_dict(layer.attention.self.query.state_dict())
        attention.key.load_state_dict(layer.attention.self.key.state_dict())
        attention.value.load_state_dict(layer.attention.self.value.state_dict())
        attention.output.load_state_dict(layer.attention.output.dense.state_dict())
        attention.norm.load_state_dict(layer.attention.output.LayerNorm.state_dict())
        feed_forward = FeedForward(width, config.intermediate_size, 0.0, eps)
        feed_forward.inner.load_state_dict(layer.intermediate.dense.state_dict())
        feed_forward.output.load_state_dict(layer.output.dense.state_dict())
        feed_forward.norm.load_state_dict(layer.output.LayerNorm.state_dict())
        operations += [attention.eval(), feed_forward.eval()]
    return operations


def calibrate(teacher: BertModel, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Calibration:
    """Run the teacher's sub-layers on calibration text and keep every hidden state."""
    mask_NT = attention_mask_BT.to(torch.bool)
    operations = copy_layers(teacher)
    with torch.no_grad():
        states_NTD = [teacher.embeddings(input_ids=input_ids_BT)]
        for operation in operations:
            states_NTD.append(operation(states_NTD[-1], mask_NT))
    return Calibration(operations, states_NTD, mask_NT)


def head_context(attention: SelfAttention, states_NTD: Tensor, mask_NT: Tensor) -> Tensor:
    """What the heads hand to the output map, ``[sequences, tokens, heads × head size]``."""
    captured: list[Tensor] = []
    handle = attention.output.register_forward_pre_hook(lambda _, inputs: captured.append(inputs[0]))
    attention.contribution(states_NTD, mask_NT)
    handle.remove()
    return captured[0]


def head_importance(attention: SelfAttention, states_NTD: Tensor, mask_NT: Tensor) -> Tensor:
    """Variance that each head adds to the residual stream, summed over its dimensions; one value a head."""
    context_NH = head_context(attention, states_NTD, mask_NT)[mask_NT]
    scores = []
    for head in range(attention.num_heads):
        columns = slice(head * attention.head_size, (head + 1) * attention.head_size)
        added_ND = context_NH[:, columns] @ attention.output.weight[:, columns].T
        scores.append(added_ND.var(0).sum())
    return torch.stack(scores)


def fit_norm(norm: nn.LayerNorm, inputs_NH: Tensor, target_NH: Tensor) -> None:
    """Least-squares weight and bias of a LayerNorm, dimension by dimension."""
    normalised_NH = nn.functional.layer_norm(inputs_NH, inputs_NH.shape[-1:], eps=norm.eps)
    mean_H, target_mean_H = normalised_NH.mean(0), target_NH.mean(0)
    centred_NH = normalised_NH - mean_H
    variance_H = centred_NH.square().mean(0).clamp_min(1e-12)
    weight_H = (centred_NH * (target_NH - target_mean_H)).mean(0) / variance_H
    norm.weight.copy_(weight_H)
    norm.bias.copy_(target_mean_H - weight_H * mean_H)
