"""The stand-alone encoder of components as an ordinary Hugging Face model: a plain stack of blocks of varying width.

Shape legend: B batch, T tokens, D hidden size.

This file and the modules it imports travel with exported models, so that they load with ``trust_remote_code`` where
netsuke is not installed; where it is, ``import spaces.huggingface`` registers the class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from spaces.model_parts.embeddings import SummedEmbeddings
from spaces.model_parts.encoder import Encoder

from .blocks import AttentionBlock, FeedForwardBlock, ResidualBlock
from .configuration import ComponentsConfig


def build_block(block: Mapping[str, Any], config: ComponentsConfig) -> ResidualBlock:
    """Make one of the blocks that a configuration describes."""
    sizes = {**block, "dropout": config.hidden_dropout_prob, "layer_norm_eps": config.layer_norm_eps}
    if "heads" in block:
        return AttentionBlock(config.hidden_size, head_size=config.head_size, **sizes)
    return FeedForwardBlock(config.hidden_size, activation=config.hidden_act, **sizes)


class ComponentsModel(Encoder):
    """The encoder: BERT's embeddings, and blocks of attention and feed-forward in any order and of any size.

    Args:
        config: sizes.
    """

    config_class = ComponentsConfig
    _no_split_modules = ["AttentionBlock", "FeedForwardBlock"]  # noqa: RUF012 - as in the base class

    def __init__(self, config: ComponentsConfig) -> None:
        super().__init__(config)
        self.embeddings = SummedEmbeddings.of_config(config)
        self.blocks = nn.ModuleList(build_block(block, config) for block in config.blocks)
        self.post_init()

    def _states(self, input_ids: Tensor, mask_BT: Tensor, token_type_ids: Tensor | None) -> Iterator[Tensor]:
        hidden_BTD = self.embeddings(input_ids, token_type_ids)
        yield hidden_BTD
        for block in self.blocks:
            hidden_BTD = block(hidden_BTD, mask_BT)
            yield hidden_BTD
