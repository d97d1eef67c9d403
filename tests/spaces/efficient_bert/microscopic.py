"""EfficientBERT models and supernets so small that a test takes milliseconds."""

from __future__ import annotations

from typing import Any

import torch

from spaces.efficient_bert.configuration import EfficientBertConfig
from spaces.efficient_bert.modeling import EfficientBertModel
from tests.spaces.microscopic import SHAPE, shaken

PLAIN = ["linear2", ["gelu", ["linear1", "x"]]]
CROPPING = ["linear2", ["relu", ["mul", ["linear1", "x"], "x"]]]
HIDDEN_SIZE = 24
CONFIGURATION: dict[str, Any] = {
    "architecture": "24|2_2:tanh(linear2(gelu(linear1(x))))|1_1:linear2(relu(mul(linear1(x),x)))",
    "block_hidden_size": HIDDEN_SIZE,
    "embedding_size": 8,
    "blocks": [
        {"expression": ["tanh", PLAIN], "stacked": 2, "inner_size": 12},
        {"expression": CROPPING, "stacked": 1, "inner_size": 8},
    ],
    "num_attention_heads": 4,
    "projection_size": SHAPE.hidden_size,
    "vocab_size": SHAPE.vocab_size,
    "max_position_embeddings": SHAPE.max_positions,
    "type_vocab_size": SHAPE.type_vocab_size,
}


def make_model(**changes: Any) -> EfficientBertModel:
    """A model of which every weight matters, in evaluation mode."""
    torch.manual_seed(0)
    model: EfficientBertModel = shaken(EfficientBertModel(EfficientBertConfig(**{**CONFIGURATION, **changes})))
    return model.eval()
