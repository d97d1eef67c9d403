"""The stand-alone NAS-BERT encoder as an ordinary Hugging Face model.

Shape legend: B batch, T tokens, D output width.

This file and the modules it imports from its own folder travel with exported models, so that they load with
``trust_remote_code`` where netsuke is not installed (transformers refuses to load a file that imports an absent
package, be it inside a function); where it is, ``import spaces.huggingface`` registers the class.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from spaces.model_parts.embeddings import SummedEmbeddings

from .configuration import NasBertConfig
from .operations import build_operation, initialise_like_the_paper


class NasBertPreTrainedModel(PreTrainedModel):
    """What Hugging Face is told of the encoder, with a head and without."""

    config_class = NasBertConfig
    base_model_prefix = "encoder"
    main_input_name = "input_ids"
    _no_split_modules = ["SelfAttention", "FeedForward", "SeparableConvolution"]  # noqa: RUF012 - as in the base class

    def _init_weights(self, module: nn.Module) -> None:
        """Hugging Face's hook for weights that a checkpoint lacks: as the paper starts them, module by module."""
        initialise_like_the_paper(module)


class NasBertModel(NasBertPreTrainedModel):
    """The encoder: embeddings, blocks of layers with linear maps between widths, last hidden state.

    Args:
        config: sizes and operations.
    """

    def __init__(self, config: NasBertConfig) -> None:
        super().__init__(config)
        self.embeddings = SummedEmbeddings(
            config.embedding_size,
            config.vocab_size,
            config.max_position_embeddings,
            config.type_vocab_size,
            config.pad_token_id,
            config.hidden_dropout_prob,
            config.layer_norm_eps,
        )
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                build_operation(
                    operation,
                    hidden_size,
                    head_size=config.head_size,
                    separable_units=config.separable_units,
                    dropout=config.hidden_dropout_prob,
                    layer_norm_eps=config.layer_norm_eps,
                )
                for operation in operations
            )
            for hidden_size, operations in zip(config.block_hidden_sizes, config.block_operations, strict=True)
        )
        self.projections = nn.ModuleList(
            nn.Identity() if widths is None else nn.Linear(widths[0], widths[1]) for widths in config.projections
        )
        self.post_init()

    def init_weights(self) -> None:
        """Start every weight as the paper does; called for new models, not for loaded ones."""
        initialise_like_the_paper(self)

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
            output_hidden_states: also return the state before the first block and after every block.
            return_dict: False for a plain tuple.

        Returns:
            ``last_hidden_state`` of shape ``[B, T, D]`` and, on request, ``hidden_states``.
        """
        mask_BT = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        visible_BT = mask_BT.to(torch.bool)
        hidden = self.embeddings(input_ids, token_type_ids)
        states = [hidden]
        for projection, block in zip(self.projections, self.blocks, strict=False):
            hidden = projection(hidden)
            for operation in block:  # type: ignore[attr-defined]
                hidden = operation(hidden, visible_BT)
            states.append(hidden)
        hidden = self.projections[-1](hidden)
        states[-1] = hidden
        shown = tuple(states) if output_hidden_states else None
        if return_dict is False:
            return (hidden,) if shown is None else (hidden, shown)
        return BaseModelOutput(last_hidden_state=hidden, hidden_states=shown)
