"""Parameters and FLOPs of NAS-BERT architectures by arithmetic alone.

The parameter formulas are those of the operations' modules (paper notes, section 3.3): attention 4H²+6H (4HA+3A+3H
where its heads are only A wide together), feed-forward with inner size mH 2mH²+(m+3)H, a separable unit H²+(k+4)H.
FLOPs count a multiply-add as two and leave out normalisation and activation; :data:`spaces.space.FlopsRule` says what
the embeddings count.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise

from spaces.nas_bert.architecture import BlockArchitecture, NasBertArchitecture
from spaces.nas_bert.operation_names import (
    attention_heads,
    feed_forward_multiple,
    is_attention,
    is_feed_forward,
    kernel_size,
)
from spaces.nas_bert.options import NasBertOptions
from spaces.space import Cost, FlopsRule


@lru_cache(maxsize=4096)  # searches cost the same few operations over and over
def operation_parameters(operation: str, hidden_size: int, *, head_size: int, separable_units: int) -> int:
    """Weights of one operation at one hidden size, its LayerNorms included."""
    if is_attention(operation):
        inner_size = attention_heads(operation, hidden_size, head_size) * head_size
        return 4 * hidden_size * inner_size + 3 * inner_size + 3 * hidden_size
    if is_feed_forward(operation):
        multiple = feed_forward_multiple(operation)
        return 2 * multiple * hidden_size * hidden_size + (multiple + 3) * hidden_size
    return separable_units * (hidden_size * hidden_size + (kernel_size(operation) + 4) * hidden_size)


@lru_cache(maxsize=4096)
def operation_flops(
    operation: str, hidden_size: int, *, head_size: int, separable_units: int, sequence_length: int
) -> int:
    """Floating-point operations of one operation for one sequence."""
    square = hidden_size * hidden_size * sequence_length
    if is_attention(operation):
        inner_size = attention_heads(operation, hidden_size, head_size) * head_size
        return (8 * hidden_size + 4 * sequence_length) * inner_size * sequence_length
    if is_feed_forward(operation):
        return 4 * feed_forward_multiple(operation) * square
    return separable_units * (2 * square + 2 * kernel_size(operation) * hidden_size * sequence_length)


def link_widths(before: int, after: int | None, options: NasBertOptions) -> tuple[int, int] | None:
    """The linear map of a stand-alone model between two widths, as (input width, output width).

    Args:
        before: embedding size, or hidden size of a block.
        after: hidden size of the next block; ``None`` behind the last one.
        options: of the space; ``projections`` says which maps there are.

    Returns:
        ``None`` where nothing stands between the two.
    """
    interface = options.shape.hidden_size
    if options.projections == "paper":
        return None if after is None or before == after else (before, after)
    after = interface if after is None else after
    return None if before == after == interface else (before, after)


def projection_widths(architecture: NasBertArchitecture, options: NasBertOptions) -> list[tuple[int, int] | None]:
    """The linear maps of a stand-alone model: before each block and after the last, ``None`` where there is none.

    Returns:
        ``num_blocks + 1`` entries of (input width, output width).
    """
    widths = [architecture.embedding_size, *(block.hidden_size for block in architecture.blocks), None]
    return [link_widths(before, after, options) for before, after in pairwise(widths) if before is not None]


def projection_cost(inputs: int, outputs: int, sequence_length: int) -> Cost:
    """The cost of a linear map with bias."""
    parameters = (inputs + 1) * outputs
    return Cost(parameters, parameters, 2 * inputs * outputs * sequence_length)


def operation_cost(operation: str, hidden_size: int, options: NasBertOptions, sequence_length: int) -> Cost:
    """The cost of one operation at one hidden size."""
    sizes = {"head_size": options.head_size, "separable_units": options.separable_units}
    parameters = operation_parameters(operation, hidden_size, **sizes)
    flops = operation_flops(operation, hidden_size, sequence_length=sequence_length, **sizes)
    return Cost(parameters, parameters, flops)


def embedding_cost(embedding_size: int, options: NasBertOptions, sequence_length: int, flops_rule: FlopsRule) -> Cost:
    """The cost of token, position and segment tables with their LayerNorm, none of it the encoder's."""
    shape = options.shape
    parameters = (shape.vocab_size + shape.max_positions + options.type_vocab_size + 2) * embedding_size
    product = 2 * embedding_size * shape.vocab_size * sequence_length
    return Cost(parameters, 0, product if flops_rule == "electra" else 0)


def total(costs: Iterable[Cost]) -> Cost:
    """The sum of costs, field by field."""
    parameters = encoder_parameters = flops = 0
    for cost in costs:
        parameters += cost.parameters
        encoder_parameters += cost.encoder_parameters
        flops += cost.flops
    return Cost(parameters, encoder_parameters, flops)


def block_cost_of(block: BlockArchitecture, options: NasBertOptions, sequence_length: int) -> Cost:
    """The cost of one block's operations, without linear maps and embeddings."""
    return total(
        operation_cost(operation, block.hidden_size, options, sequence_length) for operation in block.operations
    )


def cost_of(
    architecture: NasBertArchitecture, options: NasBertOptions, sequence_length: int, flops_rule: FlopsRule
) -> Cost:
    """The cost of a stand-alone model; equal to what the built module counts."""
    projections = [widths for widths in projection_widths(architecture, options) if widths is not None]
    return total(
        [
            embedding_cost(architecture.embedding_size, options, sequence_length, flops_rule),
            *(projection_cost(inputs, outputs, sequence_length) for inputs, outputs in projections),
            *(block_cost_of(block, options, sequence_length) for block in architecture.blocks),
        ]
    )
