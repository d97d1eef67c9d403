"""The stand-alone encoder of components as an ordinary Hugging Face model: a plain stack of blocks of varying width.

Shape legend: B batch, T tokens, D hidden size.

This file and the modules it imports travel with exported models, so that they load with ``trust_remote_code`` where
netsuke is not installed; where it is, ``import spaces.huggingface`` registers the class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from spaces.model_parts.embeddings import SummedEmbeddings
from spaces.model_parts.initialisation import initialise

from .blocks import AttentionBlock, FeedForwardBlock, ResidualBlock
from .configuration import ComponentsConfig


def build_block(block: Mapping[str, Any], config: ComponentsConfig) -> ResidualBlock:
    """Make one of the blocks that a configuration describes."""
    sizes = {**block, "dropout": config.hidden_dropout_prob, "layer_norm_eps": config.layer_norm_eps}
    if "heads" in block:
        return AttentionBlock(config.hidden_size, head_size=config.head_size, **sizes)
    return FeedForwardBlock(config.hidden_size, activation=config.hidden_act, **sizes)


class ComponentsPreTrainedModel(PreTrainedModel):
    """What Hugging Face is told of the encoder."""

    config_class = ComponentsConfig
    base_model_prefix = "encoder"
    main_input_name = "input_ids"
    _no_split_modules = ["AttentionBlock", "FeedForwardBlock"]  # noqa: RUF012 - as in the base class

    def _init_weights(self, module: nn.Module) -> None:
        """Hugging Face's hook for weights that a checkpoint lacks."""
        initialise(module)


class ComponentsModel(ComponentsPreTrainedModel):
    """The encoder: BERT's embeddings, and blocks of attention and feed-forward in any order and of any size.

    Args:
        config: sizes.
    """

    def __init__(self, config: ComponentsConfig) -> None:
        super().__init__(config)
        self.embeddings = SummedEmbeddings(
            config.hidden_size,
            config.vocab_size,
            config.max_position_embeddings,
            config.type_vocab_size,
            config.pad_token_id,
            config.hidden_dropout_prob,
            config.layer_norm_eps,
        )
        self.blocks = nn.ModuleList(build_block(block, config) for block in config.blocks)
        self.post_init()

    def init_weights(self) -> None:
        """Start every weight; called for new models, not for loaded ones."""
        initialise(self)

    def get_input_embeddings(self) -> nn.Module:
        """The token embedding table."""
        return self.embeddings.token

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding table."""
        self.embeddings.token = value  # type: ignore[assignment]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        output_hidden_states: bool = False,
        return_dict: bool | None = None,
        **_: Any,
    ) -> BaseModelOutput | tuple[Any, ...]:
        """Encode token ids.

        Args:
            input_ids: int64 ``[B, T]``.
            attention_mask: 1 for valid tokens, 0 for padding, ``[B, T]``; all valid by default.
            token_type_ids: segments, ``[B, T]``; 0 by default, ignored where the model has no segment embedding.
            output_hidden_states: also return the embeddings and the state after every block.
            return_dict: False for a plain tuple.

        Returns:
            ``last_hidden_state`` of shape ``[B, T, D]`` and, on request, ``hidden_states``.
        """
        mask_BT = (torch.ones_like(input_ids) if attention_mask is None else attention_mask).to(torch.bool)
        states = [self.embeddings(input_ids, token_type_ids)]
        for block in self.blocks:
            states.append(block(states[-1], mask_BT))
            if not output_hidden_states:
                del states[0]
        shown = tuple(states) if output_hidden_states else None
        if return_dict is False:
            return (states[-1],) if shown is None else (states[-1], shown)
        return BaseModelOutput(last_hidden_state=states[-1], hidden_states=shown)
