"""From an architecture to its stand-alone model's blocks; unlike the model's code, this stays at home.

Components beside each other fold into one dense block, those behind others become blocks of their own. The bias of a
sublayer's last map stands in its first block, its LayerNorm behind its last one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from spaces.components.architecture import ComponentsArchitecture
from spaces.components.configuration import ComponentsConfig
from spaces.components.options import ComponentsOptions
from spaces.components.sublayers import SublayerChoice
from spaces.components.text import parse_architecture
from spaces.encoder_shape import EncoderShape


@dataclass(frozen=True)
class Block:
    """One stage of one sublayer, which becomes one block.

    Attributes:
        sublayer: its number from 0: twice the layer's, and one more for a feed-forward.
        components: of the stage.
        choice: of the sublayer.
        is_first: whether it is the sublayer's first stage.
        is_last: whether it is the last one.
    """

    sublayer: int
    components: tuple[int, ...]
    choice: SublayerChoice
    is_first: bool
    is_last: bool


def blocks_of(architecture: ComponentsArchitecture) -> Iterator[Block]:
    """The blocks of an architecture, from the first to the last."""
    for sublayer, choice in enumerate(architecture.sublayers):
        last = len(choice.stages) - 1
        for number, components in enumerate(choice.stages):
            yield Block(sublayer, components, choice, number == 0, number == last)


def aligned_states(architecture: ComponentsArchitecture, teacher_layers: int) -> list[tuple[int, int]]:
    """The state behind each layer of the stand-alone model, and the teacher's layer it stands for.

    Where layers have vanished, the state before the next one that is left is to be like the teacher's there. Where the
    teacher has another number of layers than the supermodel, the layers of that stand for teacher's layers at even
    distances, and those before its first one for none.
    """
    layers = len(architecture.layers)
    blocks = [block.sublayer // 2 for block in blocks_of(architecture)]
    ends = {sum(block < layer for block in blocks): layer for layer in range(1, layers)}
    scaled = {state: layer * teacher_layers // layers for state, layer in ends.items()}
    return [(state, layer) for state, layer in scaled.items() if 0 < state < len(blocks) and layer > 0]


def configuration_of(architecture: ComponentsArchitecture, options: ComponentsOptions) -> ComponentsConfig:
    """The configuration of an architecture's stand-alone model under the options of its space."""
    shape = options.shape
    return ComponentsConfig(
        architecture=str(architecture),
        hidden_size=shape.hidden_size,
        head_size=shape.head_size,
        blocks=[_described(block, options) for block in blocks_of(architecture)],
        hidden_act=shape.activation,
        vocab_size=shape.vocab_size,
        max_position_embeddings=shape.max_positions,
        type_vocab_size=shape.type_vocab_size,
        hidden_dropout_prob=options.dropout,
        layer_norm_eps=shape.layer_norm_eps,
        intermediate_size=shape.intermediate_size,
        pad_token_id=shape.pad_token_id,
    )


def supermodel_shape(config: ComponentsConfig, intermediate_size: int) -> EncoderShape:
    """The shape of the supermodel that a stand-alone model was cut out of, for a space to have the same components.

    Args:
        config: of the model.
        intermediate_size: what counts where the configuration does not know it.
    """
    return EncoderShape(
        num_layers=len(parse_architecture(config.architecture).layers),
        hidden_size=config.hidden_size,
        num_heads=config.hidden_size // config.head_size,
        intermediate_size=config.intermediate_size or intermediate_size,
        vocab_size=config.vocab_size,
        max_positions=config.max_position_embeddings,
        type_vocab_size=config.type_vocab_size,
        pad_token_id=config.pad_token_id or 0,
        layer_norm_eps=config.layer_norm_eps,
        activation=config.hidden_act,
    )


def _described(block: Block, options: ComponentsOptions) -> dict[str, Any]:
    norm = ("mean" if block.choice.mean else "no_mean") if block.is_last else None
    count = len(block.components)
    if block.sublayer % 2:
        return {"inner_size": count * options.slice_size, "bias": block.is_first, "norm": norm}
    key_size = len(block.choice.query_key) * options.query_key_size
    return {"heads": count, "key_size": key_size, "bias": block.is_first, "norm": norm}
