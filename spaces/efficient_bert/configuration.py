"""The Hugging Face configuration of a stand-alone EfficientBERT model.

This file travels with exported models, next to the modelling code, so it imports nothing of the project.
"""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig


class EfficientBertConfig(PretrainedConfig):
    """Everything needed to build the model without the search space it came from.

    Args:
        architecture: the canonical text form, for people and dashboards.
        block_hidden_size: width of all blocks.
        embedding_size: width of the token table, of which three neighbours make an embedding.
        blocks: for each block the ``expression`` of its feed-forwards in nested form, such as
            ``["linear2", ["gelu", ["linear1", "x"]]]``, how many of them are ``stacked``, and their ``inner_size``.
        num_attention_heads: heads of each block.
        projection_size: width of the model's output, by a linear map behind the blocks; None for no map, so that the
            output is as wide as the blocks.
        width_rule: what becomes of operands of two widths: ``crop`` or ``pad``.
        vocab_size: rows of the token table.
        max_position_embeddings: rows of the position embedding.
        type_vocab_size: rows of the segment embedding; 0 for none.
        hidden_dropout_prob: dropout probability in training mode.
        layer_norm_eps: epsilon of the LayerNorms.
        pad_token_id: token id of padding.
        **kwargs: what every Hugging Face configuration has.
    """

    model_type = "netsuke-efficient-bert"

    def __init__(
        self,
        architecture: str = "48|1_1:linear2(gelu(linear1(x)))",
        block_hidden_size: int = 48,
        embedding_size: int = 128,
        blocks: list[dict[str, Any]] | None = None,
        num_attention_heads: int = 12,
        projection_size: int | None = None,
        width_rule: str = "crop",
        vocab_size: int = 30522,
        max_position_embeddings: int = 512,
        type_vocab_size: int = 2,
        hidden_dropout_prob: float = 0.1,
        layer_norm_eps: float = 1e-5,
        pad_token_id: int | None = 0,
        **kwargs: Any,
    ) -> None:
        plain: dict[str, Any] = {
            "expression": ["linear2", ["gelu", ["linear1", "x"]]],
            "stacked": 1,
            "inner_size": block_hidden_size,
        }
        self.architecture = architecture
        self.block_hidden_size = block_hidden_size
        self.embedding_size = embedding_size
        self.blocks = [plain] if blocks is None else blocks
        self.num_attention_heads = num_attention_heads
        self.projection_size = projection_size
        self.hidden_size = block_hidden_size if projection_size is None else projection_size
        self.num_hidden_layers = len(self.blocks)
        self.width_rule = width_rule
        self.vocab_size = vocab_size
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.hidden_dropout_prob = hidden_dropout_prob
        self.layer_norm_eps = layer_norm_eps
        self.pad_token_id = pad_token_id
        super().__init__(**kwargs)
