"""Teachers, spaces and inputs so small that a test takes milliseconds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from spaces.encoder_shape import EncoderShape
from spaces.nas_bert.architecture import BlockArchitecture, NasBertArchitecture
from spaces.nas_bert.options import NasBertOptions
from spaces.nas_bert.space import NasBertSpace

SHAPE = EncoderShape(
    num_layers=4, hidden_size=32, num_heads=4, intermediate_size=128, vocab_size=99, max_positions=24, type_vocab_size=2
)
OPTIONS: dict[str, Any] = {
    "num_blocks": 2,
    "layers_per_block": 4,
    "hidden_sizes": (16, 24, 32),
    "head_size": 8,
    "operations": ("M", "F", "F1", "S3", "S5"),
    "embedding_sizes": (16, 32, 48),
    "type_vocab_size": 2,
    "projections": "supernet",
}


def make_space(**changes: Any) -> NasBertSpace:
    return NasBertSpace(NasBertOptions(**{**OPTIONS, "shape": SHAPE, **changes}))


def make_bert(shape: EncoderShape = SHAPE, seed: int = 1, **changes: Any) -> BertModel:
    """A random BERT whose every weight matters, in evaluation mode."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        intermediate_size=shape.intermediate_size,
        max_position_embeddings=shape.max_positions,
        type_vocab_size=shape.type_vocab_size,
        **changes,
    )
    return shaken(BertModel(config, add_pooling_layer=False).eval(), seed)


def shaken(module: Any, seed: int = 1) -> Any:
    """Add noise to every weight, so that no bias is zero and no LayerNorm is plain."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=generator))
    return module


def make_batch(lengths: tuple[int, ...] = (12, 7, 3), tokens: int = 12, seed: int = 2) -> tuple[Tensor, Tensor]:
    """Random ids with padded tails, and their mask (int64)."""
    generator = torch.Generator().manual_seed(seed)
    mask_BT = (torch.arange(tokens)[None, :] < torch.tensor(lengths)[:, None]).long()
    input_ids_BT = torch.randint(5, 99, mask_BT.shape, generator=generator) * mask_BT
    return input_ids_BT, mask_BT


def architecture(text: str) -> NasBertArchitecture:
    return NasBertArchitecture.parse(text)


def block(text: str) -> BlockArchitecture:
    return BlockArchitecture.parse(text)


def parameters_of(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def largest_difference(first: Tensor, second: Tensor, mask_BT: Tensor | None = None) -> float:
    """Over valid positions, if a mask is given."""
    difference = (first - second).abs()
    return float((difference if mask_BT is None else difference[mask_BT.bool()]).max())
