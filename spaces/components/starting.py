"""What a supermodel can start at: a BERT, all of whose components it has, or a stand-alone model of components.

The latter is an already distilled student (paper notes, section 6). The space then lies within what is left of it (the
option ``within``), so that no path takes weights that the student does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spaces.components.architecture import ComponentsArchitecture
from spaces.components.configuration import ComponentsConfig
from spaces.components.options import ComponentsOptions
from spaces.components.stand_alone import Block, blocks_of, configuration_of
from spaces.components.text import parse_architecture
from spaces.errors import SpaceError


def is_stand_alone(config: Any) -> bool:
    """Whether a Hugging Face configuration is that of a stand-alone model of components."""
    return getattr(config, "model_type", None) == ComponentsConfig.model_type


def check_teacher(config: Any, options: ComponentsOptions) -> None:
    """Make sure that a BERT's configuration says what a space was made for.

    Raises:
        SpaceError: it does not.
    """
    shape = options.shape
    own = {
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "intermediate_size": shape.intermediate_size,
    }
    _check_sizes("teacher", config, {**own, **_common_sizes(options)})


def _common_sizes(options: ComponentsOptions) -> dict[str, Any]:
    """What configurations of both kinds call alike."""
    shape = options.shape
    return {
        "hidden_size": shape.hidden_size,
        "hidden_act": shape.activation,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.max_positions,
        "type_vocab_size": shape.type_vocab_size,
        "layer_norm_eps": shape.layer_norm_eps,
    }


def _check_sizes(subject: str, config: Any, expected: Mapping[str, Any]) -> None:
    for name, value in expected.items():
        found = getattr(config, name, None)
        if found != value:
            raise SpaceError(
                f"{subject}: its {name} is {found}, expected {value}, for which the space was made; make the space for "
                f"this {subject}'s shape"
            )


def student_architecture(config: ComponentsConfig, options: ComponentsOptions) -> ComponentsArchitecture:
    """The architecture of a stand-alone model that a space lies within.

    Args:
        config: of the model.
        options: of the space.

    Raises:
        SpaceError: the model has other sizes than the space was made for, or keeps other components than the space
            lies within; one line.
    """
    _check_sizes("student", config, {"head_size": options.shape.head_size, **_common_sizes(options)})
    architecture = parse_architecture(config.architecture)
    own = configuration_of(architecture, options)
    for block, theirs, ours in zip(blocks_of(architecture), config.blocks, own.blocks, strict=True):
        _check_slices(block, theirs, ours, options)
    if architecture != options.limit:
        found = "nothing, so that all components may be kept" if options.within is None else f"'{options.within}'"
        raise SpaceError(
            f"space.options.within: found {found}, expected '{architecture}', which is what is left of the student; "
            f"set it to that"
        )
    return architecture


def _check_slices(block: Block, theirs: Mapping[str, Any], ours: Mapping[str, Any], options: ComponentsOptions) -> None:
    """Make sure that a student's slices have the sizes of the space's."""
    rows = (
        ("feed_forward_slices", "inner_size", len(block.components), options.shape.intermediate_size, "neurons"),
        ("query_key_slices", "key_size", len(block.choice.query_key), options.shape.head_size, "channels"),
    )
    for key, name, slices, whole, unit in rows:
        if theirs.get(name) != ours.get(name):
            mine, size = ours[name] // slices, theirs[name] // slices
            raise SpaceError(
                f"space.options.{key}: found {getattr(options, key)}, slices of {mine} {unit}, but those of the "
                f"student have {size}; expected {whole // size}"
            )
