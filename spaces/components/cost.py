"""Parameters and FLOPs of architectures of components by arithmetic alone; equal to what the built module counts.

A stage of n heads of size S with K channels left of queries and keys has the linear maps D -> nK twice, D -> nS and
nS -> D, a stage of i neurons D -> i and i -> D. The bias of the last map is a sublayer's, not a component's: it counts
once, at the first stage, and so do the 2 D weights of its LayerNorm, with mean or without. FLOPs count a multiply-add
as two, of linear maps and attention. Scores count S channels a head, however few are left: queries and keys are filled
up with zeros, for the sake of fast kernels. Where K is 0, what is mixed is the mean of the tokens, so that the maps of
attention run once a sequence instead of once a token.
"""

from __future__ import annotations

from spaces.components.architecture import ComponentsArchitecture
from spaces.components.options import ComponentsOptions
from spaces.components.sublayers import SublayerChoice
from spaces.space import Cost, FlopsRule


def attention_parameters(choice: SublayerChoice, options: ComponentsOptions) -> int:
    """Weights of a layer's attention, its LayerNorm included."""
    if choice.is_absent:
        return 0
    hidden, heads = options.shape.hidden_size, len(choice.components)
    keys, values = heads * len(choice.query_key) * options.query_key_size, heads * options.shape.head_size
    return 2 * (hidden + 1) * keys + (hidden + 1) * values + values * hidden + 3 * hidden


def feed_forward_parameters(choice: SublayerChoice, options: ComponentsOptions) -> int:
    """Weights of a layer's feed-forward, its LayerNorm included."""
    if choice.is_absent:
        return 0
    hidden, inner = options.shape.hidden_size, len(choice.components) * options.slice_size
    return (2 * hidden + 1) * inner + 3 * hidden


def encoder_parameters(architecture: ComponentsArchitecture, options: ComponentsOptions) -> int:
    """All weights behind the embeddings."""
    return sum(
        attention_parameters(layer.attention, options) + feed_forward_parameters(layer.feed_forward, options)
        for layer in architecture.layers
    )


def attention_flops(choice: SublayerChoice, options: ComponentsOptions, tokens: int) -> int:
    """Floating-point operations of a layer's attention for one sequence."""
    hidden, heads = options.shape.hidden_size, len(choice.components)
    keys, values = heads * len(choice.query_key) * options.query_key_size, heads * options.shape.head_size
    if not choice.query_key:
        return 2 * (len(choice.stages) * tokens * hidden + 2 * hidden * values)
    return 2 * tokens * (2 * hidden * (keys + values) + tokens * 2 * values)


def feed_forward_flops(choice: SublayerChoice, options: ComponentsOptions, tokens: int) -> int:
    """Floating-point operations of a layer's feed-forward for one sequence."""
    return 2 * tokens * 2 * options.shape.hidden_size * len(choice.components) * options.slice_size


def cost_of(
    architecture: ComponentsArchitecture, options: ComponentsOptions, sequence_length: int, flops_rule: FlopsRule
) -> Cost:
    """The cost of a stand-alone model."""
    shape, encoder = options.shape, encoder_parameters(architecture, options)
    flops = sum(
        attention_flops(layer.attention, options, sequence_length)
        + feed_forward_flops(layer.feed_forward, options, sequence_length)
        for layer in architecture.layers
    )
    if flops_rule == "electra":
        flops += 2 * shape.hidden_size * shape.vocab_size * sequence_length
    return Cost(encoder + shape.embedding_parameters, encoder, flops)
