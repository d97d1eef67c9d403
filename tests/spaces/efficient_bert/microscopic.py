"""EfficientBERT models and supernets so small that a test takes milliseconds."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from spaces.efficient_bert.architecture import EfficientBertArchitecture
from spaces.efficient_bert.configuration import EfficientBertConfig
from spaces.efficient_bert.modeling import EfficientBertModel
from spaces.efficient_bert.options import EfficientBertOptions
from spaces.efficient_bert.space import EfficientBertSpace
from spaces.efficient_bert.supernet import EfficientBertSupernet
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


def make_options(**changes: Any) -> EfficientBertOptions:
    values = {"hidden_size": HIDDEN_SIZE, "layers": 2, "heads": 4, "embedding_size": 8, "shape": SHAPE}
    return EfficientBertOptions(**{**values, **changes})


def make_supernet(**changes: Any) -> EfficientBertSupernet:
    """A supernet of which every weight matters, in evaluation mode."""
    torch.manual_seed(0)
    supernet: EfficientBertSupernet = shaken(EfficientBertSupernet(make_options(**changes)))
    return supernet.eval()


def architecture(text: str) -> EfficientBertArchitecture:
    return EfficientBertArchitecture.parse(text)


@cache
def make_space(**changes: Any) -> EfficientBertSpace:
    return EfficientBertSpace(make_options(**changes))
