"""From an architecture to the configuration of its stand-alone model; unlike the model's code, this stays at home."""

from __future__ import annotations

from spaces.efficient_bert.architecture import EfficientBertArchitecture
from spaces.efficient_bert.configuration import EfficientBertConfig
from spaces.efficient_bert.options import EfficientBertOptions


def configuration_of(
    architecture: EfficientBertArchitecture, options: EfficientBertOptions, projection: bool | None = None
) -> EfficientBertConfig:
    """The configuration of an architecture's stand-alone model.

    Args:
        architecture: a member of the space.
        options: of the space.
        projection: whether the model maps its output to the teacher's width; ``None``: as the options say.
    """
    shape = options.shape
    has_projection = options.projection if projection is None else projection
    return EfficientBertConfig(
        architecture=str(architecture),
        block_hidden_size=options.hidden_size,
        embedding_size=options.embedding_size,
        blocks=[
            {
                "expression": block.expression.nested(),
                "stacked": block.stacked,
                "inner_size": options.inner_size(block.divisor),
            }
            for block in architecture.blocks
        ],
        num_attention_heads=options.heads,
        projection_size=shape.hidden_size if has_projection else None,
        width_rule=options.width_rule,
        vocab_size=shape.vocab_size,
        max_position_embeddings=shape.max_positions,
        type_vocab_size=shape.type_vocab_size,
        hidden_dropout_prob=options.dropout,
        layer_norm_eps=options.layer_norm_eps,
        pad_token_id=shape.pad_token_id,
    )
