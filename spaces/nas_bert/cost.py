"""Parameters and FLOPs of NAS-BERT architectures by arithmetic alone.

The parameter formulas are those of the operations' modules (paper notes, section 3.3): attention 4H²+6H, feed-forward
with inner size mH 2mH²+(m+3)H, a separable unit H²+(k+4)H. FLOPs count a multiply-add as two and leave out
normalisation, activation and embedding look-ups.
"""

from __future__ import annotations

from itertools import pairwise

from spaces.nas_bert.architecture import BlockArchitecture, NasBertArchitecture
from spaces.nas_bert.operation_names import ATTENTION, feed_forward_multiple, is_feed_forward, kernel_size
from spaces.nas_bert.options import NasBertOptions
from spaces.space import Cost


def operation_parameters(operation: str, hidden_size: int, separable_units: int) -> int:
    """Weights of one operation at one hidden size, its LayerNorms included."""
    if operation == ATTENTION:
        return 4 * hidden_size * hidden_size + 6 * hidden_size
    if is_feed_forward(operation):
        multiple = feed_forward_multiple(operation)
        return 2 * multiple * hidden_size * hidden_size + (multiple + 3) * hidden_size
    return separable_units * (hidden_size * hidden_size + (kernel_size(operation) + 4) * hidden_size)


def operation_flops(operation: str, hidden_size: int, separable_units: int, sequence_length: int) -> int:
    """Floating-point operations of one operation for one sequence."""
    square = hidden_size * hidden_size * sequence_length
    if operation == ATTENTION:
        return 8 * square + 4 * sequence_length * sequence_length * hidden_size
    if is_feed_forward(operation):
        return 4 * feed_forward_multiple(operation) * square
    return separable_units * (2 * square + 2 * kernel_size(operation) * hidden_size * sequence_length)


def projection_widths(architecture: NasBertArchitecture, options: NasBertOptions) -> list[tuple[int, int] | None]:
    """The linear maps of a stand-alone model: before each block and after the last, ``None`` where there is none.

    Returns:
        ``num_blocks + 1`` entries of (input width, output width).
    """
    widths = [architecture.embedding_size, *(block.hidden_size for block in architecture.blocks)]
    interface = options.shape.hidden_size
    if options.projections == "paper":
        between = [(a, b) if a != b else None for a, b in pairwise(widths)]
        return [*between, None]
    steps = zip(widths, [*widths[1:], interface], strict=True)
    return [None if a == b == interface else (a, b) for a, b in steps]


def embedding_parameters(architecture: NasBertArchitecture, options: NasBertOptions) -> int:
    """Token, position and segment tables with their LayerNorm, at the embedding size."""
    shape = options.shape
    return (shape.vocab_size + shape.max_positions + options.type_vocab_size + 2) * architecture.embedding_size


def block_cost_of(block: BlockArchitecture, options: NasBertOptions, sequence_length: int) -> Cost:
    """The cost of one block's operations, without linear maps and embeddings."""
    size, units = block.hidden_size, options.separable_units
    parameters = sum(operation_parameters(operation, size, units) for operation in block.operations)
    flops = sum(operation_flops(operation, size, units, sequence_length) for operation in block.operations)
    return Cost(parameters, parameters, flops)


def cost_of(architecture: NasBertArchitecture, options: NasBertOptions, sequence_length: int) -> Cost:
    """The cost of a stand-alone model; equal to what the built module counts."""
    projections = [widths for widths in projection_widths(architecture, options) if widths is not None]
    encoder = sum((inputs + 1) * outputs for inputs, outputs in projections)
    flops = sum(2 * inputs * outputs * sequence_length for inputs, outputs in projections)
    for block in architecture.blocks:
        cost = block_cost_of(block, options, sequence_length)
        encoder, flops = encoder + cost.parameters, flops + cost.flops
    return Cost(
        parameters=encoder + embedding_parameters(architecture, options), encoder_parameters=encoder, flops=flops
    )
