"""A microscopic space for layer-wise distillation: BERTs of two layers whose feed-forwards are cropped."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from spaces.architecture import Architecture
from spaces.decision_space import DecisionSpace
from spaces.encoder_shape import EncoderShape
from spaces.layer_states import LayerStates, LayerwiseSupernet
from spaces.space import Cost, Decision, FlopsRule
from trainers.layer_recording import run_layers

LARGEST = 32


@dataclass(frozen=True)
class CroppedBert(Architecture):
    """Two layers whose feed-forwards have ``inner`` neurons, written ``I16``."""

    inner: int

    def __str__(self) -> str:
        return f"I{self.inner}"


class CroppedBertSpace(DecisionSpace[CroppedBert]):
    name = "cropped_bert"

    def __init__(self, shape: EncoderShape, heads: int, layers: int, inner: Sequence[int], dropout: float) -> None:
        self.shape: EncoderShape = shape
        self.heads, self.layers, self.inner, self.dropout = heads, layers, tuple(inner), dropout

    @classmethod
    def from_options(cls, options: Mapping[str, Any], shape: EncoderShape | None = None) -> CroppedBertSpace:
        chosen = {"heads": 4, "layers": 2, "inner": (8, 16, LARGEST), "dropout": 0.0, **options}
        return cls(shape or EncoderShape(), **chosen)

    def owns(self, architecture: Architecture) -> bool:
        return isinstance(architecture, CroppedBert)

    def decisions(self) -> Sequence[Decision]:
        return [Decision("inner", tuple(map(str, self.inner)))]

    def from_decisions(self, chosen: Mapping[str, str]) -> CroppedBert:
        return CroppedBert(int(chosen["inner"]))

    def to_decisions(self, architecture: CroppedBert) -> dict[str, str]:
        return {"inner": str(architecture.inner)}

    def parse(self, text: str) -> CroppedBert:
        found = re.fullmatch(r"I(\d+)", text)
        assert found is not None
        return self.require(CroppedBert(int(found[1])))

    def smallest(self) -> CroppedBert:
        return CroppedBert(min(self.inner))

    def cost(self, architecture: CroppedBert, sequence_length: int = 128, flops_rule: FlopsRule = "encoder") -> Cost:
        parameters = sum(parameter.numel() for parameter in self.build(architecture).parameters())
        return Cost(parameters, parameters, parameters)

    def build(self, architecture: CroppedBert) -> BertModel:
        shape = self.shape
        config = BertConfig(
            vocab_size=shape.vocab_size,
            hidden_size=shape.hidden_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            intermediate_size=architecture.inner,
            max_position_embeddings=shape.max_positions,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
        )
        return BertModel(config, add_pooling_layer=False)

    def supernet(self) -> CroppedBertSupernet:
        return CroppedBertSupernet(self)


class CroppedBertSupernet(LayerwiseSupernet[CroppedBert]):
    def __init__(self, space: CroppedBertSpace) -> None:
        super().__init__()
        self._space = space
        self.model = space.build(self.largest())

    def largest(self) -> CroppedBert:
        return CroppedBert(LARGEST)

    def forward(self, architecture: CroppedBert, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> Tensor:
        return self.layer_states(architecture, input_ids_BT, attention_mask_BT).hidden_BTD[-1]

    def layer_states(self, architecture: CroppedBert, input_ids_BT: Tensor, attention_mask_BT: Tensor) -> LayerStates:
        """The largest one's, with the neurons behind the first few silenced."""
        handles = [
            layer.intermediate.register_forward_hook(_silencing(architecture.inner))
            for layer in self.model.encoder.layer
        ]
        try:
            return run_layers(self.model, input_ids_BT, attention_mask_BT)
        finally:
            for handle in handles:
                handle.remove()

    def extract(self, architecture: CroppedBert) -> nn.Module:
        """A fresh model, for the buffers of one that was made without memory are nowhere; the leading weights go in."""
        model = self._space.build(architecture)
        ours = self.model.state_dict()
        cropped = {name: ours[name][tuple(map(slice, weight.shape))] for name, weight in model.state_dict().items()}
        model.load_state_dict(cropped)
        return model.train(self.training)


def _silencing(inner: int) -> Any:
    return lambda _, __, output: torch.cat([output[..., :inner], torch.zeros_like(output[..., inner:])], dim=-1)
