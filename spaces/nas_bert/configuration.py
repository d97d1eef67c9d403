"""The Hugging Face configuration of a stand-alone NAS-BERT model.

This file travels with exported models, next to the modelling code, so it imports nothing of the project.
"""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


class NasBertConfig(PretrainedConfig):
    """Everything needed to build the model without the search space it came from.

    Args:
        architecture: the canonical text form, for people and dashboards.
        embedding_size: width of the embeddings.
        block_hidden_sizes: width of each block.
        block_operations: operation names of each block, in order.
        projections: widths [input, output] of the linear maps before each block and after the last; None for no map.
        hidden_size: width of the model's output.
        head_size: width of an attention head.
        separable_units: stacked units of a separable convolution.
        vocab_size: rows of the token embedding.
        max_position_embeddings: rows of the position embedding.
        type_vocab_size: rows of the segment embedding; 0 for none.
        hidden_dropout_prob: dropout probability in training mode.
        layer_norm_eps: epsilon of the LayerNorms.
        pad_token_id: token id of padding.
        **kwargs: what every Hugging Face configuration has.
    """

    model_type = "netsuke-nas-bert"

    def __init__(
        self,
        architecture: str = "E64|64:M-F",
        embedding_size: int = 64,
        block_hidden_sizes: list[int] | None = None,
        block_operations: list[list[str]] | None = None,
        projections: list[list[int] | None] | None = None,
        hidden_size: int = 64,
        head_size: int = 64,
        separable_units: int = 2,
        vocab_size: int = 30522,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 0,
        hidden_dropout_prob: float = 0.1,
        layer_norm_eps: float = 1e-12,
        pad_token_id: int | None = 0,
        **kwargs: Any,
    ) -> None:
        self.architecture = architecture
        self.embedding_size = embedding_size
        self.block_hidden_sizes = [64] if block_hidden_sizes is None else block_hidden_sizes
        self.block_operations = [["M", "F"]] if block_operations is None else block_operations
        self.projections = [None] * (len(self.block_hidden_sizes) + 1) if projections is None else projections
        self.hidden_size = hidden_size
        self.head_size = head_size
        self.separable_units = separable_units
        self.vocab_size = vocab_size
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.hidden_dropout_prob = hidden_dropout_prob
        self.layer_norm_eps = layer_norm_eps
        self.num_hidden_layers = sum(map(len, self.block_operations))
        self.pad_token_id = pad_token_id
        super().__init__(**kwargs)
