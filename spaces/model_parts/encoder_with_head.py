"""An encoder with room for a head, as an ordinary Hugging Face model.

This file travels with exported models, so it imports nothing of the project.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn
from transformers import PreTrainedModel


class EncoderWithHead(PreTrainedModel):
    """The encoder of a family, with room for a head, which subclasses add.

    A family's classes set ``config_class`` and ``encoder_class``. The encoder starts itself; every linear map of the
    head starts as N(0, 0.02) without bias.

    Args:
        config: of the encoder.
    """

    encoder_class: ClassVar[Any]
    base_model_prefix = "encoder"
    main_input_name = "input_ids"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.encoder = self.encoder_class(config)

    def get_input_embeddings(self) -> nn.Module:
        """The token embedding table."""
        table: nn.Module = self.encoder.get_input_embeddings()
        return table

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding table."""
        self.encoder.set_input_embeddings(value)

    def init_weights(self) -> None:
        """Start the head of a new model; the encoder has started itself. Not called for loaded models."""
        for name, part in self.named_children():
            if name != "encoder":
                part.apply(self._init_weights)

    def _init_weights(self, module: nn.Module) -> None:
        """Hugging Face's hook for weights that a checkpoint lacks, such as the head of a plain encoder's."""
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
