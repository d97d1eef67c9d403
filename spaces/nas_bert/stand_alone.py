"""From an architecture to the configuration of its stand-alone model; unlike the model's code, this stays at home."""

from __future__ import annotations

from spaces.nas_bert.architecture import NasBertArchitecture
from spaces.nas_bert.configuration import NasBertConfig
from spaces.nas_bert.cost import projection_widths
from spaces.nas_bert.options import NasBertOptions


def configuration_of(architecture: NasBertArchitecture, options: NasBertOptions) -> NasBertConfig:
    """The configuration of an architecture's stand-alone model under the options of its space."""
    projections = projection_widths(architecture, options)
    last = projections[-1]
    shape = options.shape
    return NasBertConfig(
        architecture=str(architecture),
        embedding_size=architecture.embedding_size,
        block_hidden_sizes=[block.hidden_size for block in architecture.blocks],
        block_operations=[list(block.operations) for block in architecture.blocks],
        projections=[None if widths is None else list(widths) for widths in projections],
        hidden_size=architecture.blocks[-1].hidden_size if last is None else last[1],
        head_size=options.head_size,
        separable_units=options.separable_units,
        vocab_size=shape.vocab_size,
        max_position_embeddings=shape.max_positions,
        type_vocab_size=options.type_vocab_size,
        hidden_dropout_prob=options.dropout,
        layer_norm_eps=shape.layer_norm_eps,
        pad_token_id=shape.pad_token_id,
    )
