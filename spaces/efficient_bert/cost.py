"""Parameters and FLOPs of EfficientBERT architectures by arithmetic alone (paper notes, sections 4.2 and 4.3).

A linear map from i to o has i·o + o weights, a LayerNorm 2 for each channel. FLOPs count a multiply-add as two, of
linear maps and attention, the embeddings' linear map included; the map to the teacher's width, which nobody needs after
distillation, counts nothing, and neither do activations, combinations and normalisation.
"""

from __future__ import annotations

from spaces.efficient_bert.architecture import EfficientBertArchitecture
from spaces.efficient_bert.options import EfficientBertOptions
from spaces.space import Cost, FlopsRule

NEIGHBOURS = 3
"""Tokens whose embeddings make the embedding of one: the next, the current and the previous one."""


def linear_parameters(inputs: int, outputs: int) -> int:
    """Weights of a linear map with bias."""
    return inputs * outputs + outputs


def norm_parameters(size: int) -> int:
    """Weights of a LayerNorm."""
    return 2 * size


def attention_parameters(hidden_size: int) -> int:
    """Weights of one block's attention, its LayerNorm included."""
    return 4 * linear_parameters(hidden_size, hidden_size) + norm_parameters(hidden_size)


def feed_forward_parameters(hidden_size: int, inner_size: int, stacked: int = 1) -> int:
    """Weights of the feed-forwards of one block, their LayerNorms included."""
    one = linear_parameters(hidden_size, inner_size) + linear_parameters(inner_size, hidden_size)
    return stacked * (one + norm_parameters(hidden_size))


def embedding_parameters(options: EfficientBertOptions) -> int:
    """Weights of the embeddings: three tables, the linear map of three neighbours, a LayerNorm."""
    hidden, shape = options.hidden_size, options.shape
    tables = shape.vocab_size * options.embedding_size + (shape.max_positions + shape.type_vocab_size) * hidden
    return tables + linear_parameters(NEIGHBOURS * options.embedding_size, hidden) + norm_parameters(hidden)


def projection_parameters(options: EfficientBertOptions) -> int:
    """Weights of the linear map to the teacher's width."""
    return linear_parameters(options.hidden_size, options.shape.hidden_size)


def block_parameters(sizes: tuple[int, int], options: EfficientBertOptions) -> int:
    """Weights of the feed-forwards that one block has by its (stacked, divisor)."""
    stacked, divisor = sizes
    return feed_forward_parameters(options.hidden_size, options.inner_size(divisor), stacked)


def fixed_parameters(options: EfficientBertOptions) -> int:
    """Weights that every network has: embeddings, attention, and the linear map to the teacher's width."""
    attention = options.layers * attention_parameters(options.hidden_size)
    return embedding_parameters(options) + attention + projection_parameters(options)


def parameter_counts(architecture: EfficientBertArchitecture, options: EfficientBertOptions) -> dict[str, int]:
    """Weights of a network by what is counted: with or without the projection, with or without a pooler.

    The *projection* is the linear map from the hidden size to the teacher's width, which the published sizes include;
    the *pooler* a linear map of the hidden size, which they leave out.
    """
    feed_forwards = sum(block_parameters(block.sizes, options) for block in architecture.blocks)
    with_projection = fixed_parameters(options) + feed_forwards
    projection = projection_parameters(options)
    pooler = linear_parameters(options.hidden_size, options.hidden_size)
    return {
        "with_projection_without_pooler": with_projection,
        "without_projection_without_pooler": with_projection - projection,
        "with_projection_with_pooler": with_projection + pooler,
        "without_projection_with_pooler": with_projection - projection + pooler,
        "projection": projection,
        "pooler": pooler,
    }


def cost_of(
    architecture: EfficientBertArchitecture, options: EfficientBertOptions, sequence_length: int, flops_rule: FlopsRule
) -> Cost:
    """The cost of a stand-alone model; equal to what the built module counts.

    The projection is counted where ``options.projection`` says that models keep it, as a part of the encoder.
    """
    counts = parameter_counts(architecture, options)
    kind = "with_projection_without_pooler" if options.projection else "without_projection_without_pooler"
    parameters = counts[kind]
    flops = flops_of(architecture, options, sequence_length)
    if flops_rule == "electra":
        flops += 2 * options.embedding_size * options.shape.vocab_size * sequence_length
    return Cost(parameters, parameters - embedding_parameters(options), flops)


def flops_of(architecture: EfficientBertArchitecture, options: EfficientBertOptions, sequence_length: int) -> int:
    """Floating-point operations of one forward pass of one sequence, by the rule ``encoder``."""
    hidden = options.hidden_size
    attention = len(architecture.blocks) * (4 * hidden * hidden + 2 * sequence_length * hidden)
    inner = sum(block.stacked * options.inner_size(block.divisor) for block in architecture.blocks)
    embeddings = NEIGHBOURS * options.embedding_size * hidden
    return 2 * sequence_length * (attention + 2 * hidden * inner + embeddings)
