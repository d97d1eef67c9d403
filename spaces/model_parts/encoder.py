"""An encoder without a head as an ordinary Hugging Face model; families of encoders derive theirs from it.

Shape legend: B batch, T tokens, D output width.

This file travels with exported models, so it imports nothing of the project but what travels along.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from .initialisation import initialise


def mask_of(input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    """True for valid tokens, ``[B, T]``; all are without a mask."""
    return torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.to(torch.bool)


class Encoder(PreTrainedModel):
    """Embeddings and blocks, and what Hugging Face is told of them.

    A family's class sets ``config_class``, makes ``embeddings`` with a table ``token``, and says its states.
    """

    base_model_prefix = "encoder"
    main_input_name = "input_ids"
    embeddings: Any

    def _states(self, input_ids: Tensor, mask_BT: Tensor, token_type_ids: Tensor | None) -> Iterator[Tensor]:
        """The embeddings' output and the state after every block; ``mask_BT`` is bool, True for valid tokens."""
        raise NotImplementedError

    def _outward(self, state: Tensor) -> Tensor:
        """A state as it leaves the model, in the output's width."""
        return state

    def _init_weights(self, module: nn.Module) -> None:
        """Hugging Face's hook for weights that a checkpoint lacks."""
        initialise(module)

    def init_weights(self) -> None:
        """Start every weight; called for new models, not for loaded ones."""
        self._init_weights(self)

    def get_input_embeddings(self) -> nn.Module:
        """The token embedding table."""
        table: nn.Module = self.embeddings.token
        return table

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding table."""
        self.embeddings.token = value

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
        shown: list[Tensor] = []
        for state in self._states(input_ids, mask_of(input_ids, attention_mask), token_type_ids):
            last = state
            if output_hidden_states:
                shown.append(self._outward(state))
        last_BTD = shown[-1] if shown else self._outward(last)
        states = tuple(shown) or None
        if return_dict is False:
            return (last_BTD,) if states is None else (last_BTD, states)
        return BaseModelOutput(last_hidden_state=last_BTD, hidden_states=states)
